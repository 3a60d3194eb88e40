"""The process that compiles constraints: reads specs from its standard input, a socket, and answers there.

It loads grammar code only, ends when the other side closes the socket, and bounds its own memory and time, so that
whatever a spec does to it stays in it. Started by `process.py`.
"""

from __future__ import annotations

import resource
import signal
import socket
import sys

from sgrun.errors import EngineError, GrammarError, GrammarTooLargeError
from sgrun.grammar import wire
from sgrun.grammar.compiler import compile_grammar


def main(time_limit_s: float, max_memory_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the program, which then closes the socket
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
    connection = socket.socket(fileno=sys.stdin.fileno())
    connection.sendall(wire.READY)
    is_spent = False
    while not is_spent and (request := wire.receive(connection)) is not None:
        signal.setitimer(signal.ITIMER_REAL, time_limit_s)  # ends the process, should nobody be left to kill it
        reply, is_spent = _answer(request[0], max_memory_bytes)
        connection.sendall(reply)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(header: object, max_memory_bytes: int) -> tuple[bytes, bool]:
    """The reply, and whether the process should end after it."""
    try:
        spec, limits = wire.decode_request(header)
        return wire.encode_automaton(compile_grammar(spec, limits)), False
    except GrammarError as error:
        return wire.encode_error(error), False
    except RecursionError:
        return wire.encode_error(GrammarTooLargeError("the constraint is nested too deeply to be compiled")), False
    except MemoryError:
        message = f"the constraint needs more than the {max_memory_bytes >> 20} MiB that compiling may take"
        return wire.encode_error(GrammarTooLargeError(message)), True
    except Exception as error:  # noqa: BLE001 - the border of the process: a fault of ours fails one request
        return wire.encode_error(EngineError(f"compiling the constraint failed: {error!r}")), False


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
