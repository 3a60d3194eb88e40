"""A whole decoder with the GPU's operations against the same decoder with the reference operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from paged_pool import Pool
from torch import Tensor

from sgrun.models.config import ModelConfig, RopeConfig
from sgrun.models.decoder import Decoder
from sgrun.models.weights import empty_weights, parameters_by_name
from sgrun_kernels import reference, triton_ops
from sgrun_kernels.linear import MAX_WARP_ROWS

LLAMA = ModelConfig(
    architecture="LlamaForCausalLM",
    vocab_size=53,
    hidden_size=48,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=80,
    rms_norm_eps=1e-5,
    rope=RopeConfig(kind="llama3", factor=8.0, original_context_len=64),
    context_len=512,
    tie_word_embeddings=False,
)
BIASED = replace(LLAMA, num_layers=1, num_heads=3, num_kv_heads=3, qkv_bias=True, o_bias=True, mlp_bias=True)
QWEN3 = replace(LLAMA, num_layers=1, num_heads=4, num_kv_heads=1, head_dim=32, qk_norm=True, tie_word_embeddings=True)


def _pools(config: ModelConfig) -> tuple[Pool, Pool]:
    """The same model over the GPU's operations and over the reference operations, each with a pool of pages."""
    torch.manual_seed(7)
    device = torch.get_default_device()
    weights = empty_weights(config, torch.float32, device)
    for name, parameter in parameters_by_name(config, weights).items():
        parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    ours, theirs = (Decoder(config, weights, device, torch.float32, ops) for ops in (triton_ops, reference))
    return Pool(ours), Pool(theirs)


@pytest.fixture(params=[LLAMA, BIASED, QWEN3], ids=["llama", "biased", "qwen3"])
def pools(request: pytest.FixtureRequest) -> tuple[Pool, Pool]:
    return _pools(request.param)


def _tokens(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, LLAMA.vocab_size, (length,), generator=generator, device="cpu").tolist()


def _assert_same(pools: tuple[Pool, Pool], logits: list[Tensor]) -> None:
    """Logits, and whatever is in the caches, places that nothing was stored to included."""
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pools[0].kv, pools[1].kv, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_extends_decodes_and_copies_of_one_step_agree(pools: tuple[Pool, Pool]) -> None:
    logits = []
    for pool in pools:
        long, short = pool.add(_tokens(21, 1)), pool.add(_tokens(6, 2))
        pool.forward([(long, 13), (short, 5)])
        # A third shares the first's full pages and a copy of one place of its fourth, filled in this very step.
        third = pool.add(_tokens(17, 1), pages=long.pages[:4], cached_len=16)
        follower = pool.add([*_tokens(18, 1), 7], pages=long.pages[:4], cached_len=17)
        copies = [(pool.slot(long, 16), pool.slot(follower, 16))]
        logits.append(pool.forward([(long, 8), (follower, 2)], [short, third], copies))
    _assert_same(pools, logits)


def _decoded(pool: Pool, num_rows: int) -> Tensor:
    rows = [pool.add(_tokens(1 + row % 6, row)) for row in range(num_rows)]
    pool.forward([(row, len(row.token_ids)) for row in rows])
    for row in rows:
        pool.grow(row, 5)
    return pool.forward([], rows)


def test_decodes_alone_agree(pools: tuple[Pool, Pool]) -> None:
    _assert_same(pools, [_decoded(pool, 2) for pool in pools])


def test_decodes_of_more_rows_than_are_streamed_agree() -> None:
    pools = _pools(replace(LLAMA, num_layers=1))
    _assert_same(pools, [_decoded(pool, MAX_WARP_ROWS + 1) for pool in pools])


def test_a_bound_beyond_every_row_changes_nothing() -> None:
    """As in a captured graph, where the bound is that of all replays."""
    pool, _ = _pools(LLAMA)
    row = pool.add(_tokens(7, 3))
    pool.forward([(row, 6)])
    inputs = pool.inputs([], [row])
    expected = pool.decoder.forward(inputs, pool.kv)
    actual = pool.decoder.forward(replace(inputs, max_decode_len=600, logits_rows=None), pool.kv)
    assert torch.equal(actual, expected)


def test_decodes_on_the_same_pages_give_the_same_read_together() -> None:
    ours, theirs = _pools(replace(LLAMA, num_layers=1))
    pool = Pool(theirs.decoder, num_pages=320)
    rows = [pool.add(_tokens(400, 3)) for _ in range(3)]
    pool.forward([(rows[0], 399)])
    for row in rows[1:]:
        row.pages[:96], row.cached_len = rows[0].pages[:96], 384
    pool.forward([(row, 15) for row in rows[1:]])
    inputs = pool.inputs([], rows)
    expected = ours.decoder.forward(inputs, pool.kv)
    actual = ours.decoder.forward(replace(inputs, decodes_share=True), pool.kv)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
