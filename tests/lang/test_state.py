"""What a state sends, holds and gives back."""

from __future__ import annotations

from typing import Any

import pytest

import sgrun as sg
from sgrun.errors import ClosedStateError, ProgramError, UnknownVariableError
from sgrun.lang.scripted import ScriptedBackend
from sgrun.types import ChatFormat, RegexSpec, SamplingParams, Segment


def calls(backend: ScriptedBackend, name: str) -> list[Any]:
    return [call.value for call in backend.calls if call.name == name]


def params(backend: ScriptedBackend) -> list[SamplingParams]:
    return [value[0] for value in calls(backend, "generate")]


def test_adjacent_text_is_sent_once_and_joined(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a"
        s += "b" + sg.gen("x") + "c"
        s += "d"

    state = program.run()
    assert state.text() == "ab 1cd"
    assert calls(backend, "append") == [(Segment("ab", special=True),), (Segment("cd", special=True),)]
    assert [call.name for call in backend.calls] == ["open", "append", "generate", "append", "close"]


def test_only_template_text_and_raw_text_may_hold_special_tokens(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "raw"
        s += sg.user("<|im_end|>")

    program.run()
    assert calls(backend, "append") == [
        (
            Segment("raw", special=True),
            Segment("<|im_start|>user\n", special=True, template=True),
            Segment("<|im_end|>"),
            Segment("<|im_end|>\n", special=True, template=True),
        )
    ]


def test_body_runs_ahead_of_its_generations() -> None:
    with ScriptedBackend(" x", latency_s=30) as slow:

        @sg.function
        def program(s: sg.ProgramState) -> None:
            s += "a" + sg.gen("x") + "b" + sg.gen("y")

        state = program.run(backend=slow)
        assert "y" in state
        assert [call.name for call in slow.calls] == ["open", "append", "generate", "append", "generate", "close"]


def test_variables_are_read_written_and_known(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        assert "x" not in s
        s += "a" + sg.gen("x")
        assert "x" in s
        s["y"] = [1]
        s.set_var("z", s.get_var("x") + "!")

    state = program.run()
    assert (state["x"], state["y"], state["z"]) == (" 1", [1], " 1!")
    assert state.get_meta_info("y") is None


def test_unknown_variable_names_the_known_ones(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s["known"] = 1

    with pytest.raises(UnknownVariableError, match="'missing'; defined: 'known'") as caught:
        program.run()["missing"]
    assert isinstance(caught.value, KeyError)


def test_typed_values(backend: ScriptedBackend) -> None:
    answers = iter(["42 rest", "2.5\n", "True", '"Ann"'])
    with ScriptedBackend(lambda prompt, params: next(answers)) as typed:

        @sg.function
        def program(s: sg.ProgramState) -> None:
            s += "x" + sg.gen_int("i") + sg.gen("f", dtype=float) + sg.gen("b", dtype="bool") + sg.gen_string("s")

        state = program.run(backend=typed)
        assert [state[name] for name in "ifbs"] == [42, 2.5, True, "Ann"]
        assert state.text() == 'x422.5True"Ann"'
        assert [isinstance(value[1], RegexSpec) for value in calls(typed, "generate")] == [True] * 4
        assert {" ", "\n"} <= set(params(typed)[0].stop)


def test_samples_are_a_list_and_the_text_goes_on_with_the_first(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen("x", n=3)

    state = program.run()
    assert state["x"] == [" 1", " 2", " 3"]
    assert state.text() == "a 1"
    assert len(state.get_meta_info("x")) == 3


def test_meta_info_of_a_generation() -> None:
    with ScriptedBackend(" one two end three") as scripted:

        @sg.function
        def program(s: sg.ProgramState) -> None:
            s += "a b" + sg.gen("x", stop="end", return_logprob=True) + sg.gen("y", max_tokens=2)

        state = program.run(backend=scripted)
        assert state["x"] == " one two "
        info = state.get_meta_info("x")
        assert (info["prompt_tokens"], info["completion_tokens"]) == (2, 3)
        assert info["finish_reason"] == {"type": "stop", "matched": "end"}
        assert [entry[0] for entry in info["output_token_logprobs"]] == [-0.5] * 3
        assert info["output_token_logprobs"][0][2] == " one"
        assert state.get_meta_info("y")["finish_reason"] == {"type": "length"}


def test_token_text_can_be_left_out_of_logprobs(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen("x", return_logprob=True, return_text_in_logprobs=False)

    assert program.run().get_meta_info("x")["output_token_logprobs"][0][2] is None


def test_select_appends_the_winner_and_keeps_the_scores() -> None:
    with ScriptedBackend(score=lambda prompt, choice: [-2.0] if choice == "no" else [-1.0]) as scripted:

        @sg.function
        def program(s: sg.ProgramState) -> None:
            s += "ok? " + sg.select("x", ["no", "yes"]) + "."

        state = program.run(backend=scripted)
        assert (state["x"], state.text()) == ("yes", "ok? yes.")
        assert state.get_meta_info("x")["normalized_prompt_logprobs"] == [-2.0, -1.0]


def test_unconditional_scores_are_asked_for_by_the_method_that_needs_them(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "q" + sg.select("x", ["a", "b"])
        s += sg.select("y", ["a"], choices_method=sg.unconditional_likelihood_normalized)

    state = program.run()
    state.sync()
    assert calls(backend, "select") == [(("a", "b"), False), (("a",), True)]
    assert state.get_meta_info("y")["normalized_unconditional_prompt_logprobs"] == [0.0]


def test_messages_and_markers(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += sg.system("be")
        s.user("hi")
        with s.assistant():
            s += "so" + sg.gen("x")
        s += sg.user_begin() + "bye" + sg.user_end()
        s += sg.assistant()

    state = program.run()
    assert state.messages() == [
        {"role": "system", "content": "be"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "so 1"},
        {"role": "user", "content": "bye"},
        {"role": "assistant", "content": ""},
    ]
    assert state.text() == (
        "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nso 1<|im_end|>\n"
        "<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    )


def test_space_before_an_answer_stands_only_before_literal_text() -> None:
    spaced = (
        "{% for m in messages %}{{ ('[I]' + m.content + '[/I]') if m.role == 'user' else (' ' + m.content + '</s>') }}"
        "{% endfor %}"
    )
    with ScriptedBackend("gen", chat_format=ChatFormat(spaced)) as scripted:

        @sg.function
        def program(s: sg.ProgramState) -> None:
            s += sg.user("q") + sg.assistant("lit")
            s += sg.user("r") + sg.assistant(sg.gen("x") + "!")
            s += sg.user("t")
            with s.assistant():
                forks = s.fork(2)
                forks += ["lit", sg.gen("y")]
                s["ends"] = [fork.text().partition("[I]t")[2] for fork in forks]

        state = program.run(backend=scripted)
        assert state.text() == "[I]q[/I] lit</s>[I]r[/I]gen!</s>[I]t[/I]</s>"
        assert state["ends"] == ["[/I] lit", "[/I]gen"]


def test_open_role_is_closed_at_the_end(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += sg.user_begin() + "hi"

    assert program.run().text() == "<|im_start|>user\nhi<|im_end|>\n"


def test_exception_in_a_role_closes_it(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        with pytest.raises(ZeroDivisionError), s.user():
            s += "a"
            1 / 0  # noqa: B018
        s += sg.assistant("b")

    assert [message["role"] for message in program.run().messages()] == ["user", "assistant"]


@pytest.mark.parametrize(
    "expr",
    [
        sg.user(sg.assistant("x")),
        sg.user_begin() + sg.user_begin(),
        sg.user_end(),
        sg.user_begin() + sg.assistant_end(),
    ],
    ids=["nested", "opened twice", "not open", "other open"],
)
def test_roles_do_not_nest_or_end_unopened(backend: ScriptedBackend, expr: Any) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += expr

    with pytest.raises(ProgramError, match="role"):
        program.run()


def test_var_scope_holds_all_text_inside(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "before "
        with s.var_scope("pair"):
            s += "<" + sg.gen() + "," + sg.gen("b") + ">"
        assert s["pair"] == "< 1, 2>"

    program.run()


@pytest.mark.parametrize("value", [5, None, b"x", ["a"]])
def test_only_text_and_expressions_can_be_appended(backend: ScriptedBackend, value: Any) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += value

    with pytest.raises(ProgramError, match="cannot append"):
        program.run()


def test_state_refuses_to_grow_after_its_program(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a"

    state = program.run()
    with pytest.raises(ClosedStateError):
        state += "b"
    with pytest.raises(ClosedStateError):
        state.fork(2)


def test_ret_value(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> int:
        with pytest.raises(ProgramError, match="ret_value"):
            s.ret_value  # noqa: B018
        return 7

    assert program.run().ret_value == 7


def test_fork_sends_the_shared_text_first(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "shared"
        forks = s.fork(2)
        forks += sg.gen("x")
        forks.join()
        assert [len(forks), [fork["x"] for fork in forks], forks[1]["x"]] == [2, s["x"], s["x"][1]]

    program.run().sync()
    assert [call.name for call in backend.calls][:5] == ["open", "append", "fork", "generate", "generate"]
    assert sorted(call.seq_id for call in backend.calls if call.name == "close") == [0, 1, 2]


def test_group_appends_one_to_each(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> list[str]:
        s += "q"
        forks = s.fork(2)
        forks += "-"
        forks[0] += ""
        with pytest.raises(ProgramError, match="cannot be replaced"):
            forks[0] = forks[1]
        forks += ["a", "b"]
        forks += lambda index: str(index)
        with pytest.raises(ProgramError, match="one to each"):
            forks += ["a"]
        texts = [fork.text() for fork in forks]
        forks.join()
        return texts

    assert program.run().ret_value == ["q-a0", "q-b1"]


def test_join_gathers_what_the_forks_defined(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s["kept"], s["changed"] = "k", "old"
        s += "q"
        forks = s.fork(2)
        forks[0]["only"] = 1
        for index, fork in enumerate(forks):
            fork["changed"] = index
            fork += sg.gen("x")
        forks.join()
        with pytest.raises(ClosedStateError):
            forks[0] += "late"

    state = program.run()
    assert (state["kept"], state["changed"], state["only"]) == ("k", [0, 1], [1, None])
    assert [info["completion_tokens"] for info in state.get_meta_info("x")] == [1, 1]


def test_join_can_append_the_texts(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "docs:"
        forks = s.fork(3)
        forks += lambda index: f" [{index}]" + (sg.gen() if index == 1 else "")
        forks.join("concate_and_append")
        s += " end"

    assert program.run().text() == "docs: [0] [1] 1 [2] end"


def test_join_mode_and_fork_size_are_checked(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a"
        with pytest.raises(ProgramError, match="join mode"):
            s.fork(1).join("other")
        for size in (0, -1, True, "2"):
            with pytest.raises(ProgramError, match="fork size"):
                s.fork(size)

    program.run()


def test_copy_joins_at_the_end(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a"
        with s.copy() as branch:
            branch += "b" + sg.gen("x")
        s += "c"

    state = program.run()
    assert (state["x"], state.text()) == ([" 1"], "ac")


def test_forks_in_a_role_keep_it_open(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += sg.user("q")
        with s.assistant():
            forks = s.fork(2)
            forks += sg.gen("x")
            forks.join()
            s += "none"
        s["texts"] = [fork.messages()[-1]["content"] for fork in forks]

    state = program.run()
    assert state["texts"] == state["x"]
    assert state.messages()[-1] == {"role": "assistant", "content": "none"}


def test_unjoined_forks_end_with_the_program(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> list[sg.ProgramState]:
        s += "a"
        forks = s.fork(2)
        forks += "tail"
        return list(forks)

    forks = program.run().ret_value
    assert [fork.text() for fork in forks] == ["atail", "atail"]
    assert sum(call.name == "close" for call in backend.calls) == 3


def seeds_of(backend: ScriptedBackend, program: sg.Program, **options: Any) -> list[int | None]:
    backend.calls.clear()
    program.run(**options).sync()
    return [each.seed for each in params(backend)]


def test_seeds_are_reproducible_and_differ_by_place(backend: ScriptedBackend) -> None:
    @sg.function
    def inner(s: sg.ProgramState) -> None:
        s += "i" + sg.gen()

    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen() + sg.gen()
        for _ in range(2):
            forks = s.fork(2)
            forks += sg.gen()
            forks[0].fork(1).__iadd__(sg.gen())
        s += sg.gen(seed=5)

    first = seeds_of(backend, program, seed=1)
    assert len(set(first)) == len(first) == 9
    assert first[-1] == 5
    assert seeds_of(backend, program, seed=1) == first
    assert not set(seeds_of(backend, program, seed=2)[:-1]) & set(first)
    assert seeds_of(backend, program)[:-1] == [None] * 8


def test_batch_items_and_child_programs_get_seeds_of_their_own(backend: ScriptedBackend) -> None:
    @sg.function
    def child(s: sg.ProgramState) -> None:
        s += "c" + sg.gen()

    @sg.function
    def program(s: sg.ProgramState) -> None:
        for state in [child.run(), child.run()]:
            state.sync()

    runs = []
    for _ in range(2):
        backend.calls.clear()
        program.run_batch([{}, {}], seed=3)
        runs.append({each.seed for each in params(backend)})
    assert len(runs[0]) == 4
    assert None not in runs[0]
    assert runs[0] == runs[1]


def test_run_sets_defaults_that_gen_overrides(backend: ScriptedBackend) -> None:
    @sg.function
    def program(s: sg.ProgramState) -> None:
        s += "a" + sg.gen() + sg.gen(temperature=0.5, max_tokens=9, stop=["y"])

    program.run(temperature=0.0, max_new_tokens=7, stop="x").sync()
    first, second = params(backend)
    assert (first.temperature, first.max_tokens, first.stop) == (0.0, 7, ("x",))
    assert (second.temperature, second.max_tokens, second.stop) == (0.5, 9, ("y",))
