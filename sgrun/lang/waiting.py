"""Owns waiting: for a future or a change, from a program's greenlet, from a thread, or from a coroutine.

A plain `def` body runs in a greenlet under a coroutine. Where it needs a value it switches back to that coroutine,
which awaits the value on the event loop and switches in again; so thousands of bodies share one thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from sgrun.errors import ProgramError

T = TypeVar("T")

in_async_body: contextvars.ContextVar[bool] = contextvars.ContextVar("in_async_body", default=False)


_MARK = "sgrun_body"  # attribute of greenlets that may suspend themselves; the parent is the coroutine that drives them


def wait(future: Future[Any]) -> None:
    """Returns when `future` is done, with a result or an error. Raises ProgramError in an `async def` body."""
    current = getcurrent()
    if hasattr(current, _MARK):
        if not future.done():
            current.parent.switch(future)
        return
    if in_async_body.get() and asyncio._get_running_loop() is not None:
        raise ProgramError(
            "an async def program read a value without awaiting it, which would block its event loop; "
            "use await s.aget(name), await s.atext(), await s.async_sync() or async for ... in s.text_async_iter()"
        )
    concurrent.futures.wait([future])


async def until_done(future: Future[Any]) -> None:
    """Awaits `future` without ever cancelling it."""
    if future.done():
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    mailbox = _mailbox_of(loop)

    def complete() -> None:
        if not done.done():
            done.set_result(None)

    def wake(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop has been closed, and whoever waited on it is gone
            mailbox.post(complete)

    future.add_done_callback(wake)
    await done


class Mailbox:
    """Calls that other threads ask of a loop. Many that come together wake the loop once, which costs a system call.

    `_drain` lowers the flag before it takes calls, and `post` adds its call before it looks at the flag, so no call
    is left behind.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._is_drain_due = False

    def post(self, call: Callable[[], object]) -> None:
        """Runs `call`, which must not raise, on the loop. Raises RuntimeError if the loop is closed."""
        self._calls.append(call)
        if not self._is_drain_due:
            self._is_drain_due = True
            self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._is_drain_due = False
        while self._calls:
            self._calls.popleft()()


_of_thread = threading.local()


def _mailbox_of(running: asyncio.AbstractEventLoop) -> Mailbox:
    """The mailbox of the loop that runs in this thread."""
    mailbox: Mailbox | None = getattr(_of_thread, "mailbox", None)
    if mailbox is None or mailbox.loop is not running:
        mailbox = _of_thread.mailbox = Mailbox(running)
    return mailbox


async def run_in_greenlet(call: Callable[[], T]) -> T:
    """Runs `call`, in which `wait` suspends instead of blocking. It sees a copy of the caller's context variables."""
    body = greenlet(call)
    setattr(body, _MARK, True)
    body.gr_context = contextvars.copy_context()
    handed = body.switch()
    while not body.dead:
        try:
            await until_done(handed)
        except BaseException:  # noqa: BLE001 - raised again inside the body, at the place where it waits
            handed = body.throw(*sys.exc_info())
        else:
            handed = body.switch()
    result: T = handed
    return result


def loop_for_bodies() -> asyncio.AbstractEventLoop:
    """The running loop where a body runs on it already, else the loop of the background thread."""
    running = asyncio._get_running_loop()
    if running is not None and (hasattr(getcurrent(), _MARK) or in_async_body.get()):
        return running
    return _background.loop()


class _BackgroundLoop:
    """The one thread on which bodies run that have no loop of their own; started by the first that needs it.

    The only resource that a process shares between engines and programs. A forked process starts its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                threading.Thread(target=self._loop.run_forever, name="sgrun-programs", daemon=True).start()
            return self._loop


_background = _BackgroundLoop()


class Changes:
    """Something that changes and can be waited on without missing a change.

    Who changes it calls `announce` afterwards. Who waits checks and registers under the same lock that `announce`
    takes, so that a change comes either before the check, which sees it, or after the registration, which it ends.
    """

    __slots__ = ("_lock", "_waiters")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: list[Future[None]] = []

    def announce(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set_result(None)

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        while True:
            with self._lock:
                if is_ready():
                    return
                waiter: Future[None] = Future()
                self._waiters.append(waiter)
            wait(waiter)
