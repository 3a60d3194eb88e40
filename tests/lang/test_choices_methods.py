"""The methods of select on hand-made log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from sgrun.errors import ProgramError
from sgrun.lang.choices import (
    ChoicesDecision,
    ChoicesSamplingMethod,
    Decider,
    greedy_token_selection,
    joint_likelihood,
    token_length_normalized,
    unconditional_likelihood_normalized,
)
from sgrun.types import ChoiceScore, OpStats, ScoreResult

CHOICES = ["cat", "caterpillar", "dog"]
CONDITIONAL = {"cat": [-1.0], "caterpillar": [-1.2, -0.1, -0.1], "dog": [-0.9, -4.0]}
ALONE = {"cat": [0.0], "caterpillar": [0.0, -0.2, -0.3], "dog": [0.0, -9.0]}


def scores(conditional: dict[str, list[float]], alone: dict[str, list[float]] | None = None) -> ScoreResult:
    choices = tuple(
        ChoiceScore(text, tuple(range(len(row))), tuple(row), tuple(alone[text]) if alone else ())
        for text, row in conditional.items()
    )
    return ScoreResult(choices, OpStats())


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (token_length_normalized, "caterpillar"),
        (joint_likelihood, "cat"),
        (greedy_token_selection, "dog"),
        (unconditional_likelihood_normalized, "dog"),
    ],
)
def test_method_decides(method: ChoicesSamplingMethod, expected: str) -> None:
    assert CHOICES[Decider(method)(scores(CONDITIONAL, ALONE))] == expected


def test_ties_go_to_the_first() -> None:
    for method in (token_length_normalized, joint_likelihood, greedy_token_selection):
        assert Decider(method)(scores({"a": [-1.0], "b": [-1.0]})) == 0


def test_log_probability_of_zero_counts() -> None:
    assert Decider(token_length_normalized)(scores({"a": [-1.0], "b": [0.0, -1.5]})) == 1


def test_greedy_continues_a_short_choice_with_its_mean() -> None:
    decider = Decider(greedy_token_selection)
    assert decider(scores({"a": [-1.0], "b": [-1.0, -0.5]})) == 1
    assert decider.meta_info["greedy_logprob_matrix"] == [[-1.0, -1.0], [-1.0, -0.5]]


def test_greedy_follows_the_leader_of_each_token() -> None:
    assert Decider(greedy_token_selection)(scores({"a": [-0.1, -9.0], "b": [-0.1, -0.2], "c": [-0.2, 0.0]})) == 1


def test_impossible_tokens_leave_no_nan() -> None:
    rows = {"a": [-math.inf, -1.0], "b": [-2.0, -2.0]}
    alone = {"a": [-math.inf, -1.0], "b": [0.0, -math.inf]}
    for method in (token_length_normalized, joint_likelihood, greedy_token_selection):
        assert Decider(method)(scores(rows)) == 1
    assert Decider(unconditional_likelihood_normalized)(scores(rows, alone)) == 1


def test_missing_first_log_probability_counts_as_zero() -> None:
    decision = unconditional_likelihood_normalized(
        choices=["a", "b"],
        normalized_prompt_logprobs=[-1.0, -1.0],
        input_token_logprobs=[[[-1.0, 5, "a"]], [[-1.0, 6, "b"], [-1.0, 7, "c"]]],
        output_token_logprobs=[[], []],
        unconditional_token_logprobs=[[[None, 5, "a"]], [[None, 6, "b"], [-3.0, 7, "c"]]],
    )
    assert decision.decision == "b"
    assert decision.meta_info["normalized_unconditional_prompt_logprobs"] == [-1.0, 0.5]


def test_meta_info_holds_scores_in_lists() -> None:
    decider = Decider(token_length_normalized)
    decider(scores({"a": [-1.0, -3.0]}))
    assert decider.meta_info["normalized_prompt_logprobs"] == [-2.0]
    assert decider.meta_info["input_token_logprobs"] == [[[-1.0, 0, None], [-3.0, 1, None]]]


class Last:
    requires_unconditional_logprobs = False

    def __init__(self, decision: str | None = None) -> None:
        self.decision = decision

    def __call__(self, *, choices: Sequence[str], **scores: Any) -> ChoicesDecision:
        return ChoicesDecision(self.decision or choices[-1], {"mine": 1})


def test_method_of_the_user_decides() -> None:
    decider = Decider(Last())
    assert decider(scores(CONDITIONAL)) == 2
    assert decider.meta_info["mine"] == 1


def test_method_that_decides_for_no_choice_is_an_error() -> None:
    with pytest.raises(ProgramError, match="decided 'bird'"):
        Decider(Last("bird"))(scores(CONDITIONAL))


def test_unconditional_method_without_its_scores_is_an_error() -> None:
    with pytest.raises(ProgramError, match="unconditional_token_logprobs"):
        unconditional_likelihood_normalized(
            choices=["a"],
            normalized_prompt_logprobs=[0.0],
            input_token_logprobs=[[]],
            output_token_logprobs=[[]],
        )
