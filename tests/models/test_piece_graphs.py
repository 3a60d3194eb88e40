"""Forwards piece by piece against forwards in one go, over pages that hold NaN wherever nothing was stored."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from paged_pool import Pool, Row

from sgrun.models.config import ModelConfig, RopeConfig
from sgrun.models.decoder import Decoder
from sgrun.models.piece_graphs import PieceGraphs
from sgrun.models.weights import empty_weights, parameters_by_name
from sgrun_kernels import reference, triton_ops

CONFIG = ModelConfig(
    architecture="Qwen3ForCausalLM",
    vocab_size=53,
    hidden_size=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=80,
    rms_norm_eps=1e-5,
    rope=RopeConfig(kind="default"),
    context_len=512,
    qk_norm=True,
    tie_word_embeddings=False,
)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(7)
    device = torch.get_default_device()
    weights = empty_weights(CONFIG, torch.float32, device)
    for name, parameter in parameters_by_name(CONFIG, weights).items():
        parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    ops = triton_ops if device.type == "cuda" else reference  # graphs may not wait, as the reference does
    return Decoder(CONFIG, weights, device, torch.float32, ops)


def _tokens(generator: random.Random, count: int) -> list[int]:
    return [generator.randrange(CONFIG.vocab_size) for _ in range(count)]


def _pieces_over(pool: Pool, token_budget: int) -> PieceGraphs:
    return PieceGraphs(pool.decoder, pool.kv, pool.free.pop() * pool.page_size, token_budget)


def test_steps_of_any_rows_give_the_logits_and_caches_of_one_forward(decoder: Decoder) -> None:
    """Random extends and decodes. Sizes come again, so that a GPU runs them, captures them and replays them."""
    generator = random.Random(5)
    whole, pool = Pool(decoder, num_pages=400), Pool(decoder, num_pages=400)
    pieces = _pieces_over(pool, 64)
    whole.free.pop()
    rows: list[tuple[Row, Row]] = []
    for step in range(40):
        new = [_tokens(generator, generator.randint(1, 24)) for _ in range(generator.randint(0, 2))]
        extended = [(whole.add([*token_ids]), pool.add([*token_ids])) for token_ids in new]
        decoded = generator.sample(rows, min(generator.randint(not new, 6), len(rows)))
        for pair, token_id in zip(decoded, _tokens(generator, len(decoded)), strict=True):
            whole.grow(pair[0], token_id)
            pool.grow(pair[1], token_id)
        rows += extended
        num_tokens = sum(map(len, new)) + len(decoded)
        if not num_tokens:
            continue
        logits_rows = sorted(generator.sample(range(num_tokens), generator.randint(1, num_tokens)))
        inputs = [
            one.inputs(
                [(pair[side], len(pair[side].token_ids)) for pair in extended],
                [pair[side] for pair in decoded],
                logits_rows=logits_rows,
            )
            for side, one in enumerate((whole, pool))
        ]
        expected = decoder.forward(inputs[0], whole.kv)
        torch.testing.assert_close(pieces.forward(inputs[1]), expected, rtol=1e-4, atol=1e-4, msg=f"step {step}")
        for row in (row for pair in (*extended, *decoded) for row in pair):
            row.cached_len = len(row.token_ids)
    used = sorted({page for _, row in rows for page in row.pages})
    torch.testing.assert_close(pool.kv[:, :, used], whole.kv[:, :, used], rtol=1e-4, atol=1e-4, equal_nan=True)


def test_padding_is_stored_to_the_spare_slot_alone(decoder: Decoder) -> None:
    pool = Pool(decoder)
    pieces = _pieces_over(pool, 64)
    before = pool.kv.clone()
    row = pool.add([3] * 17)
    for _ in range(3):
        pieces.forward(pool.inputs([(row, 17)], logits_rows=[16]))
    is_changed = (pool.kv != before) & ~(pool.kv.isnan() & before.isnan())
    changed = is_changed.flatten(3).any(-1).any(0).any(0).nonzero()
    spare = int(pieces._padding[2]) // pool.page_size
    assert {int(page) for page in changed[:, 0]} == {*row.pages, spare}
    assert pool.kv[:, :, spare, 1:].isnan().all()


def test_sizes_pad_by_an_eighth_at_most_and_end_where_the_device_is_the_slower_one(decoder: Decoder) -> None:
    pieces = PieceGraphs(decoder, Pool(decoder).kv, 0, token_budget=1000)
    sizes = pieces._sizes
    assert sizes[0] == 16 and sizes[-2] < 1000 <= sizes[-1] == pieces.max_tokens
    assert all(larger <= 1.125 * smaller for smaller, larger in itertools.pairwise(sizes))
