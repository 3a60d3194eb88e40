"""The twin of `sampling.py` in plain torch, one row after the other, in float64. Same names, same signatures.

Order of effects: penalties and bias, bitmask and banned ids, temperature, top_k, top_p, min_p, draw. Of equal logits
the lowest ids come first. The draw turns one uniform number by Philox4x64-10 (Salmon et al., SC 2011), of the seed as
key and the position as counter, into the first token in the order of ids whose cumulative mass exceeds it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sgrun_kernels.rows import NOT_FINITE, NOTHING_ALLOWED, Adjustments, Records, Rows
from sgrun_kernels.workspace import SampleWorkspace

NEGATIVE_INFINITY = float("-inf")


def sample_(
    logits: Tensor,
    row_ids: Tensor,
    rows: Rows,
    masks: Tensor,
    adjustments: Adjustments,
    workspace: SampleWorkspace,
) -> None:
    """Writes `drawn` and `drawn_logprob` of rows `row_ids` [L] int32, all different.

    logits [L, V] bfloat16, float16 or float32, of which the i-th row belongs to row row_ids[i]; masks [S, words] int32:
    that of a row with an automaton is at the row's `mask`, bit i % 32 of word i // 32 set if token i is allowed. The
    log-probability is of the model's own distribution, before any effect. A draw depends on the row's own logits and
    record alone.
    """
    records = rows.records()
    for values, row_id in zip(logits, row_ids.tolist(), strict=True):
        record = records[row_id : row_id + 1]
        record["drawn"], record["drawn_logprob"] = _sample(values, record[0], masks[record["mask"][0]], adjustments)


def top_logprobs(logits: Tensor, num_top: int) -> tuple[Tensor, Tensor]:
    """The most likely tokens of the model's own distribution: (ids [L, num_top] int64, log-probabilities float32), best
    first."""
    values, ids = torch.log_softmax(logits.float(), dim=-1).topk(num_top)
    return ids, values


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) of (seed, position): 53 bits of Philox4x64-10."""
    return float(int(np.random.Philox(key=seed % 2**64, counter=position).random_raw()) >> 11) * 2.0**-53


def _sample(raw: Tensor, record: Records, mask: Tensor, adjustments: Adjustments) -> tuple[int, float]:
    if not raw.isfinite().all():
        return NOT_FINITE, 0.0
    values = raw.float()
    if record["adjustment"] >= 0:
        values = _adjusted(values, record, adjustments)
    values = values.masked_fill(~_is_allowed(len(values), record, mask), NEGATIVE_INFINITY)
    token_id = int(values.argmax())
    if values[token_id] == NEGATIVE_INFINITY:
        return NOTHING_ALLOWED, 0.0
    if record["temperature"] > 0:
        token_id = _draw(values, record)
    return token_id, float(torch.log_softmax(raw.double(), dim=-1)[token_id]) if record["wants_logprob"] else 0.0


def _adjusted(values: Tensor, record: Records, adjustments: Adjustments) -> Tensor:
    """Repetition penalty over prompt and output (Keskar et al. 2019, CTRL); frequency and presence penalties over the
    output, and bias, as the OpenAI API defines them."""
    seen, bias = adjustments.seen[record["adjustment"]], adjustments.bias[record["adjustment"]]
    repetition = float(record["repetition_penalty"])
    penalised = torch.where(values > 0, values / repetition, values * repetition)
    values = torch.where(seen > 0, penalised, values)
    num_outputs = seen >> 1
    penalties = num_outputs * float(record["frequency_penalty"]) + float(record["presence_penalty"])
    return torch.where(num_outputs > 0, values - penalties, values) + bias


def _is_allowed(vocab_size: int, record: Records, mask: Tensor) -> Tensor:
    allowed = torch.ones(vocab_size, dtype=torch.bool)
    if record["automaton"] >= 0:
        bits = np.unpackbits(mask.numpy().view(np.uint8), count=vocab_size, bitorder="little")
        allowed = torch.from_numpy(bits != 0)
    if record["position"] < record["ban_until"]:
        stop_ids = record["stop_ids"]
        allowed[stop_ids[stop_ids >= 0]] = False
    return allowed


def _draw(values: Tensor, record: Records) -> int:
    scaled, ids = (values.double() / float(record["temperature"])).sort(descending=True, stable=True)
    scaled[int(record["top_k"]) :] = NEGATIVE_INFINITY
    probs = scaled.softmax(dim=-1)
    before = probs.cumsum(dim=-1) - probs
    if record["top_p"] < 1:
        probs[before >= float(record["top_p"])] = 0.0
    probs[probs < float(record["min_p"]) * probs[0]] = 0.0
    cumulative = torch.zeros_like(probs).scatter_(0, ids, probs).cumsum(dim=-1)
    number = uniform(int(record["seed"]), int(record["position"]))
    return int(torch.searchsorted(cumulative, number * cumulative[-1], right=True))
