"""The picture of a run."""

from __future__ import annotations

import pytest

import sgrun as sg
from sgrun.errors import AbortedError
from sgrun.lang.scripted import ScriptedBackend
from sgrun.lang.trace import OpNode


@sg.function
def program(s: sg.ProgramState) -> None:
    s += "one two" + sg.gen("x", n=2)
    forks = s.fork(2)
    forks[1] += " three" + sg.gen()
    forks.join()
    s += sg.select("y", ["a b", "c"])


FIRST = program.__wrapped__.__code__.co_firstlineno


def shape(node: OpNode) -> object:
    return (node.kind, node.name, node.num_tokens, [shape(child) for child in node.children])


def test_trace_is_the_tree_of_operations(backend: ScriptedBackend) -> None:
    state = program.run()
    state.sync()
    trace = state.trace()
    assert shape(trace) == (
        "program",
        "program",
        None,
        [
            ("append", None, 2, []),
            ("generate", "x", 2, []),
            ("fork", None, None, [("branch", "0", None, []), ("branch", "1", None, _branch())]),
            ("select", "y", 2, []),
        ],
    )
    generate = trace.children[1]
    assert (generate.line, generate.num_cached, generate.num_computed) == (f"test_trace.py:{FIRST + 2}", 0, 2)
    assert generate.time_ms is not None


def _branch() -> list[object]:
    return [("append", None, 1, []), ("generate", None, 1, [])]


def test_trace_prints_as_a_table(backend: ScriptedBackend) -> None:
    state = program.run()
    state.sync()
    lines = str(state.trace()).splitlines()
    assert lines[0].split() == ["op", "tokens", "cached", "computed", "ms"]
    assert lines[1] == f"program program (test_trace.py:{FIRST})"
    assert lines[3].split()[:6] == ["generate", "x", f"(test_trace.py:{FIRST + 2})", "2", "0", "2"]
    assert lines[5].startswith(f"    branch 0 (test_trace.py:{FIRST + 3})")
    column = lines[0].index("tokens") + len("tokens")
    assert all(len(line) < column or line[column - 1].isdigit() for line in lines[2:4])


def test_trace_shows_what_runs_and_what_failed() -> None:
    with ScriptedBackend(latency_s=30) as slow:
        state = program.run(backend=slow)
        running = state.trace().children[1]
        assert (running.num_tokens, running.time_ms, running.error) == (None, None, None)
        state.cancel()
        with pytest.raises(AbortedError):
            state.sync()
        failed = state.trace().children[1]
        assert isinstance(failed.error, AbortedError)
        assert f"generate x (test_trace.py:{FIRST + 2}) AbortedError" in state.trace().format()
