"""Owns the thread that steps an engine core in the same process."""

from __future__ import annotations

import gc
import logging
import queue
import threading
from collections.abc import Callable

from sgrun.engine.core import EngineCore
from sgrun.engine.messages import Message

logger = logging.getLogger(__name__)

FIRST_REST = 100  # steps, and twice as many from one rest to the next


class ThreadDriver:
    """Feeds messages to a core and steps it on one daemon thread, until `stop`. The core and its events live there."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # nothing is posted behind the end
        self._is_stopped = False
        self._thread: threading.Thread | None = None
        self._next_rest = FIRST_REST

    def start(self, core: EngineCore, on_end: Callable[[], None]) -> None:
        """`on_end` is called on the thread when the core has stopped, whether it was stopped or has failed.

        What there is by now (modules, weights, the vocabulary) is hidden from Python's garbage collector until then: a
        full collection that goes through it holds the steps up for 0.1 s. So is, in pauses, what has been added since,
        such as compiled kernels.
        """
        gc.freeze()
        self._thread = threading.Thread(target=self._run, args=(core, on_end), name="sgrun-engine", daemon=True)
        self._thread.start()

    def post(self, message: Message) -> bool:
        """Never waits for the engine; any thread. False if the engine has stopped and the message is lost."""
        with self._lock:
            if not self._is_stopped:
                self._inbox.put(message)
            return not self._is_stopped

    def stop(self) -> None:
        """Closes the core, failing what it still has, and waits for its thread."""
        self._end()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _end(self) -> None:
        with self._lock:
            if not self._is_stopped:
                self._is_stopped = True
                self._inbox.put(None)

    def _run(self, core: EngineCore, on_end: Callable[[], None]) -> None:
        try:
            while self._take_messages(core):
                core.step()
        except Exception:  # the engine's border: a fault of the engine itself ends it, and no one waits for ever
            logger.exception("the engine has failed and is closed")
        self._end()
        try:
            core.close()
        except Exception:  # what the fault left behind could not be closed in order
            logger.exception("the engine could not be closed in order")
        finally:
            gc.unfreeze()
            on_end()

    def _take_messages(self, core: EngineCore) -> bool:
        """Hands over what has arrived, waiting for something if there is nothing to do. False at the end."""
        is_waiting = not core.has_work
        if is_waiting and self._inbox.empty() and core.stats.num_steps >= self._next_rest:
            self._next_rest = 2 * core.stats.num_steps
            gc.collect()
            gc.freeze()
        while is_waiting or not self._inbox.empty():
            message = self._inbox.get()
            if message is None:
                return False
            core.handle(message)
            is_waiting = False
        return True
