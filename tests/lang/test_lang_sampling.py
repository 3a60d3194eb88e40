"""Which sampling arguments are in force, seeds, and typed values."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from sgrun.errors import InvalidParameterError, ProgramError
from sgrun.lang.sampling import SamplingArguments, derive_seed, sampling_params
from sgrun.lang.values import typed_value
from sgrun.types import RegexSpec, SamplingParams


def test_later_layers_win_and_none_inherits() -> None:
    params = sampling_params({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.0, "top_p": None})
    assert (params.temperature, params.top_p) == (0.0, 0.9)


def test_defaults_are_those_of_sampling_params() -> None:
    assert sampling_params() == SamplingParams()


def test_every_sampling_field_is_reachable() -> None:
    renamed = {"logprobs": "return_logprob", "top_logprobs": "top_logprobs_num"}
    reachable = SamplingArguments.__annotations__
    assert all(renamed.get(field.name, field.name) in reachable for field in fields(SamplingParams))


def test_stop_is_a_text_or_a_list_and_callers_keep_theirs() -> None:
    stops = ["a", "b"]
    assert sampling_params({"stop": stops}, extra_stop=("c",)).stop == ("a", "b", "c")
    assert sampling_params({"stop": "ab"}).stop == ("ab",)
    assert stops == ["a", "b"]


def test_top_logprobs_ask_for_logprobs() -> None:
    assert sampling_params({"top_logprobs_num": 2}).logprobs
    assert not sampling_params({}).logprobs


def test_explicit_seed_wins_over_the_derived() -> None:
    assert sampling_params({"seed": 3}, seed=9).seed == 3
    assert sampling_params({"seed": None}, seed=9).seed == 9


def test_limits_meet_across_layers() -> None:
    with pytest.raises(InvalidParameterError, match="min_tokens"):
        sampling_params({"max_tokens": 4}, {"min_tokens": 5})


def pattern(dtype: str) -> str:
    grammar = typed_value(dtype, strict=True).grammar
    assert isinstance(grammar, RegexSpec)
    return grammar.pattern


def test_derived_seeds_differ_by_path_and_fit() -> None:
    seeds = {derive_seed(seed, "gen", *path, number) for seed in range(3) for path in ((), (0, 1)) for number in (0, 1)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_derived_seed_is_the_same_in_another_process() -> None:
    code = "from sgrun.lang.sampling import derive_seed; print(derive_seed(7, 'gen', 0, 1, 2))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == derive_seed(7, "gen", 0, 1, 2)


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        ("int", "-42", -42),
        ("int", "0", 0),
        ("float", "3.25", 3.25),
        ("float", "-7", -7.0),
        ("bool", "True", True),
        ("bool", "False", False),
        ("str", '"a b"', "a b"),
    ],
)
def test_typed_texts_match_their_pattern_and_parse(dtype: str, text: str, value: Any) -> None:
    typed = typed_value(dtype, strict=True)
    assert re.fullmatch(pattern(dtype), text)
    assert typed.value(text) == value
    assert type(typed.value(text)) is type(value)


@pytest.mark.parametrize(("dtype", "text"), [("int", "12 eggs"), ("int", "7.\n"), ("float", "3.5, and")])
def test_numbers_may_be_followed_by_what_is_cut_off(dtype: str, text: str) -> None:
    typed = typed_value(dtype, strict=True)
    assert re.fullmatch(pattern(dtype), text)
    typed.value(text[: min(text.index(end) for end in typed.ends if end in text)])


@pytest.mark.parametrize(
    ("dtype", "text"), [("int", "007"), ("int", " 1"), ("float", "1."), ("bool", "true"), ("str", '"a"b"')]
)
def test_other_texts_do_not_match(dtype: str, text: str) -> None:
    assert not re.fullmatch(pattern(dtype), text)


@pytest.mark.parametrize(("dtype", "text"), [("int", "-"), ("float", ""), ("bool", "Tr")])
def test_text_cut_short_is_an_error(dtype: str, text: str) -> None:
    with pytest.raises(ProgramError, match="not a complete"):
        typed_value(dtype, strict=True).value(text)
