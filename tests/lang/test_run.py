"""Ways to run a program: arguments, batches, children, async, and threads."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

import sgrun as sg
from sgrun.errors import InvalidParameterError, ProgramError
from sgrun.lang.scripted import ScriptedBackend
from sgrun.lang.waiting import wait


@sg.function
def ask(s: sg.ProgramState, question: str, tone: str = "calm") -> str:
    """Asks."""
    s += f"{question} ({tone})" + sg.gen("answer")
    return s["answer"]


@sg.function
async def ask_async(s: sg.ProgramState, question: str) -> str:
    s += question + sg.gen("answer")
    return await s.aget("answer")


def test_program_keeps_what_the_function_says_of_itself() -> None:
    assert (ask.__name__, ask.__doc__) == ("ask", "Asks.")
    assert list(inspect.signature(ask.__wrapped__).parameters) == ["s", "question", "tone"]
    assert ask.__annotations__["question"] == "str"
    assert repr(ask) == "<program ask>"


def test_call_and_decorator_with_parentheses(backend: ScriptedBackend) -> None:
    @sg.function()
    def program(any_name: sg.ProgramState) -> None:
        any_name += "x"

    assert program().text() == "x"


@pytest.mark.parametrize("func", [lambda: None, print, lambda *, s: None, lambda **kwargs: None])
def test_program_needs_the_state_first(func: Any) -> None:
    with pytest.raises(InvalidParameterError):
        sg.function(func)


def test_generator_function_is_refused() -> None:
    def program(s: sg.ProgramState) -> Any:
        yield s

    with pytest.raises(InvalidParameterError, match="yield"):
        sg.function(program)


def test_body_runs_in_the_callers_thread(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> int:
        return threading.get_ident()

    assert program.run().ret_value == threading.get_ident()


def test_no_backend_is_an_error_with_advice() -> None:
    with pytest.raises(ProgramError, match="set_default_backend"):
        ask.run("?")


def test_backend_argument_overrides_the_default(backend: ScriptedBackend) -> None:
    with ScriptedBackend(" other") as other:
        assert ask.run("?", backend=other).ret_value == " other"
    assert ask.run("?").ret_value == " 1"


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'question'"),
        (("a", "b", "c"), {}, "too many positional"),
        (("a",), {"question": "b"}, "multiple values"),
        (("a",), {"temprature": 0}, "did you mean 'temperature'"),
        (("a",), {"max_tokens": 5}, "did you mean"),
        (("a",), {"temperature": -1}, "temperature"),
        (("a",), {"min_tokens": 20, "max_new_tokens": 10}, "min_tokens"),
    ],
)
def test_wrong_arguments_are_refused(
    backend: ScriptedBackend, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        ask.run(*args, **kwargs)
    assert backend.calls == []


def test_parameter_of_the_program_wins_over_the_run_argument(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState, n: int) -> None:
        s += "x" * n + sg.gen("x")

    state = program.with_options(n=2).run(n=3)
    assert state.text() == "xxx 1"
    assert state["x"] == [" 1", " 2"]


def test_any_keyword_reaches_a_program_that_takes_them(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    assert program.run(a=1, temperature=0.5).ret_value == {"a": 1}


def test_bind_gives_arguments_that_a_call_may_override(backend: ScriptedBackend) -> None:
    bound = ask.bind(tone="angry")
    assert bound.run("Q").text() == "Q (angry) 1"
    assert bound.run("Q", tone="sad").text() == "Q (sad) 2"
    assert bound.run("Q", "glad").text() == "Q (glad) 3"
    items = [{"question": "R"}]
    assert [state.text() for state in bound.run_batch(items)] == ["R (angry) 4"]
    assert items == [{"question": "R"}]
    assert ask.run("Q").text() == "Q (calm) 5"
    with pytest.raises(InvalidParameterError, match="did you mean 'tone'"):
        ask.bind(tune="x")


def test_method_is_a_program(backend: ScriptedBackend) -> None:
    class Agent:
        def __init__(self, name: str) -> None:
            self.name = name

        @sg.function
        def greet(self, s: sg.ProgramState, whom: str) -> None:
            s += f"{self.name} to {whom}:" + sg.gen("x")

    assert Agent("Ann").greet.run("Bob").text() == "Ann to Bob: 1"
    assert [s.text() for s in Agent("Ann").greet.run_batch([("B",), {"whom": "C"}])] == ["Ann to B: 2", "Ann to C: 3"]
    assert isinstance(Agent.greet, sg.Program)


def test_salt_and_priority_reach_the_backend(backend: ScriptedBackend) -> None:
    ask.run("?", cache_salt="tenant", priority=3)
    assert backend.calls[0].value == ("tenant", 3)


# Batches


def test_batch_keeps_the_order_and_takes_dicts_and_tuples(backend: ScriptedBackend) -> None:
    states = ask.run_batch([{"question": "a"}, ("b", "loud"), ["c"]], temperature=0.0)
    assert [state.text().split(")")[0] for state in states] == ["a (calm", "b (loud", "c (calm"]
    assert ask.run_batch([]) == []


def test_batch_returns_when_operations_are_done_too() -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen("x")

    with ScriptedBackend(latency_s=0.1) as slow:
        for options in ({}, {"num_threads": 1}):
            (state,) = program.run_batch([{}], backend=slow, **options)
            assert state.trace().children[1].num_tokens == 1


def test_wrong_batch_item_is_named_before_anything_runs(backend: ScriptedBackend) -> None:
    for batch, message in (([("a",), ()], "item 1"), (["text"], "item 0"), ([{"x": 1}], "item 0")):
        with pytest.raises(InvalidParameterError, match=message):
            ask.run_batch(batch)
    assert backend.calls == []


@pytest.mark.parametrize("options", [{"num_threads": 0}, {"num_threads": "many"}, {"on_error": "ignore"}, {"tem": 1}])
def test_wrong_batch_options_are_refused(backend: ScriptedBackend, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError):
        ask.run_batch([("a",)], **options)


def test_generator_style_yields_in_order_as_soon_as_ready() -> None:
    with ScriptedBackend(latency_s=0.05) as slow:

        @sg.function
        def program(s: sg.ProgramState, number: int) -> int:
            for _ in range(1 if number < 2 else 200):
                s += "x" + sg.gen("x")
                s["x"]
            return number

        states = program.run_batch([(0,), (1,), (2,)], backend=slow, generator_style=True)
        assert [next(states).ret_value, next(states).ret_value] == [0, 1]
        states.close()  # leaving early cancels the rest
        deadline = time.monotonic() + 1
        while slow.num_open and time.monotonic() < deadline:
            time.sleep(0.001)
        assert slow.num_open == 0


def test_progress_bar_counts_items(backend: ScriptedBackend, capfd: pytest.CaptureFixture[str]) -> None:
    ask.run_batch([("a",)] * 3, progress_bar=True)
    assert "3/3" in capfd.readouterr().err


@pytest.mark.parametrize("program", [ask, ask_async])
def test_many_programs_need_no_threads(program: sg.Program) -> None:
    with ScriptedBackend(latency_s=0.05) as scripted:
        ask.run_batch([("warm",)], backend=scripted)
        before = threading.active_count()
        states = program.run_batch([{"question": str(number)} for number in range(512)], backend=scripted)
        assert threading.active_count() <= before
        assert [state.ret_value for state in states] == [" ok"] * 512


def test_ten_thousand_programs_at_once_finish() -> None:
    num_programs, num_waiting = 10_000, 0
    all_wait: Future[None] = Future()

    @sg.function
    def program(s: sg.ProgramState) -> None:
        nonlocal num_waiting
        s += "a" + sg.gen("x")
        num_waiting += 1
        if num_waiting == num_programs:
            all_wait.set_result(None)
        wait(all_wait)
        s["x"]

    with ScriptedBackend() as scripted:
        before = threading.active_count()
        states = program.run_batch([{}] * num_programs, backend=scripted)
        assert threading.active_count() <= before + 1
        assert all(state["x"] == " ok" for state in states)


def test_threads_for_bodies_that_block(backend: ScriptedBackend) -> None:
    barrier = threading.Barrier(4, timeout=5)

    @sg.function
    def program(s: sg.ProgramState, name: str) -> str:
        barrier.wait()
        s += name + sg.gen("x")
        return threading.current_thread().name

    states = program.run_batch([("a",), ("b",), ("c",), ("d",)], num_threads=4)
    assert all(state.ret_value.startswith("sgrun-body") for state in states)
    with pytest.raises(InvalidParameterError, match="async def"):
        ask_async.run_batch([("a",)], num_threads=2)


tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")


@pytest.mark.parametrize("num_threads", ["auto", 2])
def test_bodies_see_the_context_variables_of_their_caller(backend: ScriptedBackend, num_threads: Any) -> None:
    @sg.function
    def program(s: sg.ProgramState, name: str) -> str:
        seen = tenant.get()
        tenant.set(name)
        s += name + sg.gen("x")
        s["x"]
        assert tenant.get() == name
        return seen

    tenant.set("mine")
    states = program.run_batch([("a",), ("b",)], num_threads=num_threads)
    assert [state.ret_value for state in states] == ["mine", "mine"]
    assert tenant.get() == "mine"


# Programs in programs


def test_children_run_side_by_side() -> None:
    with ScriptedBackend(latency_s=0.1) as scripted:

        @sg.function
        def parent(s: sg.ProgramState) -> list[str]:
            children = [ask.run(str(number)) for number in range(8)]
            return [child.ret_value for child in children]

        for options in ({}, {"stream": True}):
            start = time.monotonic()
            assert parent.run(backend=scripted, **options).ret_value == [" ok"] * 8
            assert time.monotonic() - start < 0.6


def test_batch_inside_a_body(backend: ScriptedBackend) -> None:
    @sg.function
    def parent(s: sg.ProgramState, number: int) -> int:
        return len(ask.run_batch([("a",)] * number))

    assert parent.run(2).ret_value == 2
    assert [state.ret_value for state in parent.run_batch([(1,), (2,)])] == [1, 2]
    assert [state.ret_value for state in parent.run_batch([(1,), (2,)], num_threads=2)] == [1, 2]


def test_child_error_is_raised_where_the_parent_reads(backend: ScriptedBackend) -> None:
    @sg.function
    def child(s: sg.ProgramState) -> None:
        raise ZeroDivisionError

    @sg.function
    def parent(s: sg.ProgramState) -> str:
        state = child.run()
        with pytest.raises(ZeroDivisionError):
            state.text()
        return "survived"

    assert parent.run().ret_value == "survived"


def test_code_left_over_from_a_body_is_not_inside_it(backend: ScriptedBackend) -> None:
    @sg.function
    def parent(s: sg.ProgramState) -> contextvars.Context:
        return contextvars.copy_context()

    @sg.function
    def other(s: sg.ProgramState) -> int:
        return threading.get_ident()

    context = parent.run().ret_value
    assert context.run(other.run).ret_value == threading.get_ident()


def test_child_of_a_body_on_a_thread_runs_in_it(backend: ScriptedBackend) -> None:
    @sg.function
    def child(s: sg.ProgramState) -> int:
        return threading.get_ident()

    @sg.function
    def parent(s: sg.ProgramState) -> bool:
        return child.run().ret_value == threading.get_ident()

    assert parent.run_batch([{}], num_threads=1)[0].ret_value


# Async


def test_async_program_from_sync_code(backend: ScriptedBackend) -> None:
    assert ask_async.run("Q").ret_value == " 1"
    assert [state.ret_value for state in ask_async.run_batch([("a",), ("b",)])] == [" 2", " 3"]
    assert ask_async.run("Q", stream=True).ret_value == " 4"


@pytest.mark.parametrize("program", [ask, ask_async])
def test_both_kinds_on_the_users_loop(program: sg.Program) -> None:
    async def main(backend: ScriptedBackend) -> None:
        start = time.monotonic()
        states = await asyncio.gather(*(program.arun(str(number), backend=backend) for number in range(20)))
        states += await program.arun_batch([("a",)] * 20, backend=backend)
        assert [state.ret_value for state in states] == [" ok"] * 40
        assert time.monotonic() - start < 1.0
        assert await states[0].atext() == states[0].text()

    with ScriptedBackend(latency_s=0.1) as scripted:
        asyncio.run(main(scripted))


def test_awaited_readers(backend: ScriptedBackend) -> None:
    @sg.function
    async def program(s: sg.ProgramState) -> Any:
        s += sg.user("q" + sg.gen("x"))
        forks = s.fork(2)
        forks += "f"
        await forks.ajoin("concate_and_append")
        await s.async_sync()
        child = ask.run("inner")
        return [
            await s.aget("x"),
            (await s.aget_meta_info("x"))["completion_tokens"],
            (await s.amessages())[0]["role"],
            (await s.atext())[-2:],
            await child.aget("answer"),
            (await ask_async.arun("nested")).ret_value,
            len(await ask.arun_batch([("b",)])),
        ]

    assert program.run().ret_value == [" 1", 1, "user", "ff", " 2", " 3", 1]


def test_batch_that_would_block_an_async_body_is_refused(backend: ScriptedBackend) -> None:
    @sg.function
    async def program(s: sg.ProgramState) -> None:
        ask.run_batch([("a",)])

    with pytest.raises(ProgramError, match="await"):
        program.run()


def test_arun_raises_what_the_body_raises(backend: ScriptedBackend) -> None:
    @sg.function
    async def program(s: sg.ProgramState) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(program.arun())
    with pytest.raises(ZeroDivisionError):
        program.run()


def test_plain_program_under_a_running_loop_blocks_but_works(backend: ScriptedBackend) -> None:
    async def cell() -> str:
        return ask.run("notebook").ret_value

    assert asyncio.run(cell()) == " 1"


def test_async_body_waits_for_other_things_too(backend: ScriptedBackend) -> None:
    @sg.function
    async def program(s: sg.ProgramState) -> list[str]:
        async def tool() -> str:
            await asyncio.sleep(0.01)
            return "tool"

        s += "a" + sg.gen("x")
        return list(await asyncio.gather(tool(), s.aget("x")))

    assert program.run().ret_value == ["tool", " 1"]
