"""Norm, gate, rotation and copies on the GPU against the reference operations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from paged_rows import empty_caches
from torch import Tensor

from sgrun_kernels import reference, triton_ops

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Triton's interpreter cuts float32 off to bfloat16 instead of rounding.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """What is allocated holds no zeros."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def _assert_near(actual: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCE[actual.dtype]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", [0, 1, 17])
@pytest.mark.parametrize("num_columns", [63, 576])
def test_add_rms_norm_is_the_references(dtype: torch.dtype, num_rows: int, num_columns: int) -> None:
    x, residual = (torch.randn(num_rows, 2 * num_columns).to(dtype)[:, 5 : 5 + num_columns] for _ in range(2))
    weight = torch.randn(num_columns).to(dtype)
    before = x.clone(), residual.clone()
    actual = triton_ops.add_rms_norm(x, residual, weight, 1e-5)
    for part, expected in zip(actual, reference.add_rms_norm(x, residual, weight, 1e-5), strict=True):
        _assert_near(part, expected)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_tokens", [0, 1, 5])
@pytest.mark.parametrize("num_columns", [63, 1500])
def test_embed_norm_takes_the_tokens_rows(dtype: torch.dtype, num_tokens: int, num_columns: int) -> None:
    weight, norm = torch.randn(11, num_columns).to(dtype), torch.randn(num_columns).to(dtype)
    token_ids = torch.tensor([10, 0, 3, 3, 7])[:num_tokens]
    actual, expected = (ops.embed_norm(token_ids, weight, norm, 1e-5) for ops in (triton_ops, reference))
    assert torch.equal(actual.total, expected.total)
    _assert_near(actual.normed, expected.normed)
    assert actual.squares is None


def test_embed_norm_starts_the_counters_of_a_step(poisoned_memory: None) -> None:
    hidden = triton_ops.embed_norm(torch.tensor([1, 0]), torch.randn(2, 70), torch.randn(70), 1e-5)
    assert hidden.arrivals is not None
    assert hidden.arrivals.eq(0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", [0, 1, 5])
@pytest.mark.parametrize("inner", [7, 1500])
def test_silu_mul_is_the_references(dtype: torch.dtype, num_rows: int, inner: int) -> None:
    gate_up = torch.randn(num_rows, 2 * inner).to(dtype) * 3
    _assert_near(triton_ops.silu_mul(gate_up), reference.silu_mul(gate_up))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [64, 80])
def test_rotations_are_the_references_far_into_a_context(dtype: torch.dtype, head_dim: int) -> None:
    positions = torch.tensor([0, 1, 4097, 131_071], dtype=torch.int32)
    inv_freq = 1 / 500_000 ** (torch.arange(0, head_dim, 2) / head_dim)
    actual = triton_ops.rotations(positions, inv_freq, dtype)
    for part, expected in zip(actual, reference.rotations(positions, inv_freq, dtype), strict=True):
        _assert_near(part, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(1, 1), (9, 3), (14, 2)])
@pytest.mark.parametrize("head_dim", [64, 96])
@pytest.mark.parametrize("has_norm", [False, True])
def test_norm_rope_store_is_the_references(
    dtype: torch.dtype, num_heads: int, num_kv_heads: int, head_dim: int, has_norm: bool
) -> None:
    num_tokens = 3
    wide = torch.randn(num_tokens, (num_heads + 2 * num_kv_heads + 4) * head_dim).to(dtype)
    qkv = wide[:, : (num_heads + 2 * num_kv_heads) * head_dim].view(num_tokens, -1, head_dim)
    norms = [torch.randn(head_dim).to(dtype) if has_norm else None for _ in range(2)]
    inv_freq = 1 / 10_000 ** (torch.arange(0, head_dim, 2) / head_dim)
    cos, sin = reference.rotations(torch.tensor([5, 0, 900]), inv_freq, dtype)
    slots = torch.tensor([18, 0, 7])
    caches, expected_caches = (empty_caches(5, 4, num_kv_heads, head_dim, dtype) for _ in range(2))
    q = triton_ops.norm_rope_store(qkv, *norms, 1e-6, cos, sin, *caches, slots.int())
    expected = reference.norm_rope_store(qkv.clone(), *norms, 1e-6, cos, sin, *expected_caches, slots)
    _assert_near(q, expected)
    for cache, expected_cache in zip(caches, expected_caches, strict=True):
        assert torch.equal(cache.isnan(), expected_cache.isnan())
        _assert_near(cache.nan_to_num(), expected_cache.nan_to_num())


def test_norm_rope_store_of_no_tokens_is_empty() -> None:
    caches = empty_caches(1, 4, 1, 16, torch.float32)
    none = torch.zeros(0, 1, 16)
    slots = torch.zeros(0, dtype=torch.int64)
    assert triton_ops.norm_rope_store(torch.zeros(0, 4, 16), None, None, 1e-6, none, none, *caches, slots).shape == (
        0,
        2,
        16,
    )


@pytest.mark.parametrize("num_copies", [0, 1, 3])
def test_copy_kv_copies_slots_of_both_caches(num_copies: int) -> None:
    caches = [torch.randn(5, 4, 3, 5), torch.randn(5, 4, 3, 5)]
    expected = [cache.clone() for cache in caches]
    src, dst = torch.tensor([1, 9, 11])[:num_copies], torch.tensor([16, 3, 19])[:num_copies]
    triton_ops.copy_kv(*caches, src.int(), dst.int())
    reference.copy_kv(*expected, src, dst)
    for cache, expected_cache in zip(caches, expected, strict=True):
        assert torch.equal(cache, expected_cache)
