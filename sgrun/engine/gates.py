"""Owns which operations may go to the core yet: behind a score, a sequence's later operations are held until the choice
has been made and appended. Knows nothing of futures or text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sgrun.engine.messages import Abort, Append, Close, Fork, Message, Open, Operation, Score
from sgrun.errors import AbortedError, EngineClosedError


@dataclass(slots=True)
class _Sequence:
    is_empty: bool = True
    held: list[Operation] | None = None  # a list while a gate is shut
    error: Exception | None = None


Refused = list[tuple[Operation, Exception]]  # operations that will never run, and why


class Gates:
    """Passes operations on to `post` (False: the engine has stopped) in the order of each sequence. Not thread-safe."""

    def __init__(self, post: Callable[[Message], bool]) -> None:
        self._post = post
        self._sequences: dict[int, _Sequence] = {}

    def open(self, message: Open) -> None:
        self._sequences[message.seq_id] = _Sequence()
        self._post(message)

    def is_empty(self, seq_id: int) -> bool:
        """Whether nothing has been submitted that gives the sequence tokens."""
        seq = self._sequences.get(seq_id)
        return seq is None or seq.is_empty

    def submit(self, op: Operation) -> Refused:
        seq = self._sequences.get(op.seq_id)
        if seq is None:
            return [(op, AbortedError(f"sequence {op.seq_id} is closed"))]
        if isinstance(op, Fork):
            for child_id in op.child_ids:
                # A child of a held fork is unknown to the core: its operations are held as well.
                self._sequences[child_id] = _Sequence(seq.is_empty, None if seq.held is None else [], seq.error)
        seq.is_empty &= isinstance(op, Fork | Close)
        if seq.error is not None:
            return self._refuse(op, seq.error)
        if seq.held is not None:
            seq.held.append(op)
            return []
        return self._pass(seq, op)

    def choose(self, seq_id: int, token_ids: tuple[int, ...]) -> Refused:
        """The score is decided: appends its choice (nothing if the score failed) and passes on what was held."""
        seq = self._sequences.get(seq_id)
        if seq is None or seq.held is None:
            return []
        held, seq.held = seq.held, None
        refused = self._pass(seq, Append(seq_id, token_ids)) if token_ids else []
        for number, op in enumerate(held):
            refused += self._pass(seq, op)
            if seq.held is not None:  # another score
                seq.held.extend(held[number + 1 :])
                break
        return refused

    def fail(self, seq_id: int, error: Exception) -> Refused:
        """Ends a sequence with an error of the client's own: held and later operations are refused with it."""
        seq = self._sequences.get(seq_id)
        if seq is None or seq.error is not None:
            return []
        self._post(Abort(seq_id))
        seq.error = error
        held, seq.held = seq.held or [], None
        return [pair for op in held for pair in self._refuse(op, error)]

    def abort(self, seq_id: int) -> Refused:
        """Also of a sequence that is closed already: the core may still be at what was asked of it before."""
        if seq_id not in self._sequences:
            self._post(Abort(seq_id))
        refused = self.fail(seq_id, AbortedError("the operation was aborted"))
        self._sequences.pop(seq_id, None)
        return refused

    def _pass(self, seq: _Sequence, op: Operation) -> Refused:
        if not self._post(op):
            return self._refuse(op, EngineClosedError("the engine is closed"))
        refused: Refused = []
        match op:
            case Score():
                seq.held = []
            case Close():
                del self._sequences[op.seq_id]
            case Fork():
                for child_id in op.child_ids:
                    refused += self.choose(child_id, ())
        return refused

    def _refuse(self, op: Operation, error: Exception) -> Refused:
        refused: Refused = [(op, error)]
        match op:
            case Close():
                self._sequences.pop(op.seq_id, None)
            case Fork():
                for child_id in op.child_ids:
                    child = self._sequences.get(child_id)
                    if child is not None:
                        child.error = error
                        held, child.held = child.held or [], None
                        for held_op in held:
                            refused += self._refuse(held_op, error)
        return refused
