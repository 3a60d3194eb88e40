"""Every fault raises its own error, soon, with the program's line; nothing hangs and nothing stays open."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sgrun as sg
from sgrun.errors import (
    AbortedError,
    ChatTemplateError,
    ClosedStateError,
    EngineClosedError,
    EngineError,
    NonFiniteLogitsError,
    ProgramError,
    UnknownVariableError,
)
from sgrun.lang.scripted import ScriptedBackend
from sgrun.types import ChatFormat, SamplingParams

WITHIN_S = 1.0


@pytest.fixture
def faulty(chat_format: ChatFormat) -> Iterator[ScriptedBackend]:
    """Fails a generation or selection whose prompt ends with FAULT."""

    def answer(prompt: str, params: SamplingParams) -> str:
        if prompt.endswith("FAULT"):
            raise NonFiniteLogitsError("the logits hold NaN")
        return " ok"

    def score(prompt: str, choice: str) -> list[float]:
        answer(prompt, SamplingParams())
        return [-1.0]

    with ScriptedBackend(answer, score=score, latency_s=0.01, chat_format=chat_format) as scripted:
        yield scripted


def raised(kind: type[BaseException], act: Callable[[], Any]) -> BaseException:
    """The error that `act` raises, which must come in time."""
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        act()
    assert time.monotonic() - start < WITHIN_S
    assert type(caught.value) is kind
    return caught.value


def assert_line(error: BaseException, program: sg.Program, marker: str) -> None:
    """The error's note names the program and the line that holds `# marker`."""

    lines, start = inspect.getsourcelines(program.__wrapped__)
    number = start + next(offset for offset, line in enumerate(lines) if f"# {marker}" in line)
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith("in program ")]
    assert len(notes) == 1
    assert f"{program.__name__!r}, test_faults.py:{number} " in notes[0]


def assert_all_closed(backend: ScriptedBackend) -> None:
    deadline = time.monotonic() + WITHIN_S
    while backend.num_open and time.monotonic() < deadline:
        time.sleep(0.001)
    assert backend.num_open == 0


@sg.function
def failing_gen(s: sg.ProgramState) -> None:
    s += "a" + sg.gen("good") + "FAULT"
    s += sg.gen("bad")  # fault
    s += "b" + sg.gen("after")


@sg.function
def failing_body(s: sg.ProgramState) -> None:
    s += "a" + sg.gen("good")
    s.text()
    raise ZeroDivisionError("mine")  # fault


def test_backend_error_is_raised_where_a_value_is_read(faulty: ScriptedBackend) -> None:
    state = failing_gen.run(backend=faulty)
    assert state["good"] == " ok"
    for read in (lambda: state["bad"], lambda: state["after"], state.text, state.sync, lambda: list(state.text_iter())):
        assert_line(raised(NonFiniteLogitsError, read), failing_gen, "fault")
    assert isinstance(state.error(), NonFiniteLogitsError)
    assert_all_closed(faulty)


def test_later_read_first_still_names_the_line_that_failed(faulty: ScriptedBackend) -> None:
    state = failing_gen.run(backend=faulty)
    assert_line(raised(NonFiniteLogitsError, lambda: state["after"]), failing_gen, "fault")


def test_body_exception_is_raised_by_run(faulty: ScriptedBackend) -> None:
    assert_line(raised(ZeroDivisionError, lambda: failing_body.run(backend=faulty)), failing_body, "fault")
    assert_all_closed(faulty)


def test_failed_body_leaves_nothing_running() -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen("x")
        raise ZeroDivisionError

    with ScriptedBackend(latency_s=30) as slow:
        raised(ZeroDivisionError, lambda: program.run(backend=slow))
        raised(ZeroDivisionError, lambda: asyncio.run(program.arun(backend=slow)))
        assert_all_closed(slow)


