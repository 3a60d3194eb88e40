"""Owns the record of what one statement of a program asked of the backend, and how its outcome is read."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from sgrun.lang.waiting import Changes, wait
from sgrun.types import Chunk, GenerationResult, ScoreResult

_PACKAGE = os.path.dirname(__file__) + os.sep


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the program's source."""

    path: str
    number: int

    def __str__(self) -> str:
        return f"{os.path.basename(self.path)}:{self.number}"


def caller_line() -> Line:
    """The line outside this package that the current call came from."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    return Line(frame.f_code.co_filename, frame.f_lineno)


def add_place(error: BaseException, program: str, line: Line) -> None:
    """Notes on `error` where in which program it arose, unless it says so already."""
    if not any(note.startswith("in program ") for note in getattr(error, "__notes__", ())):
        error.add_note(f"in program {program!r}, {line} ({line.path})")


class Op:
    """One generate or select: its future, the chunks seen so far, and the operation before it on the same sequence."""

    def __init__(
        self, kind: Literal["generate", "select"], name: str | None, program: str, line: Line, previous: Op | None
    ) -> None:
        self.kind = kind
        self.name = name
        self.program = program
        self.line = line
        self.previous = previous
        self.chunks: list[Chunk] = []
        self.changes = Changes()
        self.started = time.perf_counter()
        self.ended: float | None = None
        self.future: Future[GenerationResult] | Future[ScoreResult]

    def receive(self, chunk: Chunk) -> None:
        if chunk.index == 0:  # the sample that the text goes on with
            self.chunks.append(chunk)
            self.changes.announce()

    def follow(self, future: Future[GenerationResult] | Future[ScoreResult]) -> None:
        self.future = future
        future.add_done_callback(self._end)

    def _end(self, _: Future[GenerationResult] | Future[ScoreResult]) -> None:
        self.ended = time.perf_counter()
        self.changes.announce()

    def failure(self) -> BaseException | None:
        """Waits. The operation's error, with the line of the operation that failed first."""
        wait(self.future)
        error = self.future.exception()
        if error is not None:
            failed = self._first_failed()
            add_place(error, failed.program, failed.line)
        return error

    def result(self) -> GenerationResult | ScoreResult:
        """Waits. Raises the operation's error."""
        error = self.failure()
        if error is not None:
            raise error
        return self.future.result()

    def generation(self) -> GenerationResult:
        result = self.result()
        assert isinstance(result, GenerationResult)
        return result

    def scores(self) -> ScoreResult:
        result = self.result()
        assert isinstance(result, ScoreResult)
        return result

    def text(self) -> str:
        """The text that the sequence goes on with. Waits, raises like `result`."""
        if self.kind == "generate":
            return self.generation().completions[0].text
        scores = self.scores()
        assert scores.decision is not None
        return scores.choices[scores.decision].text

    def stream(self) -> Iterator[Chunk]:
        """The chunks of the text as they come, or one chunk where the backend gave none. Raises like `result`."""
        seen = 0
        is_last = False
        while not is_last:
            self.changes.wait_until(functools.partial(self._is_past, seen))
            is_last = self.future.done()
            while seen < len(self.chunks):
                yield self.chunks[seen]
                seen += 1
        result = self.result()
        if seen == 0 and isinstance(result, GenerationResult):
            completion = result.completions[0]
            yield Chunk(completion.text, completion.token_ids, completion.logprobs)
        elif seen == 0:
            yield Chunk(self.text())

    def _is_past(self, num_chunks: int) -> bool:
        return len(self.chunks) > num_chunks or self.future.done()

    def _first_failed(self) -> Op:
        """Operations of a sequence run in order, so those before a failed one are done."""
        first = self
        while (earlier := first.previous) is not None and earlier.future.done() and earlier.future.exception():
            first = earlier
        return first
