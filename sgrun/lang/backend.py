"""What a program needs of whatever runs it. The engine's client satisfies it, so does the scripted one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from sgrun.types import ChatFormat, Chunk, GenerationResult, GrammarSpec, SamplingParams, ScoreResult, Segment


class Backend(Protocol):
    """Operations on sequences. No method blocks; all may be called from any thread.

    Operations of one sequence run in the order in which they were submitted. An operation that fails fails its
    sequence: its own future and those of all later operations raise that error. Callbacks and futures are
    completed on a thread of the backend, so what they run must be short. `close` and `abort` never raise, also when
    the engine is gone; an operation that an engine can no longer run fails by its future with EngineClosedError.
    """

    @property
    def chat_format(self) -> ChatFormat | None:
        """The model's chat template, or None if it has none."""

    def open(self, *, cache_salt: str = "", priority: int = 0) -> int:
        """A new empty sequence; returns its id."""

    def append(self, seq_id: int, segments: Sequence[Segment]) -> int:
        """Appends constant text, tokenised once here; returns how many tokens it became."""

    def generate(
        self,
        seq_id: int,
        params: SamplingParams,
        grammar: GrammarSpec | None = None,
        on_chunk: Callable[[Chunk], None] | None = None,
    ) -> Future[GenerationResult]:
        """Continues the sequence. `on_chunk` sees every chunk, in order, before the future is done."""

    def select(
        self,
        seq_id: int,
        choices: Sequence[str],
        decide: Callable[[ScoreResult], int],
        *,
        unconditional: bool = False,
    ) -> Future[ScoreResult]:
        """Scores `choices` after the sequence and appends the tokens of the one whose index `decide` returns.

        What `decide` raises is the operation's error.
        """

    def fork(self, seq_id: int, num_branches: int) -> list[int]:
        """Copies of the sequence as it stands after the operations submitted so far."""

    def close(self, seq_id: int) -> None:
        """Ends the sequence once its submitted operations are done. Closing twice is allowed."""

    def abort(self, seq_id: int) -> None:
        """Cancels what the sequence runs and has queued (their futures raise AbortedError) and closes it.

        Also after `close`, while operations are not done: a program that has returned can still be cancelled.
        """