def test_failure_in_one_fork_leaves_the_others(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a"
        forks = s.fork(3)
        forks += [" x", " FAULT", " y"]
        forks += sg.gen("x")  # fault
        assert forks[0]["x"] == forks[2]["x"] == " ok"
        s["read"] = forks[1]["x"]

    assert_line(raised(NonFiniteLogitsError, lambda: program.run(backend=faulty)), program, "fault")
    assert_all_closed(faulty)


def test_fork_of_a_failed_state_fails_by_its_line(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "FAULT" + sg.gen("x")  # fault
        forks = s.fork(2)
        forks += sg.gen("y")
        forks.join()

    state = program.run(backend=faulty)
    assert_line(raised(NonFiniteLogitsError, lambda: state["y"]), program, "fault")


def test_failure_in_a_stream_ends_it_with_the_error(faulty: ScriptedBackend) -> None:
    state = failing_gen.run(backend=faulty, stream=True)
    seen: list[str] = []
    error = raised(NonFiniteLogitsError, lambda: seen.extend(state.text_iter()))
    assert "".join(seen) == "a okFAULT"
    assert_line(error, failing_gen, "fault")
    raised(NonFiniteLogitsError, lambda: list(state.text_iter("after")))


def test_body_exception_in_a_stream_is_raised_by_its_reads(faulty: ScriptedBackend) -> None:
    state = failing_body.run(backend=faulty, stream=True)
    seen: list[str] = []
    error = raised(ZeroDivisionError, lambda: seen.extend(state.text_iter()))
    assert "".join(seen) == "a ok"
    assert_line(error, failing_body, "fault")
    raised(ZeroDivisionError, lambda: state["never"])
    raised(ZeroDivisionError, state.text)
    raised(ZeroDivisionError, lambda: state.ret_value)
    assert isinstance(state.error(), ZeroDivisionError)
    assert state["good"] == " ok"
    assert_all_closed(faulty)


def test_failing_batch_item_leaves_the_others(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState, text: str) -> str:
        s += text + sg.gen("x")
        assert s["x"] != text, "never"
        return s["x"] if text != "B" else 1 / 0  # body fault

    states = program.run_batch([("A",), ("FAULT",), ("B",), ("C",)], backend=faulty)
    assert [state.error() is None for state in states] == [True, False, False, True]
    assert [states[0].ret_value, states[3].ret_value] == [" ok", " ok"]
    raised(NonFiniteLogitsError, lambda: states[1]["x"])
    assert_line(raised(ZeroDivisionError, lambda: states[2].ret_value), program, "body fault")
    with pytest.raises(NonFiniteLogitsError):
        program.run_batch([("A",), ("FAULT",)], backend=faulty, on_error="raise")
    assert_all_closed(faulty)


def test_failing_select(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "FAULT"
        s += sg.select("x", ["a", "b"])  # fault
        s += sg.gen("y")

    state = program.run(backend=faulty)
    assert_line(raised(NonFiniteLogitsError, lambda: state["x"]), program, "fault")
    raised(NonFiniteLogitsError, lambda: state.get_meta_info("y"))


def test_failing_choices_method(faulty: ScriptedBackend) -> None:
    class Broken:
        requires_unconditional_logprobs = False

        def __call__(self, **scores: Any) -> sg.ChoicesDecision:
            raise ZeroDivisionError

    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.select("x", ["a", "b"], choices_method=Broken())  # fault

    assert_line(raised(ZeroDivisionError, lambda: program.run(backend=faulty)["x"]), program, "fault")


def test_failure_in_a_joined_fork(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState, mode: str) -> None:
        s += "a"
        forks = s.fork(2)
        forks += [" x", " FAULT"]
        forks += sg.gen("x")  # fault
        forks.join(mode)

    state = program.run("gather_variable", backend=faulty)
    assert_line(raised(NonFiniteLogitsError, lambda: state["x"]), program, "fault")
    error = raised(NonFiniteLogitsError, lambda: program.run("concate_and_append", backend=faulty))
    assert_line(error, program, "fault")
    assert_all_closed(faulty)


def test_exception_in_a_role_scope(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        with s.user():
            s += "a" + sg.gen("x")
            raise ZeroDivisionError  # fault

    assert_line(raised(ZeroDivisionError, lambda: program.run(backend=faulty)), program, "fault")


def test_roles_without_a_chat_template() -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += sg.user("hi")  # fault

    with ScriptedBackend() as bare:
        error = raised(ChatTemplateError, lambda: program.run(backend=bare))
        assert_line(error, program, "fault")
        assert_all_closed(bare)


def test_unknown_variable_in_the_body(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen("x")
        s["y"]  # fault

    for options in ({}, {"stream": True}):
        error = raised(UnknownVariableError, lambda options=options: program.run(backend=faulty, **options)["z"])
        assert_line(error, program, "fault")


def test_unknown_variable_of_a_stream_ends_with_the_body(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen("x")
        s["x"]

    state = program.run(backend=faulty, stream=True)
    raised(UnknownVariableError, lambda: list(state.text_iter("y")))


def test_read_of_a_failed_variable_in_the_body(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> str:
        s += "FAULT" + sg.gen("x")  # fault
        try:
            s["x"]
        except EngineError:
            return "seen"
        return "missed"

    assert program.run(backend=faulty).ret_value == "seen"


def test_typed_value_cut_short_names_its_line(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen_int("x")  # fault

    assert_line(raised(ProgramError, lambda: program.run(backend=faulty)["x"]), program, "fault")


def test_exception_in_a_role_of_an_ended_state_is_not_hidden(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        (fork,) = s.fork(1)
        with fork.user():
            fork.cancel()
            raise ZeroDivisionError

    raised(ZeroDivisionError, lambda: program.run(backend=faulty))


def test_waiting_for_an_unknown_variable_ends_with_the_cancelled_program() -> None:
    @sg.function
    async def slow_to_end(s: sg.ProgramState) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.1)

    with ScriptedBackend() as backend:
        state = slow_to_end.run(backend=backend, stream=True)
        timer = threading.Timer(0.05, state.cancel)
        timer.start()
        raised(AbortedError, lambda: state["never"])
        timer.join()


@sg.function
def endless(s: sg.ProgramState) -> None:
    s += "a"
    forks = s.fork(2)
    forks += sg.gen("x", max_tokens=5)
    s += sg.gen("x")
    s["x"]


@sg.function
async def async_endless(s: sg.ProgramState) -> None:
    s += "a" + sg.gen("x")
    await asyncio.sleep(30)


@pytest.mark.parametrize("program", [endless, async_endless])
def test_cancelled_program_ends_at_once(program: sg.Program) -> None:
    with ScriptedBackend(latency_s=30) as slow:
        state = program.run(backend=slow, stream=True)
        while not any(call.name == "generate" for call in slow.calls):
            time.sleep(0.001)
        state.cancel()
        raised(AbortedError, lambda: state["x"])
        raised(AbortedError, state.text)
        assert isinstance(state.error(), AbortedError)
        assert_all_closed(slow)


def test_cancel_before_the_body_starts() -> None:
    with ScriptedBackend(latency_s=30) as slow:
        state = endless.run(backend=slow, stream=True)
        state.cancel()
        raised(AbortedError, state.text)
        assert_all_closed(slow)


def test_cancelled_fork_leaves_its_source(faulty: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> str:
        s += "a"
        forks = s.fork(2)
        inner = forks[0].fork(1)
        inner += sg.gen("x")
        forks[0].cancel()
        with pytest.raises(ClosedStateError):
            forks[0] += "b"
        with pytest.raises(AbortedError):
            inner[0]["x"]
        forks[1] += sg.gen("x")
        s += sg.gen("y")
        return forks[1]["x"] + s["y"]

    assert program.run(backend=faulty).ret_value == " ok ok"


def test_generations_after_run_can_be_cancelled() -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen("x")

    with ScriptedBackend(latency_s=30) as slow:
        state = program.run(backend=slow)
        state.cancel()
        raised(AbortedError, lambda: state["x"])


def test_cancelled_task_aborts_its_sequences() -> None:
    async def main(backend: ScriptedBackend, program: sg.Program) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(program.arun(backend=backend), 0.05)

    for program in (endless, async_endless):
        with ScriptedBackend(latency_s=30) as slow:
            asyncio.run(main(slow, program))
            assert_all_closed(slow)
            assert any(call.name == "abort" for call in slow.calls)


def test_cancelled_batch_task_aborts_every_item() -> None:
    async def main(backend: ScriptedBackend) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(endless.arun_batch([{}] * 5, backend=backend), 0.05)

    with ScriptedBackend(latency_s=30) as slow:
        asyncio.run(main(slow))
        assert_all_closed(slow)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Whoever starts a process in the background may have it ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("how", ["run", "batch", "threads", "async"])
def test_interrupt_aborts_what_runs(how: str) -> None:

    with ScriptedBackend(latency_s=30) as slow:

        def act() -> None:
            if how == "run":
                endless.run(backend=slow)
            elif how == "async":
                async_endless.run(backend=slow)
            else:
                endless.run_batch([{}] * 3, backend=slow, num_threads=2 if how == "threads" else "auto")

        main = threading.main_thread().ident
        timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        raised(KeyboardInterrupt, act)
        timer.join()
        assert_all_closed(slow)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupting_body_of_a_batch_does_not_end_the_others(
    faulty: ScriptedBackend, error: type[BaseException]
) -> None:
    @sg.function
    def program(s: sg.ProgramState, text: str) -> str:
        s += text + sg.gen("x")
        if text == "stop":
            raise error
        return s["x"]

    states = program.run_batch([("a",), ("stop",), ("b",)], backend=faulty)
    assert [states[0].ret_value, states[2].ret_value] == [" ok", " ok"]
    assert isinstance(raised(AbortedError, states[1].text).__cause__, error)


def test_cancelled_parent_cancels_the_programs_it_started() -> None:
    children: list[sg.ProgramState] = []

    @sg.function
    def parent(s: sg.ProgramState) -> None:
        children.append(endless.run())
        children[0]["x"]

    with ScriptedBackend(latency_s=30) as slow:
        state = parent.run(backend=slow, stream=True)
        while not any(call.name == "generate" for call in slow.calls):
            time.sleep(0.001)
        state.cancel()
        raised(AbortedError, state.text)
        raised(AbortedError, children[0].text)
        assert_all_closed(slow)


def test_engine_that_shuts_down_fails_what_runs() -> None:
    slow = ScriptedBackend(latency_s=30)
    state = endless.run(backend=slow, stream=True)
    while not any(call.name == "generate" for call in slow.calls):
        time.sleep(0.001)
    slow.shutdown()
    raised(EngineClosedError, state.text)
    raised(EngineClosedError, lambda: endless.run(backend=slow))


def test_sync_read_in_an_async_body_says_what_to_do(faulty: ScriptedBackend) -> None:
    @sg.function
    async def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen("x")
        s["x"]  # fault

    error = raised(ProgramError, lambda: program.run(backend=faulty))
    assert "await s.aget(name)" in str(error)
    assert_line(error, program, "fault")
