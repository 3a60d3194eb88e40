"""Owns one run of one program: what its branches share, how its body is carried out, and how it ends."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any

from sgrun.errors import AbortedError
from sgrun.lang.backend import Backend
from sgrun.lang.chat import ChatRenderer
from sgrun.lang.op import Line, add_place
from sgrun.lang.sampling import SamplingArguments
from sgrun.lang.waiting import in_async_body, run_in_greenlet, wait

if TYPE_CHECKING:
    from sgrun.lang.branch import Branch

current_run: contextvars.ContextVar[Run | None] = contextvars.ContextVar("current_run", default=None)


class Run:
    """`ended` is done when the body has returned or failed; `settled`, of a run that its caller does not carry out,
    when its operations are done too."""

    def __init__(
        self,
        program: str,
        code: CodeType,
        backend: Backend,
        sampling: SamplingArguments,
        *,
        seed: int | None,
        is_streaming: bool,
        chat: Callable[[Backend], ChatRenderer],
    ) -> None:
        self.program = program
        self.line = Line(code.co_filename, code.co_firstlineno)
        self.backend = backend
        self.sampling = sampling
        self.seed = seed
        self.is_streaming = is_streaming
        self.is_elsewhere = False  # whether the caller holds the state while the body runs
        self.runs_on_thread = False  # whether the body has a thread of its own, and may block it
        self.branches: list[Branch] = []
        self.children: list[Run] = []
        self.ended: Future[None] = Future()
        self.settled: Future[None] = Future()
        self.error: BaseException | None = None
        self.value: Any = None
        self._code = code
        self._chat = chat
        self._cancel_task: Callable[[], object] | None = None
        self.is_cancelled = False

    def chat(self) -> ChatRenderer:
        """Raises ChatTemplateError if the model has no usable template."""
        return self._chat(self.backend)

    def is_inside(self) -> bool:
        """Whether the caller is this run's own body."""
        return current_run.get() is self

    def perform(self, body: Callable[[], Any]) -> None:
        """Runs a plain body here and now; what it raises is raised and ends the run."""
        token = current_run.set(self)
        try:
            self._check_not_cancelled()
            self._end(body())
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            current_run.reset(token)

    def perform_on_thread(self, body: Callable[[], Any]) -> None:
        """Runs a plain body on the caller's thread, which is its own, until its operations are done too."""
        self.is_elsewhere = self.runs_on_thread = True
        try:
            self.perform(body)
        finally:
            self._settle()
            self.settled.set_result(None)

    async def perform_async(self, body: Callable[[], Awaitable[Any]]) -> None:
        """Runs an `async def` body in the caller's task."""
        run_token, kind_token = current_run.set(self), in_async_body.set(True)
        try:
            self._check_not_cancelled()
            self._end(await body())
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            current_run.reset(run_token)
            in_async_body.reset(kind_token)

    def spawn(self, body: Callable[[], Any], is_async: bool, loop: asyncio.AbstractEventLoop) -> None:
        """Runs the body as a task of `loop`; what it raises is kept for those who read its state."""
        self.is_elsewhere = True
        context = contextvars.copy_context()
        if asyncio._get_running_loop() is loop:
            self._start_task(body, is_async, loop, context)
        else:
            loop.call_soon_threadsafe(self._start_task, body, is_async, loop, context)

    def _start_task(
        self, body: Callable[[], Any], is_async: bool, loop: asyncio.AbstractEventLoop, context: contextvars.Context
    ) -> None:
        task = loop.create_task(self._carry(body, is_async), context=context)
        task.add_done_callback(self._end_task)
        self._cancel_task = lambda: loop.call_soon_threadsafe(task.cancel)

    async def _carry(self, body: Callable[[], Any], is_async: bool) -> None:
        try:
            if is_async:
                await self.perform_async(body)
            else:
                await run_in_greenlet(lambda: self.perform(body))
        except (KeyboardInterrupt, SystemExit):
            assert self.error is not None  # kept there; raised here it would end the loop under all other bodies
        finally:
            await run_in_greenlet(self._settle)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._fail(AbortedError("the program did not start"))
        self.settled.set_result(None)

    def _settle(self) -> None:
        """Waits for all operations, whatever their outcome."""
        for branch in self.branches:
            branch.settle()

    def cancel(self) -> None:
        """Aborts the body, every branch and every run that the body started."""
        self.is_cancelled = True
        for branch in self.branches:
            branch.abort()
        for child in self.children:
            child.cancel()
        if self._cancel_task is not None and not self.ended.done():
            self._cancel_task()

    def _check_not_cancelled(self) -> None:
        if self.is_cancelled:
            raise AbortedError("the program was cancelled before it started")

    def wait_for_end(self) -> None:
        """Waits for a body that runs elsewhere; returns at once inside it."""
        if self.is_elsewhere and not self.is_inside():
            wait(self.ended)

    def wait_or_cancel(self) -> None:
        """Waits for the body; raises its error. Whoever stops waiting, or gets an error, leaves nothing running."""
        try:
            wait(self.ended)
        finally:
            if self.error is not None or not self.ended.done():
                self.cancel()
        if self.error is not None:
            raise self.error

    def _end(self, value: Any) -> None:
        for branch in self.branches:
            branch.close()
        self.value = value
        self.ended.set_result(None)
        self._announce_end()

    def _fail(self, error: BaseException) -> None:
        """Ends the run with `error`. What was asked for before an error stays readable where a caller holds the state;
        nobody can read it any more where the error is raised to the caller, or the run was interrupted."""
        if self.ended.done():
            return
        if self.is_cancelled or not isinstance(error, Exception):
            self.error = AbortedError(f"the program was cancelled ({type(error).__name__})")
            self.error.__cause__ = error
        else:
            self.error = error
        line = _line_in(self._code, error.__traceback__)
        if line is not None:
            add_place(self.error, self.program, line)
        if self.is_cancelled or not self.is_elsewhere or not isinstance(error, Exception):
            self.cancel()
        for branch in self.branches:
            branch.drop()
        self.ended.set_result(None)
        self._announce_end()

    def _announce_end(self) -> None:
        for branch in self.branches:
            branch.changes.announce()


def _line_in(code: CodeType, traceback: TracebackType | None) -> Line | None:
    """The line of the program's own function that `traceback` passes through."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code is code:
            line = Line(code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return line
