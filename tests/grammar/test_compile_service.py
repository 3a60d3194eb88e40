"""The compile service: its processes, their limits and ends, its cache and its requests."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from sgrun.errors import EngineClosedError, GrammarError, GrammarTooLargeError, InvalidGrammarError
from sgrun.grammar import wire
from sgrun.grammar.automaton import Unchecked
from sgrun.grammar.compiler import GrammarCompiler, compile_grammar
from sgrun.grammar.limits import CompileLimits
from sgrun.grammar.process import WorkerLostError, WorkerProcess
from sgrun.types import (
    ChoicesSpec,
    DfaSpec,
    GrammarSpec,
    JsonSchemaSpec,
    Part,
    RegexSpec,
    SequenceSpec,
    Trigger,
    TriggeredSpec,
)

UNLIMITED = CompileLimits(**dict.fromkeys(CompileLimits.__slots__, 10**15))
ENDLESS = RegexSpec("(.*a.{40}|b)")  # 2^40 states


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    process = WorkerProcess(time_limit_s=30, max_memory_bytes=2**30)
    yield process
    process.kill()


def all_children() -> set[int]:
    path = Path(f"/proc/{os.getpid()}/task")
    return {int(pid) for children in path.glob("*/children") for pid in children.read_text().split()}


@pytest.fixture
def child_pids() -> Callable[[], set[int]]:
    """The processes that were started since; engines of other tests may have theirs."""
    before = all_children()
    return lambda: all_children() - before


def waits_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize(
    "spec",
    [
        RegexSpec("a?|[é-日]{2,5}"),
        ChoicesSpec(("a", "日本")),
        JsonSchemaSpec('{"type":"object","properties":{"a":{"type":"string"}}}'),
    ],
)
def test_worker_compiles_what_the_function_compiles(worker: WorkerProcess, spec: GrammarSpec) -> None:
    there, here = worker.compile(spec, CompileLimits()), compile_grammar(spec)
    for name in ("byte_classes", "table", "sites", "counts"):
        assert (getattr(there, name) == getattr(here, name)).all()
        assert getattr(there, name).dtype == getattr(here, name).dtype
    assert (there.start, there.checked_afterwards) == (here.start, here.checked_afterwards)


def test_errors_keep_their_type_and_message(worker: WorkerProcess) -> None:
    for pattern in ("a(", r"(a)\1", "a{9}{999999}", "\ud800"):
        with pytest.raises(GrammarError) as here:
            compile_grammar(RegexSpec(pattern))
        with pytest.raises(type(here.value)) as there:
            worker.compile(RegexSpec(pattern), CompileLimits())
        assert type(there.value) is type(here.value) and str(there.value) == str(here.value)
    with pytest.raises(GrammarTooLargeError, match="max_states is 1 "):
        worker.compile(RegexSpec("abc"), CompileLimits(max_states=1))


def test_automata_cross_the_wire_whole() -> None:
    automaton = dataclasses.replace(
        compile_grammar(RegexSpec("a|é")),
        sites=np.arange(6, dtype=np.int32).reshape(2, 3),
        counts=np.array([[5, 1, 2]], dtype=np.int32),
        checked_afterwards=(Unchecked("uniqueItems", "/properties/a~1b"),),
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(wire.encode_automaton(automaton))
        received = wire.receive(theirs)
        ours.close()
        assert wire.receive(theirs) is None
    assert received is not None
    copy = wire.decode_reply(*received)
    for name in ("byte_classes", "table", "sites", "counts"):
        assert np.array_equal(getattr(copy, name), getattr(automaton, name))
    assert copy.checked_afterwards == automaton.checked_afterwards


def test_worker_loads_grammar_code_only() -> None:
    code = "import sys, sgrun.grammar.worker; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "tokenizers", "jinja2", "gguf", "pydantic"} & set(loaded)
    assert not [name for name in loaded if name.startswith(("sgrun.engine", "sgrun.models", "sgrun.cache"))]


def test_modules_of_the_working_folder_are_not_taken_for_others(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    code = (
        "from sgrun.grammar.process import WorkerProcess; from sgrun.grammar.limits import CompileLimits;"
        "from sgrun.types import RegexSpec; worker = WorkerProcess(30, 2**30);"
        "print(worker.compile(RegexSpec('a'), CompileLimits()).num_states); worker.kill()"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "3\n", done.stderr


def test_compile_over_its_time_is_killed(child_pids: Callable[[], set[int]]) -> None:
    worker = WorkerProcess(time_limit_s=0.5, max_memory_bytes=2**30)
    start = time.monotonic()
    with pytest.raises(GrammarTooLargeError, match=r"longer than 0\.5 s"):
        worker.compile(ENDLESS, UNLIMITED)
    assert time.monotonic() - start < 5
    assert not worker.is_usable and worker.pid not in child_pids()


def test_compile_over_its_memory_is_refused() -> None:
    worker = WorkerProcess(time_limit_s=60, max_memory_bytes=300 * 2**20)
    with pytest.raises(GrammarTooLargeError, match="more than the 300 MiB"):
        worker.compile(ENDLESS, UNLIMITED)
    worker.kill()


def test_lost_worker_says_how_it_ended(worker: WorkerProcess) -> None:
    worker.compile(RegexSpec("a"), CompileLimits())
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="signal SIGKILL"):
        worker.compile(RegexSpec("a"), CompileLimits())
    assert not worker.is_usable


def test_workers_end_with_their_parent() -> None:
    code = (
        "import os, signal; from sgrun.grammar.process import WorkerProcess; from sgrun.types import RegexSpec;"
        "from sgrun.grammar.limits import CompileLimits; worker = WorkerProcess(30, 2**30);"
        "worker.compile(RegexSpec('a'), CompileLimits()); print(worker.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    assert waits_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())


def test_worker_that_nobody_waits_for_ends_in_bounded_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arguments = [sys.executable, "-m", "sgrun.grammar.worker", "0.3", str(2**30)]
        process = subprocess.Popen(arguments, stdin=theirs.fileno())
        ours.sendall(wire.encode_request(ENDLESS, UNLIMITED))
        assert process.wait(timeout=60) == -signal.SIGALRM


def test_hostile_spec_does_not_keep_others_from_compiling(child_pids: Callable[[], set[int]]) -> None:
    compiler = GrammarCompiler(UNLIMITED, time_limit_s=2)
    hostile = compiler.submit(ENDLESS)
    others = [compiler.submit(RegexSpec(f"x{i}[a-z]+")) for i in range(50)]
    for i, other in enumerate(others):
        assert other.result(30).accepts(b"x%dabc" % i)
    assert not hostile.done()
    with pytest.raises(GrammarTooLargeError, match="longer than 2 s"):
        hostile.result(30)
    compiler.close()
    assert not child_pids()


def test_more_hostile_specs_than_workers_are_replaced_and_the_rest_compiles() -> None:
    compiler = GrammarCompiler(UNLIMITED, time_limit_s=0.5, num_workers=1)
    hostile = [compiler.submit(RegexSpec(f"(.*a.{{4{i}}}|b)")) for i in range(3)]
    other = compiler.submit(RegexSpec("ab"))
    for future in hostile:
        with pytest.raises(GrammarTooLargeError):
            future.result(30)
    assert other.result(30).accepts(b"ab")
    compiler.close()


def test_worker_killed_while_it_waits_costs_nothing(child_pids: Callable[[], set[int]]) -> None:
    compiler = GrammarCompiler(num_workers=1)
    compiler.submit(RegexSpec("a")).result(30)
    for pid in child_pids():
        os.kill(pid, signal.SIGKILL)
    assert compiler.submit(RegexSpec("b")).result(30).accepts(b"b")
    compiler.close()


def test_worker_killed_at_work_is_replaced_once_then_the_spec_is_refused(child_pids: Callable[[], set[int]]) -> None:
    compiler = GrammarCompiler(UNLIMITED, time_limit_s=60, num_workers=1)
    future = compiler.submit(ENDLESS)
    (first,) = child_pids()
    os.kill(first, signal.SIGKILL)
    assert waits_for(lambda: bool(child_pids() - {first}))
    assert not future.done()
    (second,) = child_pids() - {first}
    os.kill(second, signal.SIGKILL)
    with pytest.raises(GrammarTooLargeError, match=r"ended twice .signal SIGKILL."):
        future.result(30)
    assert compiler.submit(RegexSpec("b")).result(30).accepts(b"b")
    compiler.close()


def test_spec_of_a_size_that_no_limit_allows_is_not_even_sent() -> None:
    compiler = GrammarCompiler(CompileLimits(max_source_len=3))
    for spec in (RegexSpec("abcd"), ChoicesSpec(("ab", "cd")), DfaSpec((0,) * 256, ((0,), (1,)), (1,))):
        with pytest.raises(GrammarTooLargeError, match="max_source_len is 3"):
            compiler.submit(spec).result(30)
    compiler.close()


def test_specs_within_specs_are_bounded_before_anything_looks_into_them() -> None:
    compiler = GrammarCompiler()
    spec: GrammarSpec = RegexSpec("a")
    for _ in range(50):
        spec = SequenceSpec(("(", Part("inner", spec), ")"))
    assert compiler.submit(spec).result(30).accepts(b"(" * 50 + b"a" + b")" * 50)
    for _ in range(2000):
        spec = TriggeredSpec((Trigger("(", spec, ")"),))
    with pytest.raises(GrammarTooLargeError, match="max_nesting is 100 and at least 2050"):
        compiler.submit(spec)
    compiler.close()


def test_compiler_leaves_no_process_thread_or_descriptor(child_pids: Callable[[], set[int]]) -> None:
    def opened() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before = opened()
    for _ in range(2):
        compiler = GrammarCompiler(UNLIMITED, time_limit_s=60)
        futures = [compiler.submit(spec) for spec in (ENDLESS, RegexSpec("a"), RegexSpec("("))]
        futures[1].result(30)
        compiler.close()
        with pytest.raises(EngineClosedError):
            futures[0].result(0)
    assert opened() == before and not child_pids()


def test_same_spec_is_compiled_once_and_kept() -> None:
    compiler = GrammarCompiler(num_workers=1)
    futures = [compiler.submit(RegexSpec("[ab]{500}")) for _ in range(5)]
    automata = [future.result(30) for future in futures]
    assert all(automaton is automata[0] for automaton in automata)
    assert compiler.submit(RegexSpec("[ab]{500}")).result(0) is automata[0]
    assert compiler.cache_bytes == automata[0].size_bytes + len("[ab]{500}")
    compiler.close()


def test_results_are_kept_within_their_bytes() -> None:
    size = compile_grammar(RegexSpec("a")).size_bytes + 1
    compiler = GrammarCompiler(max_cache_bytes=2 * size)
    kept = {pattern: compiler.submit(RegexSpec(pattern)).result(30) for pattern in "ab"}
    assert compiler.submit(RegexSpec("a")).result(30) is kept["a"]
    compiler.submit(RegexSpec("c")).result(30)
    assert compiler.submit(RegexSpec("a")).result(30) is kept["a"]
    assert compiler.submit(RegexSpec("b")).result(30) is not kept["b"]
    assert compiler.cache_bytes == 2 * size
    compiler.close()


def test_errors_reach_every_caller_and_are_not_kept() -> None:
    compiler = GrammarCompiler(num_workers=1)
    futures = [compiler.submit(RegexSpec("(")) for _ in range(3)]
    for future in futures:
        with pytest.raises(InvalidGrammarError):
            future.result(30)
    assert compiler.cache_bytes == 0
    with pytest.raises(InvalidGrammarError):
        compiler.submit(RegexSpec("(")).result(30)
    compiler.close()


def test_cancelling_one_request_leaves_the_others() -> None:
    compiler = GrammarCompiler(num_workers=1)
    compiler.submit(RegexSpec("[ab]{3000}"))
    cancelled, kept = compiler.submit(RegexSpec("b")), compiler.submit(RegexSpec("b"))
    assert cancelled.cancel()
    assert kept.result(30).num_states == 3
    with pytest.raises(CancelledError):
        cancelled.result(0)
    compiler.close()


def test_close_fails_what_waits_and_what_comes() -> None:
    compiler = GrammarCompiler(num_workers=1)
    running = compiler.submit(RegexSpec("[ab]{3000}"))
    waiting = [compiler.submit(RegexSpec(f"x{i}")) for i in range(20)]
    compiler.close()
    assert running.done()
    with pytest.raises(EngineClosedError):
        waiting[-1].result(0)
    with pytest.raises(EngineClosedError):
        compiler.submit(RegexSpec("a"))
    compiler.close()


def test_requests_from_many_threads_agree() -> None:
    compiler = GrammarCompiler(num_workers=1)
    results: list[int] = []

    def ask() -> None:
        results.extend(compiler.submit(RegexSpec("a" * n)).result(30).num_states for n in range(1, 20))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == sorted(list(range(3, 22)) * 4)
    compiler.close()
