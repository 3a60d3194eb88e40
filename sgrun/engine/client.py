"""Owns the public engine: text goes in, futures come out. Knows the core only through messages."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch
from tqdm import tqdm

from sgrun.config import Dtype, EngineConfig, LoadFormat
from sgrun.engine.core import EngineCore
from sgrun.engine.driver import ThreadDriver
from sgrun.engine.gates import Gates, Refused
from sgrun.engine.limits import Limits
from sgrun.engine.load import load_engine
from sgrun.engine.messages import (
    Append,
    Close,
    EngineStats,
    Event,
    Failed,
    Finished,
    FlushCache,
    Fork,
    Generate,
    Open,
    Operation,
    Progress,
    Score,
    ScoreOutput,
)
from sgrun.errors import EngineClosedError, InvalidParameterError
from sgrun.types import (
    ChatFormat,
    ChoiceScore,
    Chunk,
    GenerationResult,
    GrammarSpec,
    SamplingParams,
    ScoreResult,
    Segment,
)


class Engine:
    """A model on a device, serving sequences. Satisfies the language's `Backend`.

    `progress` shows bars on stderr for the download and loading of the model; the other arguments are those of
    `EngineConfig`. Use it as a context manager, or `shutdown` it; otherwise it ends with the process.
    Raises ConfigError and ModelError.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        load_format: LoadFormat = "auto",
        dtype: Dtype = "auto",
        device: str = "auto",
        page_size: int = 16,
        num_pages: int | None = None,
        token_budget: int | None = None,
        max_running: int = 256,
        max_wait_s: float = 2.0,
        context_len: int | None = None,
        check_invariants: bool = False,
        progress: bool = False,
    ) -> None:
        self.config = EngineConfig(
            model=model,
            revision=revision,
            tokenizer=tokenizer,
            load_format=load_format,
            dtype=dtype,
            device=device,
            page_size=page_size,
            num_pages=num_pages,
            token_budget=token_budget,
            max_running=max_running,
            max_wait_s=max_wait_s,
            context_len=context_len,
            check_invariants=check_invariants,
        )
        with _ProgressBars(progress) as bars:
            loaded = load_engine(self.config, bars.update)
        self._tokenizer = loaded.tokenizer
        self._device = loaded.device
        self._ids = itertools.count()
        self._driver = ThreadDriver()
        self._lock = threading.Lock()  # guards the two that follow
        self._gates = Gates(self._driver.post)
        self._pending: dict[int, _Pending] = {}
        self._core = EngineCore(
            loaded.steps,
            loaded.tokenizer,
            loaded.vocabulary,
            loaded.limits,
            self._on_event,
            self._driver.post,
            check_invariants=check_invariants,
        )
        self._driver.start(self._core, self._on_end)
        # A thread that the interpreter's end finds inside torch aborts the process.
        weakref.finalize(self, self._driver.stop)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    @property
    def chat_format(self) -> ChatFormat | None:
        """The model's chat template, or None if it has none."""
        return self._tokenizer.chat_format

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def limits(self) -> Limits:
        """What was chosen for this model and device: context, pages, budget."""
        return self._core.limits

    @property
    def stats(self) -> EngineStats:
        """Counters since the start, as of the last step."""
        return self._core.stats

    def open(self, *, cache_salt: str = "", priority: int = 0) -> int:
        """A new empty sequence. Sequences share cached prefixes only within one `cache_salt`; a higher `priority` is
        served first."""
        seq_id = next(self._ids)
        with self._lock:
            self._gates.open(Open(seq_id, priority, cache_salt))
        return seq_id

    def append(self, seq_id: int, segments: Sequence[Segment]) -> int:
        """Appends constant text, tokenised once here; returns how many tokens it became.

        Raises InvalidParameterError for text that has no UTF-8 form.
        """
        with self._lock:
            at_start = self._gates.is_empty(seq_id)
        token_ids = self._tokenizer.encode(segments, at_start=at_start)
        if token_ids:
            self._submit(Append(seq_id, tuple(token_ids)))
        return len(token_ids)

    def append_ids(self, seq_id: int, token_ids: Sequence[int]) -> None:
        """Appends token ids as they are. Raises InvalidParameterError for ids outside the vocabulary."""
        vocab_size = self.limits.vocab_size
        for token_id in token_ids:
            if not 0 <= token_id < vocab_size:
                raise InvalidParameterError(f"token id {token_id}; allowed: 0 to {vocab_size - 1}")
        self._submit(Append(seq_id, tuple(token_ids)))

    def generate(
        self,
        seq_id: int,
        params: SamplingParams,
        grammar: GrammarSpec | None = None,
        on_chunk: Callable[[Chunk], None] | None = None,
    ) -> Future[GenerationResult]:
        """Continues the sequence. `on_chunk` sees every chunk, in order, before the future is done."""
        future: Future[GenerationResult] = Future()
        op_id = next(self._ids)
        pending = _Pending(future, on_chunk=on_chunk)
        self._submit(Generate(seq_id, op_id, params, grammar, wants_chunks=on_chunk is not None), pending)
        return future

    def select(
        self,
        seq_id: int,
        choices: Sequence[str],
        decide: Callable[[ScoreResult], int],
        *,
        unconditional: bool = False,
    ) -> Future[ScoreResult]:
        """Scores `choices` after the sequence and appends the tokens of the one whose index `decide` returns.
        `decide` runs on the engine's thread; what it raises fails the sequence."""
        if not choices or not all(choices):
            raise InvalidParameterError(f"choices are {list(choices)!r}; allowed: at least one, none of them empty")
        future: Future[ScoreResult] = Future()
        token_ids = tuple(tuple(self._tokenizer.encode_text(choice)) for choice in choices)
        selection = _Selection(seq_id, tuple(choices), token_ids, decide)
        op_id = next(self._ids)
        self._submit(Score(seq_id, op_id, token_ids, unconditional), _Pending(future, selection=selection))
        return future

    def fork(self, seq_id: int, num_branches: int) -> list[int]:
        """Copies of the sequence as it stands after the operations submitted so far."""
        if num_branches < 1:
            raise InvalidParameterError(f"num_branches is {num_branches}; allowed: at least 1")
        child_ids = tuple(next(self._ids) for _ in range(num_branches))
        self._submit(Fork(seq_id, child_ids))
        return list(child_ids)

    def close(self, seq_id: int) -> None:
        """Ends the sequence once its submitted operations are done. Closing twice is allowed."""
        self._submit(Close(seq_id))

    def shutdown(self) -> None:
        """Ends the engine at once: what it still has fails with EngineClosedError."""
        self._driver.stop()

    def abort(self, seq_id: int) -> None:
        """Cancels what the sequence runs and has queued (their futures raise AbortedError) and closes it."""
        with self._lock:
            refused = self._gates.abort(seq_id)
        self._refuse(refused)

    def flush_cache(self) -> int:
        """Evicts every page that no open sequence uses; returns how many. Waits for the engine."""
        future: Future[int] = Future()
        op_id = next(self._ids)
        with self._lock:
            self._pending[op_id] = _Pending(future)
            is_posted = self._driver.post(FlushCache(op_id))
        if not is_posted:
            raise EngineClosedError("the engine is closed")
        return future.result()

    def _submit(self, op: Operation, pending: _Pending | None = None) -> None:
        with self._lock:
            if pending is not None and isinstance(op, Generate | Score):
                self._pending[op.op_id] = pending
            refused = self._gates.submit(op)
        self._refuse(refused)

    def _refuse(self, refused: Refused) -> None:
        """Outside the lock: futures run their callbacks here."""
        for op, error in refused:
            if isinstance(op, Generate | Score):
                self._pending.pop(op.op_id).future.set_exception(error)

    def _on_event(self, event: Event) -> None:
        """Called on the engine's thread."""
        if isinstance(event, Progress):
            on_chunk = self._pending[event.op_id].on_chunk
            assert on_chunk is not None
            on_chunk(event.chunk)
            return
        pending = self._pending.pop(event.op_id)
        if pending.selection is not None:
            self._on_scored(pending, pending.selection, event)
        elif isinstance(event, Failed):
            pending.future.set_exception(event.error)
        else:
            pending.future.set_result(event.result)

    def _on_end(self) -> None:
        """Called on the engine's thread, after which nothing is answered any more."""
        with self._lock:
            left, self._pending = list(self._pending.values()), {}
        for pending in left:
            pending.future.set_exception(EngineClosedError("the engine has ended before this operation did"))

    def _on_scored(self, pending: _Pending, selection: _Selection, event: Finished | Failed) -> None:
        refused: Refused
        if isinstance(event, Failed):
            with self._lock:
                refused = self._gates.choose(selection.seq_id, ())
            pending.future.set_exception(event.error)
        else:
            assert isinstance(event.result, ScoreOutput)
            result = selection.result(event.result)
            try:
                decision = selection.decide(result)
                token_ids = selection.token_ids[decision]
            except Exception as error:  # noqa: BLE001 - user code on the engine's thread: it fails its own sequence
                with self._lock:
                    refused = self._gates.fail(selection.seq_id, error)
                pending.future.set_exception(error)
            else:
                with self._lock:
                    refused = self._gates.choose(selection.seq_id, token_ids)
                pending.future.set_result(replace(result, decision=decision))
        self._refuse(refused)


@dataclass(frozen=True, slots=True)
class _Selection:
    seq_id: int
    choices: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    decide: Callable[[ScoreResult], int]

    def result(self, output: ScoreOutput) -> ScoreResult:
        unconditional = output.unconditional_logprobs or ((),) * len(self.choices)
        scores = map(ChoiceScore, self.choices, self.token_ids, output.logprobs, unconditional)
        return ScoreResult(tuple(scores), output.stats)


@dataclass(frozen=True, slots=True)
class _Pending:
    """Who waits for an operation."""

    future: Future[Any]
    on_chunk: Callable[[Chunk], None] | None = None
    selection: _Selection | None = None


class _ProgressBars:
    """A bar on stderr for each stage of loading, or none at all."""

    def __init__(self, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._stage = ""
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> _ProgressBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def update(self, stage: str, fraction: float) -> None:
        if not self._is_shown:
            return
        if stage != self._stage:
            self._end()
            self._stage = stage
            self._bar = tqdm(total=100, desc=stage, bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}")
        assert self._bar is not None
        self._bar.update(min(max(fraction, 0.0), 1.0) * 100 - self._bar.n)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
