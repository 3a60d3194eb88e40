"""Owns the way from logits to token ids on the host path. Knows nothing of sequences: one SampleRow a row.

Order of effects: penalties and bias, bitmask and banned ids, temperature, top_k, top_p, min_p, draw. top_p acts on what
top_k leaves, renormalised; min_p is relative to the most likely token. A draw depends only on (seed, position, logits):
one uniform number by Philox (Salmon et al., SC 2011) with the seed as key and the position as counter, turned into the
first token in the order of ids whose cumulative mass, in float64, exceeds it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgrun.types import SamplingParams

NEGATIVE_INFINITY = float("-inf")


@dataclass(frozen=True, slots=True)
class SampleRow:
    """What decides the token of one row. `position` counts the tokens sampled before; `bitmask` int32
    [ceil(vocab / 32)], bit 1 = allowed, or None; `banned_ids` are not allowed whatever the bitmask says."""

    params: SamplingParams
    seed: int
    position: int
    prompt_ids: list[int]
    output_ids: list[int]
    bitmask: NDArray[np.int32] | None
    banned_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """`token_id` is -1 if the row's logits were not finite, -2 if nothing was allowed. `logprob` and `top` (ids with
    their log-probabilities, best first) are of the model's own distribution; filled where asked for. `is_forced`: the
    bitmask allowed no other token."""

    token_id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    is_forced: bool = False


NOT_FINITE = -1
NOTHING_ALLOWED = -2


def sample(logits: Tensor, rows: list[SampleRow]) -> list[Sampled]:
    """One token for each row of `logits` [num_rows, vocab] float32, which is overwritten."""
    # A sum is finite iff all of its terms are (sums of float32 logits do not overflow).
    is_finite = logits.sum(dim=-1).isfinite().tolist()
    logprobs = {i: torch.log_softmax(logits[i], dim=-1) for i, row in enumerate(rows) if row.params.logprobs}
    for i, row in enumerate(rows):
        if row.params.is_adjusted:
            _penalise(logits[i], row)
        if row.bitmask is not None or row.banned_ids:
            _restrict(logits[i], row)
    best = logits.argmax(dim=-1)  # the lowest id of equals
    is_allowed = (logits.gather(1, best[:, None])[:, 0] > NEGATIVE_INFINITY).tolist()
    token_ids = best.tolist()
    for indices, is_sorted in _drawing_groups(rows, is_finite, is_allowed):
        drawn = _draw(logits[indices], [rows[i] for i in indices], is_sorted)
        for i, token_id in zip(indices, drawn, strict=True):
            token_ids[i] = token_id
    return [_sampled(token_ids[i], is_finite[i], is_allowed[i], logprobs.get(i), row) for i, row in enumerate(rows)]


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) of (seed, position): 53 bits of Philox4x64-10."""
    return float(int(np.random.Philox(key=seed, counter=position).random_raw()) >> 11) * 2.0**-53


def _sampled(token_id: int, is_finite: bool, is_allowed: bool, logprobs: Tensor | None, row: SampleRow) -> Sampled:
    if not is_finite:
        return Sampled(NOT_FINITE)
    if not is_allowed:
        return Sampled(NOTHING_ALLOWED)
    is_forced = row.bitmask is not None and int(np.bitwise_count(row.bitmask.view(np.uint32)).sum()) == 1
    if logprobs is None:
        return Sampled(token_id, is_forced=is_forced)
    top: tuple[tuple[int, float], ...] = ()
    if row.params.top_logprobs:
        values, ids = logprobs.topk(min(row.params.top_logprobs, logprobs.numel()))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Sampled(token_id, float(logprobs[token_id]), top, is_forced)


def _penalise(logits: Tensor, row: SampleRow) -> None:
    """Repetition penalty over prompt and output (Keskar et al. 2019, CTRL); frequency and presence penalties over the
    output, and bias, as the OpenAI API defines them."""
    params = row.params
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*row.prompt_ids, *row.output_ids}), device=logits.device)
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    if (params.frequency_penalty or params.presence_penalty) and row.output_ids:
        counts = Counter(row.output_ids)
        penalties = [params.frequency_penalty * count + params.presence_penalty for count in counts.values()]
        logits[list(counts)] -= torch.tensor(penalties, device=logits.device)
    for token_id, bias in params.logit_bias.items():
        logits[token_id] += bias


def _restrict(logits: Tensor, row: SampleRow) -> None:
    if row.bitmask is not None:
        bits = np.unpackbits(row.bitmask.view(np.uint8), count=logits.numel(), bitorder="little")
        logits.masked_fill_(torch.from_numpy(bits == 0).to(logits.device), NEGATIVE_INFINITY)
    if row.banned_ids:
        logits[list(row.banned_ids)] = NEGATIVE_INFINITY


def _drawing_groups(
    rows: list[SampleRow], is_finite: list[bool], is_allowed: list[bool]
) -> list[tuple[list[int], bool]]:
    """Rows that draw at random, apart by whether they need their tokens sorted: which way a row goes depends on its
    own parameters alone."""
    plain: list[int] = []
    sorted_: list[int] = []
    for i, row in enumerate(rows):
        if not row.params.is_greedy and is_finite[i] and is_allowed[i]:
            (sorted_ if row.params.top_k > 0 or row.params.top_p < 1.0 else plain).append(i)
    return [(group, is_sorted) for group, is_sorted in ((plain, False), (sorted_, True)) if group]


def _draw(logits: Tensor, rows: list[SampleRow], is_sorted: bool) -> list[int]:
    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    scaled = logits.double() / column([row.params.temperature for row in rows])
    ids = None
    if is_sorted:
        scaled, ids = scaled.sort(dim=-1, descending=True, stable=True)
        vocab = scaled.shape[-1]
        ranks = torch.arange(vocab, device=logits.device)
        top_k = column([row.params.top_k if row.params.top_k > 0 else vocab for row in rows])
        scaled = scaled.masked_fill(ranks >= top_k, NEGATIVE_INFINITY)
        probs = scaled.softmax(dim=-1)
        before = probs.cumsum(dim=-1) - probs
        probs = probs.masked_fill(before >= column([row.params.top_p for row in rows]), 0.0)
    else:
        probs = scaled.softmax(dim=-1)
    least = column([row.params.min_p for row in rows]) * probs.amax(dim=-1, keepdim=True)
    probs = probs.masked_fill(probs < least, 0.0)
    if ids is not None:
        probs = torch.zeros_like(probs).scatter_(1, ids, probs)
    cumulative = probs.cumsum(dim=-1)
    numbers = column([uniform(row.seed, row.position) for row in rows])
    # The first place whose cumulative mass exceeds u * total: never a place of mass 0.
    chosen = torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True)
    return [int(token_id) for token_id in chosen[:, 0].tolist()]
