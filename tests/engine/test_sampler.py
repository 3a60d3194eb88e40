"""The host sampler against distributions written out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sgrun.engine.sampler import NOT_FINITE, NOTHING_ALLOWED, SampleRow, sample, uniform
from sgrun.types import SamplingParams

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -30.0])


def row(
    position: int = 0, seed: int = 5, bitmask: Any = None, banned_ids: tuple[int, ...] = (), **options: Any
) -> SampleRow:
    prompt_ids, output_ids = options.pop("prompt_ids", []), options.pop("output_ids", [])
    return SampleRow(SamplingParams(**options), seed, position, prompt_ids, output_ids, bitmask, banned_ids)


def one(logits: torch.Tensor, sample_row: SampleRow) -> int:
    return sample(logits[None].clone(), [sample_row])[0].token_id


def naive_probs(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float) -> list[float]:
    weights = [math.exp(value / temperature) for value in logits]
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    if top_k > 0:
        order = order[:top_k]
    total = sum(weights[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if mass < top_p:
            kept.append(i)
        mass += weights[i] / total
    best = weights[kept[0]]
    kept = [i for i in kept if weights[i] >= min_p * best]
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(weights))]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, -1, 1.0, 0.0),
        (0.7, -1, 1.0, 0.0),
        (1.0, 3, 1.0, 0.0),
        (1.0, -1, 0.8, 0.0),
        (1.3, 5, 0.9, 0.0),
        (1.0, -1, 1.0, 0.2),
        (2.0, 6, 0.95, 0.3),
    ],
)
def test_draws_follow_the_exact_distribution(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    """Chi-square over 12,000 draws; with at most 7 degrees of freedom, 40 is exceeded by chance in 1e-6 of runs, and
    the draws are the same in every run."""
    num_draws = 12_000
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    counts = np.zeros(len(LOGITS))
    for start in range(0, num_draws, 2000):
        rows = [row(position=start + i, **options) for i in range(2000)]
        counts += np.bincount([drawn.token_id for drawn in sample(LOGITS.repeat(2000, 1), rows)], minlength=8)
    expected = np.array(naive_probs(LOGITS.tolist(), temperature, top_k, top_p, min_p)) * num_draws
    assert (counts[expected == 0] == 0).all()
    likely = expected >= 1
    assert ((counts - expected)[likely] ** 2 / expected[likely]).sum() < 40


def test_a_draw_depends_on_its_own_row_alone() -> None:
    logits = torch.randn(64, 300, generator=torch.Generator().manual_seed(0), device="cpu")
    rows = [
        row(position=i, seed=i % 7, temperature=0.5 + i % 3, top_p=1.0 if i % 2 else 0.7, min_p=0.01 * (i % 5))
        for i in range(64)
    ]
    rows[::9] = [row(temperature=0.0)] * len(rows[::9])
    together = [drawn.token_id for drawn in sample(logits.clone(), rows)]
    assert together == [one(logits[i], rows[i]) for i in range(64)]
    backwards = [drawn.token_id for drawn in sample(logits.flip(0), rows[::-1])]
    assert together == backwards[::-1]


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    assert one(torch.tensor([0.0, 3.0, 3.0, 1.0]), row(temperature=0.0)) == 1
    assert one(torch.tensor([0.0, 3.0, 3.0, 1.0]), row(temperature=1e-30)) == 1


def test_bitmask_and_bans_exclude_tokens_whatever_their_bias() -> None:
    bitmask = np.array([0b10100], dtype=np.int32)
    assert one(LOGITS, row(temperature=0.0, bitmask=bitmask, logit_bias={0: 100.0})) == 2
    assert one(LOGITS, row(temperature=0.0, bitmask=bitmask, banned_ids=(2,))) == 4
    drawn = {one(LOGITS, row(position=i, temperature=5.0, bitmask=bitmask)) for i in range(50)}
    assert drawn == {2, 4}


def test_rows_without_an_allowed_token_or_with_nan_are_flagged_and_others_go_on() -> None:
    logits = LOGITS.repeat(4, 1)
    logits[1, 3] = float("nan")
    logits[2, 3] = float("inf")
    rows = [row(temperature=0.0), row(temperature=1.0), row(), row(bitmask=np.zeros(1, dtype=np.int32))]
    assert [drawn.token_id for drawn in sample(logits, rows)] == [0, NOT_FINITE, NOT_FINITE, NOTHING_ALLOWED]


def test_penalties_are_those_of_their_definitions() -> None:
    def best(**options: Any) -> int:
        return one(torch.tensor([2.0, 1.9, -1.0, -1.2]), row(temperature=0.0, **options))

    assert best() == 0
    assert best(repetition_penalty=1.1, prompt_ids=[0]) == 1  # 2.0 / 1.1 < 1.9
    assert best(repetition_penalty=1.05, prompt_ids=[0]) == 0  # 2.0 / 1.05 > 1.9
    assert best(frequency_penalty=0.06, output_ids=[0, 0]) == 1  # 2.0 - 0.12 < 1.9
    assert best(frequency_penalty=0.06, output_ids=[0]) == 0
    assert best(presence_penalty=0.06, output_ids=[0, 0]) == 0
    assert best(presence_penalty=0.11, output_ids=[0]) == 1
    both = row(temperature=0.0, repetition_penalty=1.5, prompt_ids=[2], banned_ids=(0, 1))
    assert one(torch.tensor([2.0, 1.9, -1.0, -1.2]), both) == 3  # -1.0 * 1.5 < -1.2


def test_logprobs_are_of_the_raw_distribution() -> None:
    (drawn,) = sample(LOGITS[None].clone(), [row(temperature=0.0, logit_bias={3: 50.0}, logprobs=True, top_logprobs=2)])
    expected = torch.log_softmax(LOGITS, dim=-1)
    assert drawn.token_id == 3 and drawn.logprob == pytest.approx(float(expected[3]))
    assert [token_id for token_id, _ in drawn.top] == [0, 1]
    assert drawn.top[0][1] == pytest.approx(float(expected[0]))


def test_uniform_numbers_are_philox_of_seed_and_position() -> None:
    numbers = [uniform(seed, position) for seed in (0, 1, 2**64 - 1) for position in range(2000)]
    assert len(set(numbers)) == 6000 and min(numbers) >= 0.0 and max(numbers) < 1.0
    assert abs(float(np.mean(numbers)) - 0.5) < 0.02
    generator = np.random.Generator(np.random.Philox(key=7, counter=3))
    assert uniform(7, 3) == generator.random()
