"""The parent's end of one worker process: starts it, hands it one spec at a time, kills it when it takes too long."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar import wire
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.limits import CompileLimits
from sgrun.types import GrammarSpec

START_TIMEOUT_S = 60.0


class WorkerLostError(Exception):
    """The process ended without an answer; the message says how."""


class WorkerProcess:
    """Starts on construction, and is ready some 0.2 s later. For one thread; `kill` may be called from any."""

    def __init__(self, time_limit_s: float, max_memory_bytes: int) -> None:
        self._time_limit_s = time_limit_s
        self._is_ready = False
        self._connection, child = socket.socketpair()
        root = str(Path(__file__).parents[2])
        paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OPENBLAS_NUM_THREADS": "1"}
        with child:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sgrun.grammar.worker", str(time_limit_s + 1), str(max_memory_bytes)],
                stdin=child.fileno(),
                stdout=subprocess.DEVNULL,
                env=os.environ | environment,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Whether it may be handed another spec."""
        return self._connection.fileno() >= 0 and self._process.poll() is None

    def compile(self, spec: GrammarSpec, limits: CompileLimits) -> Automaton:
        """Raises what `compile_grammar` raises, GrammarTooLargeError when over the limits of time and memory,
        WorkerLostError if the process ends before it answers; the process is dead after the time is over."""
        try:
            if not self._is_ready:
                self._connection.settimeout(START_TIMEOUT_S)
                if wire.receive_bytes(self._connection, len(wire.READY)) is None:
                    raise WorkerLostError(self._end())
                self._is_ready = True
            reply = self._exchange(wire.encode_request(spec, limits))
        except TimeoutError as error:
            self.kill()
            raise GrammarTooLargeError(
                f"compiling the constraint took longer than {self._time_limit_s:g} s; "
                "use smaller counts, fewer alternatives or less nesting"
            ) from error
        except OSError as error:
            raise WorkerLostError(self._end()) from error
        if reply is None:
            raise WorkerLostError(self._end())
        return wire.decode_reply(*reply)

    def _exchange(self, request: bytes) -> tuple[object, bytearray] | None:
        self._connection.settimeout(self._time_limit_s)
        deadline = time.monotonic() + self._time_limit_s
        self._connection.sendall(request)
        self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
        return wire.receive(self._connection)

    def kill(self) -> None:
        """Ends the process, whatever it does; a thread that waits for it gets a WorkerLostError."""
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _end(self) -> str:
        self.kill()
        code = self._process.returncode
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
