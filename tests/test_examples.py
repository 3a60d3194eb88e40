"""Every example runs on the default model; what it prints is looked at as far as any model would give it."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from sgrun import Engine, ProgramState

EXAMPLES = Path(__file__).parent.parent / "examples"
NUMBERED = sorted(EXAMPLES.glob("[0-9]*.py"))


def load(name: str) -> Callable[[Engine], list[ProgramState]]:
    main: Callable[[Engine], list[ProgramState]] = runpy.run_path(str(EXAMPLES / name))["main"]
    return main


def test_examples_are_numbered_without_gaps() -> None:
    assert [path.stem.split("_")[0] for path in NUMBERED] == [f"{number:02}" for number in range(1, 12)]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 60
    assert text.startswith('"""')
    assert 'if __name__ == "__main__":' in text


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_an_example_runs_and_the_demo_shows_its_trace(
    path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    before = engine.stats
    runpy.run_path(str(EXAMPLES / "demo.py"))["show"](path, engine)
    assert engine.stats.extend_tokens > before.extend_tokens
    results, header, tree = capsys.readouterr().out.partition("\nop ")
    assert results.startswith(f"\n=== {path.stem}: ")
    assert len(results.strip().splitlines()) > 2  # the title and what the program found
    assert header
    assert tree.splitlines()[0].split() == ["tokens", "cached", "computed", "ms"]
    assert "generate" in tree


def test_the_second_turn_of_the_chat_computes_only_its_new_tokens(engine: Engine) -> None:
    engine.flush_cache()
    (state,) = load("02_chat.py")(engine)
    opened, first, added, second = state.trace().children[:4]
    assert (first.num_cached, first.num_computed) == (0, opened.num_tokens)
    # The end token of the answer leaves the sequence; what stays of the answer has been computed while it was sampled.
    assert (second.num_cached, second.num_computed) == (opened.num_tokens + first.num_tokens - 1, added.num_tokens)


def test_the_fork_example_gathers_one_value_for_each_fork(engine: Engine) -> None:
    (state,) = load("04_fork_join.py")(engine)
    assert len(state["value"]) == 3


def test_the_constraint_example_gives_what_was_asked_for(engine: Engine) -> None:
    pet, facts = load("05_constraints.py")(engine)
    assert pet["pet"].startswith('{"name":')
    assert facts["address"].count(".") == 3
    assert isinstance(facts["sum"], int)
    assert facts["trip"].city in ("Paris", "Rome", "Oslo") and isinstance(facts["trip"].nights, int)


def test_the_tool_call_example_calls_functions_with_what_their_signatures_allow(engine: Engine) -> None:
    states = load("11_tool_calls.py")(engine)
    calls = [call.value for state in states for call in state.captures("reply")]
    assert [set(call) for call in calls] == [{"name", "arguments"}] * len(calls)
    assert {call["name"] for call in calls} <= {"look_up", "order"}
    assert sum(len(state.ret_value) for state in states) == len(calls) > 0


def test_the_batch_example_loses_only_its_bad_item(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    load("06_batch.py")(engine)
    answers = capsys.readouterr().out.splitlines()
    assert len(answers) == 6
    assert answers[2] == "7: '7' is no word"


def test_a_sampled_example_repeats_itself(engine: Engine) -> None:
    (first,) = load("10_tree_of_thought.py")(engine)
    (second,) = load("10_tree_of_thought.py")(engine)
    assert {path for _, path in first.ret_value} == {path for _, path in second.ret_value}
