"""Owns batches: many runs of one program started together and handed back in order."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from sgrun.errors import InvalidParameterError
from sgrun.lang.run import Run
from sgrun.lang.state import ProgramState
from sgrun.lang.waiting import loop_for_bodies, wait

OnError = Literal["return", "raise"]


@dataclass(frozen=True, slots=True)
class Item:
    """A run that can start: `body` is the program's function with its arguments."""

    run: Run
    state: ProgramState
    body: Callable[[], Any]


def launch(items: Sequence[Item], num_threads: int | Literal["auto"], is_async: bool) -> None:
    """Starts every item: on the event loop of bodies, or on `num_threads` threads."""
    if num_threads == "auto":
        _launch_on_loop(items, is_async)
        return
    if not isinstance(num_threads, int) or isinstance(num_threads, bool) or num_threads < 1:
        raise InvalidParameterError(f"num_threads is {num_threads!r}; allowed: 'auto' or an integer of at least 1")
    if is_async:
        raise InvalidParameterError("num_threads was given for an async def program, which runs on an event loop")
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="sgrun-body")
    for item in items:
        executor.submit(contextvars.copy_context().run, item.run.perform_on_thread, item.body)
    executor.shutdown(wait=False)


def _launch_on_loop(items: Sequence[Item], is_async: bool) -> None:
    loop = loop_for_bodies()
    for item in items:
        item.run.is_elsewhere = True

    def spawn_all() -> None:
        for item in items:
            item.run.spawn(item.body, is_async, loop)

    loop.call_soon_threadsafe(spawn_all)


def collect(
    items: Sequence[Item], *, progress_bar: bool = False, on_error: OnError = "return"
) -> Iterator[ProgramState]:
    """Yields the states in order, each when it is settled; cancels what has not been when it is left early."""
    if on_error not in ("return", "raise"):
        raise InvalidParameterError(f"on_error is {on_error!r}; allowed: 'return' and 'raise'")
    return _collect(items, progress_bar, on_error)


def _collect(items: Sequence[Item], progress_bar: bool, on_error: OnError) -> Iterator[ProgramState]:
    close_bar = _show_progress(items) if progress_bar else None
    try:
        for item in items:
            wait(item.run.settled)
            yield item.state
    finally:
        for item in items:
            if not item.run.settled.done():
                item.run.cancel()
        if close_bar is not None:
            close_bar()
    if on_error == "raise":
        for item in items:
            error = item.state.error()
            if error is not None:
                raise error


def _show_progress(items: Sequence[Item]) -> Callable[[], None]:
    from tqdm import tqdm

    bar = tqdm(total=len(items))
    for item in items:
        item.run.settled.add_done_callback(lambda _: bar.update())
    close: Callable[[], None] = bar.close
    return close
