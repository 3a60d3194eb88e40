"""Owns the methods by which `select` picks one of its choices from their log-probabilities.

A method is any object with the call signature of `ChoicesSamplingMethod`. Token log-probabilities come as one list per
choice of `[logprob, token_id, text]`, `text` being None where the engine has none; a log-probability of 0 counts like
any other, one of None (nothing before the token) counts as 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sgrun.errors import ProgramError
from sgrun.types import ScoreResult

TokenLogprobs = Sequence[Sequence[Any]]  # [logprob, token_id, text] per token


@dataclass(frozen=True, slots=True)
class ChoicesDecision:
    """The winning choice, and what `get_meta_info` shows besides the scores."""

    decision: str
    meta_info: dict[str, Any] = field(default_factory=dict)


class ChoicesSamplingMethod(Protocol):
    @property
    def requires_unconditional_logprobs(self) -> bool:
        """Whether the choices must also be scored with nothing before them."""

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Sequence[TokenLogprobs],
        output_token_logprobs: Sequence[TokenLogprobs],
        unconditional_token_logprobs: Sequence[TokenLogprobs] | None = None,
    ) -> ChoicesDecision:
        """Picks one of `choices`. `normalized_prompt_logprobs`: the mean token log-probability of each choice."""


class TokenLengthNormalized:
    """The choice with the highest mean token log-probability."""

    requires_unconditional_logprobs = False

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Sequence[TokenLogprobs],
        output_token_logprobs: Sequence[TokenLogprobs],
        unconditional_token_logprobs: Sequence[TokenLogprobs] | None = None,
    ) -> ChoicesDecision:
        return ChoicesDecision(choices[_first_max(normalized_prompt_logprobs)])


class JointLikelihood:
    """The choice with the highest log-probability as a whole: the sum over its tokens."""

    requires_unconditional_logprobs = False

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Sequence[TokenLogprobs],
        output_token_logprobs: Sequence[TokenLogprobs],
        unconditional_token_logprobs: Sequence[TokenLogprobs] | None = None,
    ) -> ChoicesDecision:
        joint = [sum(_logprobs(tokens)) for tokens in input_token_logprobs]
        return ChoicesDecision(choices[_first_max(joint)], {"joint_logprobs": joint})


class GreedyTokenSelection:
    """The choice that greedy decoding would reach: token by token, only the likeliest stay.

    A choice shorter than the longest is continued with its own mean.
    """

    requires_unconditional_logprobs = False

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Sequence[TokenLogprobs],
        output_token_logprobs: Sequence[TokenLogprobs],
        unconditional_token_logprobs: Sequence[TokenLogprobs] | None = None,
    ) -> ChoicesDecision:
        rows = [_logprobs(tokens) for tokens in input_token_logprobs]
        width = max(len(row) for row in rows)
        matrix = [row + [_mean(row)] * (width - len(row)) for row in rows]
        remaining = list(range(len(choices)))
        for column in range(width):
            best = max(matrix[index][column] for index in remaining)
            remaining = [index for index in remaining if matrix[index][column] == best]
        return ChoicesDecision(choices[remaining[0]], {"greedy_logprob_matrix": matrix})


class UnconditionalLikelihoodNormalized:
    """The choice whose tokens gain most from the prompt: mean of conditional minus unconditional log-probability."""

    requires_unconditional_logprobs = True

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Sequence[TokenLogprobs],
        output_token_logprobs: Sequence[TokenLogprobs],
        unconditional_token_logprobs: Sequence[TokenLogprobs] | None = None,
    ) -> ChoicesDecision:
        if unconditional_token_logprobs is None:
            raise ProgramError("unconditional_likelihood_normalized was called without unconditional_token_logprobs")
        gains = [
            _mean([_gain(given, alone) for given, alone in zip(_logprobs(tokens), _logprobs(bare), strict=True)])
            for tokens, bare in zip(input_token_logprobs, unconditional_token_logprobs, strict=True)
        ]
        return ChoicesDecision(
            choices[_first_max(gains)],
            {
                "unconditional_token_logprobs": unconditional_token_logprobs,
                "normalized_unconditional_prompt_logprobs": gains,
            },
        )


@dataclass(frozen=True, slots=True)
class ConstrainedDecoding:
    """Not a scoring method: the choices become the constraint of an ordinary generation, with its temperature."""


token_length_normalized = TokenLengthNormalized()
greedy_token_selection = GreedyTokenSelection()
unconditional_likelihood_normalized = UnconditionalLikelihoodNormalized()
joint_likelihood = JointLikelihood()
constrained_decoding = ConstrainedDecoding()


class Decider:
    """Calls `method` on an engine's scores; remembers what it reports about them."""

    def __init__(self, method: ChoicesSamplingMethod) -> None:
        self.method = method
        self.meta_info: dict[str, Any] = {}

    def __call__(self, scores: ScoreResult) -> int:
        choices = [choice.text for choice in scores.choices]
        conditional = [_as_lists(choice.token_ids, choice.logprobs) for choice in scores.choices]
        unconditional = None
        if self.method.requires_unconditional_logprobs:
            unconditional = [_as_lists(choice.token_ids, choice.unconditional_logprobs) for choice in scores.choices]
        means = [_mean(list(choice.logprobs)) for choice in scores.choices]
        decision = self.method(
            choices=choices,
            normalized_prompt_logprobs=means,
            input_token_logprobs=conditional,
            output_token_logprobs=[[] for _ in choices],
            unconditional_token_logprobs=unconditional,
        )
        self.meta_info = {
            "normalized_prompt_logprobs": means,
            "input_token_logprobs": conditional,
            "output_token_logprobs": [[] for _ in choices],
            **decision.meta_info,
        }
        if decision.decision not in choices:
            raise ProgramError(f"the choices method {self.method!r} decided {decision.decision!r}, none of {choices}")
        return choices.index(decision.decision)


def _as_lists(token_ids: Sequence[int], logprobs: Sequence[float]) -> list[list[Any]]:
    return [[logprob, token_id, None] for token_id, logprob in zip(token_ids, logprobs, strict=True)]


def _logprobs(tokens: TokenLogprobs) -> list[float]:
    return [0.0 if token[0] is None else token[0] for token in tokens]


def _gain(given: float, alone: float) -> float:
    return given if given == -math.inf else given - alone


def _mean(values: list[float]) -> float:
    if not values or -math.inf in values:
        return -math.inf
    return math.fsum(values) / len(values)


def _first_max(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])
