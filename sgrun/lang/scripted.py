"""Owns a backend without a model, for tests and benchmarks of programs: a function answers, after a delay."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sgrun.errors import AbortedError, EmptyPromptError, EngineClosedError
from sgrun.lang.waiting import Mailbox
from sgrun.types import (
    ChatFormat,
    ChoiceScore,
    Chunk,
    Completion,
    GenerationResult,
    GrammarSpec,
    OpStats,
    SamplingParams,
    ScoreResult,
    Segment,
    TokenLogprob,
)

T = TypeVar("T")
Answer = Callable[[str, SamplingParams], str]
Score = Callable[[str, str], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a program made; `value`: its segments, parameters, choices or new sequence ids."""

    name: str
    seq_id: int
    value: Any = None


@dataclass(slots=True)
class _Sequence:
    """`turn` lets operations run one at a time in order; a fork is `ready` once its source has come as far as it."""

    text: str = ""
    pause: asyncio.Future[None] | None = None
    error: BaseException | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        self.resume()
        self.ready.set()

    def resume(self) -> None:
        if self.pause is not None and not self.pause.done():
            self.pause.set_result(None)


class ScriptedBackend:
    """Generates what `answer(prompt, params)` returns, `latency_s` after the operation before it.

    A token is a word with the white space before it. `answer` and `score` may raise: that fails the operation. `score`
    gives the log-probability of every token of a choice. A streamed answer comes token by token, spread over the
    latency. `calls` holds every call in order. One thread serves all sequences; `shutdown` (or `with`) ends it.
    """

    def __init__(
        self,
        answer: Answer | str = " ok",
        *,
        score: Score | None = None,
        latency_s: float = 0.0,
        chat_format: ChatFormat | None = None,
    ) -> None:
        self.calls: list[Call] = []
        self._answer: Answer = (lambda prompt, params: answer) if isinstance(answer, str) else answer
        self._score: Score = score or (lambda prompt, choice: [-1.0] * len(split_tokens(choice)))
        self._latency_s = latency_s
        self._chat_format = chat_format
        self._sequences: dict[int, _Sequence] = {}
        self._token_ids: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._numbers = itertools.count()
        self._is_shut_down = False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._mailbox = Mailbox(self._loop)
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-backend", daemon=True)
        self._thread.start()

    def __enter__(self) -> ScriptedBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def shutdown(self) -> None:
        """Fails what is not done with EngineClosedError and ends the thread."""
        with self._lock:
            self._is_shut_down = True
        asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def num_open(self) -> int:
        """How many sequences have not ended."""
        with self._lock:
            return len(self._sequences)

    @property
    def chat_format(self) -> ChatFormat | None:
        return self._chat_format

    def open(self, *, cache_salt: str = "", priority: int = 0) -> int:
        with self._lock:
            if self._is_shut_down:
                raise EngineClosedError("the scripted backend has been shut down")
            seq_id, sequence = self._new_sequence()
            sequence.ready.set()
            self.calls.append(Call("open", seq_id, (cache_salt, priority)))
        return seq_id

    def append(self, seq_id: int, segments: Sequence[Segment]) -> int:
        text = "".join(segment.text for segment in segments)

        async def run(sequence: _Sequence) -> None:
            sequence.text += text

        self._submit("append", seq_id, tuple(segments), run)
        return len(split_tokens(text))

    def generate(
        self,
        seq_id: int,
        params: SamplingParams,
        grammar: GrammarSpec | None = None,
        on_chunk: Callable[[Chunk], None] | None = None,
    ) -> Future[GenerationResult]:
        async def run(sequence: _Sequence) -> GenerationResult:
            if not sequence.text:
                raise EmptyPromptError("a generation was asked of an empty sequence; append text first")
            prompt_tokens = len(split_tokens(sequence.text))
            completions = tuple(self._complete(sequence.text, params) for _ in range(params.n))
            if on_chunk is None:
                await self._pause(sequence, self._latency_s)
            else:
                await self._stream(sequence, completions, on_chunk)
            sequence.text += completions[0].text
            return GenerationResult(completions, OpStats(prompt_tokens, 0, prompt_tokens))

        return self._submit("generate", seq_id, (params, grammar), run)

    def select(
        self,
        seq_id: int,
        choices: Sequence[str],
        decide: Callable[[ScoreResult], int],
        *,
        unconditional: bool = False,
    ) -> Future[ScoreResult]:
        async def run(sequence: _Sequence) -> ScoreResult:
            await self._pause(sequence, self._latency_s)
            scored = tuple(
                ChoiceScore(
                    choice,
                    self._ids(choice),
                    tuple(self._score(sequence.text, choice)),
                    tuple(self._score("", choice)) if unconditional else (),
                )
                for choice in choices
            )
            prompt_tokens = len(split_tokens(sequence.text))
            stats = OpStats(prompt_tokens, 0, prompt_tokens)
            decision = decide(ScoreResult(scored, stats))
            sequence.text += choices[decision]
            return ScoreResult(scored, stats, decision)

        return self._submit("select", seq_id, (tuple(choices), unconditional), run)

    def fork(self, seq_id: int, num_branches: int) -> list[int]:
        with self._lock:
            branches = dict(self._new_sequence() for _ in range(num_branches))

        async def run(sequence: _Sequence) -> None:
            for branch in branches.values():
                branch.text = sequence.text
                branch.ready.set()

        def pass_failure(future: Future[None]) -> None:
            error = future.exception()
            if error is not None:
                for branch in branches.values():
                    branch.fail(error)

        self._submit("fork", seq_id, tuple(branches), run).add_done_callback(pass_failure)
        return list(branches)

    def close(self, seq_id: int) -> None:
        async def run(sequence: _Sequence) -> None:
            """Nothing is left to do when its turn comes, whether the operations before it failed or not."""

        def forget(_: Future[None]) -> None:
            with self._lock:
                self._sequences.pop(seq_id, None)

        if seq_id in self._sequences:
            self._submit("close", seq_id, None, run).add_done_callback(forget)

    def abort(self, seq_id: int) -> None:
        with self._lock:
            self.calls.append(Call("abort", seq_id))
            sequence = self._sequences.pop(seq_id, None)
            if sequence is not None and not self._is_shut_down:
                error = AbortedError(f"sequence {seq_id} was aborted")
                self._mailbox.post(lambda: sequence.fail(error))

    def _new_sequence(self) -> tuple[int, _Sequence]:
        seq_id = next(self._numbers)
        self._sequences[seq_id] = _Sequence()
        return seq_id, self._sequences[seq_id]

    def _submit(
        self, name: str, seq_id: int, value: object, operation: Callable[[_Sequence], Coroutine[Any, Any, T]]
    ) -> Future[T]:
        """The lock keeps the order of calls and the order in which their tasks start the same."""
        future: Future[T] = Future()
        with self._lock:
            self.calls.append(Call(name, seq_id, value))
            sequence = self._sequences.get(seq_id)
            if sequence is not None and not self._is_shut_down:
                self._mailbox.post(lambda: self._start(sequence, operation, future))
                return future
        if self._is_shut_down:
            future.set_exception(EngineClosedError("the scripted backend has been shut down"))
        else:
            future.set_exception(AbortedError(f"sequence {seq_id} has ended"))
        return future

    def _start(
        self, sequence: _Sequence, operation: Callable[[_Sequence], Coroutine[Any, Any, T]], future: Future[T]
    ) -> None:
        def copy_outcome(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            error = task.exception()
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(task.result())

        task = self._loop.create_task(_in_turn(sequence, operation))
        self._tasks.add(task)  # the loop itself does not keep its tasks alive
        task.add_done_callback(copy_outcome)

    async def _pause(self, sequence: _Sequence, seconds: float) -> None:
        if seconds > 0:
            sequence.pause = self._loop.create_future()
            timer = self._loop.call_later(seconds, sequence.resume)
            await sequence.pause
            timer.cancel()
        if sequence.error is not None:
            raise sequence.error

    async def _stream(
        self, sequence: _Sequence, completions: Sequence[Completion], on_chunk: Callable[[Chunk], None]
    ) -> None:
        """The samples side by side, a token of each at a time."""
        num_steps = max(len(completion.token_ids) for completion in completions)
        for step in range(num_steps):
            await self._pause(sequence, self._latency_s / num_steps)
            for index, completion in enumerate(completions):
                for token in split_tokens(completion.text)[step : step + 1]:
                    here = slice(step, step + 1)
                    on_chunk(Chunk(token, completion.token_ids[here], completion.logprobs[here], index))

    def _complete(self, prompt: str, params: SamplingParams) -> Completion:
        tokens = split_tokens(self._answer(prompt, params))
        text = "".join(tokens[: params.max_tokens])
        reason = "length" if len(tokens) > params.max_tokens else "stop"
        found = [(text.index(stop), stop) for stop in params.stop if stop in text]
        stop = None
        if found:
            position, stop = min(found)
            text, reason = text[:position], "stop"
        kept = split_tokens(text)
        logprobs = tuple(TokenLogprob(self._id(token), token, -0.5) for token in kept) if params.logprobs else ()
        return Completion(
            text,
            self._ids(text),
            "length" if reason == "length" else "stop",
            stop_reason=stop,
            logprobs=logprobs,
            completion_tokens=len(kept),
        )

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._id(token) for token in split_tokens(text))

    def _id(self, token: str) -> int:
        return self._token_ids.setdefault(token, len(self._token_ids))

    async def _end_all(self) -> None:
        error = EngineClosedError("the scripted backend has been shut down")
        for sequence in self._sequences.values():
            sequence.fail(error)
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _in_turn(sequence: _Sequence, operation: Callable[[_Sequence], Awaitable[T]]) -> T:
    async with sequence.turn:
        await sequence.ready.wait()
        if sequence.error is not None:
            raise sequence.error
        try:
            return await operation(sequence)
        except BaseException as error:
            sequence.fail(error)
            raise


def split_tokens(text: str) -> list[str]:
    """The tokens of the scripted backend: words with the white space before them."""
    return re.findall(r"\s*\S+|\s+", text)
