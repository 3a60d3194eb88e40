"""Each constraint of `hostile.py` ends as it should, within the limits of time and memory; others are compiled beside.

The tests take those that end soon; `python tests/grammar/test_hostile.py` hands all of them to the
compile service, measures how each ends, and meanwhile compiles something small again and again.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from hostile import COMPILED, HOSTILE, OTHERWISE, QUICK
from test_grammar_fuzz import cpu_limit

from sgrun.errors import GrammarError, GrammarTooLargeError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import GrammarCompiler, compile_grammar
from sgrun.types import RegexSpec

TIME_LIMIT_S = 5.0
MEMORY_LIMIT = 2 * 2**30


def ending_of(name: str) -> type[GrammarError] | None:
    """The error that a constraint is refused with; None if it compiles, or may."""
    if name in COMPILED:
        return None
    return OTHERWISE.get(name, GrammarTooLargeError)


@pytest.mark.parametrize("name", QUICK)
def test_hostile_constraint_ends_quickly_and_as_it_should(name: str) -> None:
    with cpu_limit(4):  # many times what they take on a machine with nothing else to do
        expected = ending_of(name)
        if expected is None:
            assert compile_grammar(HOSTILE[name]).num_states > 1
        else:
            with pytest.raises(GrammarError) as error:
                compile_grammar(HOSTILE[name])
            assert type(error.value) is expected and len(str(error.value)) < 1000


def main(num_workers: int) -> None:
    compiler = GrammarCompiler(time_limit_s=TIME_LIMIT_S, max_memory_bytes=MEMORY_LIMIT, num_workers=num_workers)
    is_over = threading.Event()
    waits: list[float] = []
    peaks: dict[str, float] = {}

    def compile_beside() -> None:
        number = 0
        while not is_over.wait(0.2):
            number += 1
            began = time.monotonic()
            assert compiler.submit(RegexSpec(f"x{number}[a-z]+")).result(60).accepts(b"x%dabc" % number)
            waits.append(time.monotonic() - began)
            peaks.update(worker_memory())

    beside = threading.Thread(target=compile_beside)
    beside.start()
    for name, spec in HOSTILE.items():
        began = time.monotonic()
        future = compiler.submit(spec)
        ending = describe(future)
        took_s = time.monotonic() - began
        print(f"{took_s:5.2f} s  {name:40} {ending[:130]}", flush=True)
        assert took_s < TIME_LIMIT_S + 2, name
    is_over.set()
    beside.join()
    compiler.close()
    waits.sort()
    print(
        f"{len(waits)} others compiled meanwhile in {waits[len(waits) // 2] * 1e3:.0f} ms (median), "
        f"{waits[-1] * 1e3:.0f} ms (longest); a process took at most {max(peaks.values()):.0f} MiB"
    )


def describe(future: Future[Automaton]) -> str:
    try:
        automaton = future.result()
    except GrammarError as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    return f"{automaton.num_states} states, {automaton.size_bytes >> 10} KiB"


def worker_memory() -> dict[str, float]:
    """MiB at most of each child process that lives, by its id."""
    pids = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    found = {}
    for pid in pids:
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        found[pid] = int(peak[1]) / 1024 if peak else 0.0
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
