"""The reference operations against their plain definitions, with NaN in every place that nothing was stored to."""

from __future__ import annotations

import pytest
import torch
from paged_rows import PagedRows, empty_caches
from torch import Tensor

from sgrun_kernels import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _assert_near(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    torch.testing.assert_close(
        actual.float(), expected.float(), rtol=TOLERANCE[actual.dtype], atol=TOLERANCE[actual.dtype]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_tokens", [0, 1, 17])
def test_rms_norm_divides_by_the_root_mean_square(dtype: torch.dtype, num_tokens: int) -> None:
    x, weight = torch.randn(num_tokens, 63).to(dtype) * 30, torch.randn(63).to(dtype)
    expected = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    _assert_near(reference.rms_norm(x, weight, 1e-5) / 4, expected / 4)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert reference.rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-6).eq(0).all()


def test_add_rms_norm_returns_norm_and_sum_and_mutates_nothing() -> None:
    x, residual, weight = torch.randn(5, 16), torch.randn(5, 16), torch.randn(16)
    before = x.clone(), residual.clone()
    normed, total = reference.add_rms_norm(x, residual, weight, 1e-6)
    assert torch.equal(total, before[0] + before[1])
    assert torch.equal(normed, reference.rms_norm(total, weight, 1e-6))
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_mul_gates_the_second_half_by_the_first(dtype: torch.dtype) -> None:
    gate_up = torch.randn(3, 14).to(dtype)
    gate, up = gate_up[:, :7].double(), gate_up[:, 7:].double()
    before = gate_up.clone()
    _assert_near(reference.silu_mul(gate_up), gate / (1 + (-gate).exp()) * up)
    assert torch.equal(gate_up, before)


def test_rope_rotates_pairs_of_half_split_dimensions_in_place() -> None:
    num_tokens, heads, head_dim = 4, 3, 10
    x = torch.randn(num_tokens, heads, head_dim)
    angles = torch.randn(num_tokens, 1, head_dim // 2)
    pairs = torch.complex(x[..., : head_dim // 2], x[..., head_dim // 2 :]) * torch.polar(torch.ones(()), angles)
    cos, sin = angles.cos(), angles.sin()
    reference.rope_(x, torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))
    torch.testing.assert_close(x, torch.cat((pairs.real, pairs.imag), -1))


def test_rope_writes_through_a_view_and_leaves_its_neighbours() -> None:
    qkv = torch.randn(2, 5, 4)
    values = qkv[:, 3:].clone()
    reference.rope_(qkv[:, :3], torch.zeros(2, 1, 4), torch.zeros(2, 1, 4))
    assert qkv[:, :3].eq(0).all()
    assert torch.equal(qkv[:, 3:], values)


def test_linear_add_norm_sums_and_norms() -> None:
    x, residual, norm = torch.randn(5, 16), torch.randn(5, 7), torch.randn(7)
    weight, bias = torch.randn(7, 16), torch.randn(7)
    before = reference.Hidden(residual, residual, 1e-6)
    hidden = reference.linear_add_norm(x, weight, bias, before, norm)
    torch.testing.assert_close(hidden.total, x @ weight.T + bias + residual)
    torch.testing.assert_close(hidden.normed, reference.rms_norm(hidden.total, norm, 1e-6))
    assert hidden.squares is None


def test_normed_gate_up_gates_the_second_half() -> None:
    x, weight, bias = torch.randn(5, 16), torch.randn(14, 16), torch.randn(14)
    hidden = reference.Hidden(torch.randn(5, 16), x, 1e-6)
    gate, up = (x @ weight.T + bias).chunk(2, dim=1)
    torch.testing.assert_close(reference.normed_linear(hidden, weight, bias), torch.cat((gate, up), 1))
    torch.testing.assert_close(reference.normed_gate_up(hidden, weight, bias), torch.nn.functional.silu(gate) * up)


def test_rotations_are_angles_of_position_times_frequency() -> None:
    positions, inv_freq = torch.tensor([0, 3, 100_000]), torch.tensor([1.0, 0.01])
    cos, sin = reference.rotations(positions, inv_freq, torch.float32)
    angles = (positions[:, None].float() * inv_freq).double()
    torch.testing.assert_close(cos[:, 0].double(), angles.cos().repeat(1, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin[:, 0].double(), torch.cat((-angles.sin(), angles.sin()), 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("has_norm", [False, True])
def test_norm_rope_store_returns_queries_and_stores_keys_and_values(has_norm: bool) -> None:
    num_tokens, num_heads, num_kv_heads, head_dim = 3, 4, 2, 6
    qkv = torch.randn(num_tokens, num_heads + 2 * num_kv_heads, head_dim)
    q, k, v = (part.clone() for part in qkv.split([num_heads, num_kv_heads, num_kv_heads], dim=1))
    q_norm, k_norm = (torch.randn(head_dim), torch.randn(head_dim)) if has_norm else (None, None)
    cos, sin = reference.rotations(torch.tensor([5, 0, 9]), torch.tensor([1.0, 0.3, 0.1]), torch.float32)
    caches = empty_caches(5, 4, num_kv_heads, head_dim, torch.float32)
    slots = torch.tensor([18, 0, 7])
    out = reference.norm_rope_store(qkv, q_norm, k_norm, 1e-6, cos, sin, *caches, slots)
    if q_norm is not None and k_norm is not None:
        q, k = reference.rms_norm(q, q_norm, 1e-6), reference.rms_norm(k, k_norm, 1e-6)
    reference.rope_(q, cos, sin)
    reference.rope_(k, cos, sin)
    torch.testing.assert_close(out, q)
    torch.testing.assert_close(caches[0].view(-1, num_kv_heads, head_dim)[slots], k)
    assert torch.equal(caches[1].view(-1, num_kv_heads, head_dim)[slots], v)


def test_store_kv_writes_just_its_slots() -> None:
    k_cache, v_cache = empty_caches(5, 4, 2, 3, torch.float32)
    k, v = torch.randn(3, 2, 3), torch.randn(3, 2, 3)
    slots = torch.tensor([18, 0, 7])
    reference.store_kv(k, v, k_cache, v_cache, slots)
    for cache, stored in ((k_cache, k), (v_cache, v)):
        assert torch.equal(cache[[4, 0, 1], [2, 0, 3]], stored)
        assert cache.isfinite().all(-1).all(-1).sum() == 3


def test_copy_kv_copies_slots_of_both_caches() -> None:
    k_cache, v_cache = torch.randn(5, 4, 2, 3), torch.randn(5, 4, 2, 3)
    before = k_cache.clone(), v_cache.clone()
    reference.copy_kv(k_cache, v_cache, torch.tensor([1, 9]), torch.tensor([16, 3]))
    for cache, old in zip((k_cache, v_cache), before, strict=True):
        assert torch.equal(cache[[4, 0], [0, 3]], old[[0, 2], [1, 1]])
        assert cache.ne(old).any(-1).any(-1).sum() == 2


SHAPES = [(1, 3, 3), (4, 6, 2), (16, 4, 1)]  # page_size, query heads, key/value heads


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("page_size", "num_q_heads", "num_kv_heads"), SHAPES)
def test_decode_attention_sees_each_row_to_its_end(
    dtype: torch.dtype, page_size: int, num_q_heads: int, num_kv_heads: int
) -> None:
    seq_lens = [1, 17, 16, 40, 5]
    rows = PagedRows(seq_lens, page_size, num_q_heads, num_kv_heads, 8, dtype)
    q = rows.queries(len(seq_lens))
    plan = reference.plan_decode(rows.page_tables, torch.tensor(seq_lens), max(seq_lens), rows.k_cache, num_q_heads)
    out = reference.decode_attention(q, rows.k_cache, rows.v_cache, plan, 0.3)
    expected = [rows.expected(row, q[row : row + 1], 0.3) for row in range(len(seq_lens))]
    _assert_near(out, torch.cat(expected))


def test_decode_plan_names_only_stored_places() -> None:
    page_tables = torch.tensor([[3, 1], [2, 0]])
    plan = reference.plan_decode(page_tables, torch.tensor([6, 1]), 6, torch.empty(4, 4, 1, 1), 1)
    assert plan.slots.tolist() == [12, 13, 14, 15, 4, 5, 8, 8, 8, 8, 8, 8]
    assert plan.mask.flatten().tolist() == [True] * 7 + [False] * 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("page_size", "num_q_heads", "num_kv_heads"), SHAPES)
def test_extend_attention_is_causal_over_each_rows_prefix(
    dtype: torch.dtype, page_size: int, num_q_heads: int, num_kv_heads: int
) -> None:
    seq_lens, extend_lens = [1, 17, 17, 40, 33, 18], [1, 17, 1, 7, 32, 2]
    rows = PagedRows(seq_lens, page_size, num_q_heads, num_kv_heads, 8, dtype)
    q = rows.queries(sum(extend_lens))
    starts = torch.tensor([0, *extend_lens]).cumsum(0)
    plan = reference.plan_extend(
        rows.page_tables, torch.tensor(seq_lens), starts, seq_lens, extend_lens, rows.k_cache, num_q_heads
    )
    out = reference.extend_attention(q, rows.k_cache, rows.v_cache, plan, 0.3)
    expected = [rows.expected(row, part, 0.3) for row, part in enumerate(q.split(extend_lens))]
    _assert_near(out, torch.cat(expected))


def test_extend_attention_of_no_rows_is_empty() -> None:
    k_cache, v_cache = empty_caches(2, 4, 1, 8, torch.float32)
    none = torch.zeros(0, dtype=torch.int64)
    starts = torch.zeros(1, dtype=torch.int64)
    plan = reference.plan_extend(none.view(0, 0), none, starts, [], [], k_cache, 2)
    out = reference.extend_attention(torch.zeros(0, 2, 8), k_cache, v_cache, plan, 1.0)
    assert out.shape == (0, 2, 8)


@pytest.mark.parametrize("num_tokens", [0, 1, 3, 16, 65])
def test_packed_linear_equals_the_plain_one(num_tokens: int) -> None:
    """Where oneDNN has bfloat16 kernels; elsewhere nothing is packed."""
    weight = torch.randn(70, 33, device="cpu").bfloat16()
    x, bias = torch.randn(num_tokens, 33, device="cpu").bfloat16(), torch.randn(70, device="cpu").bfloat16()
    if reference.can_pack_linear(weight.dtype, weight.device):
        weight_or_packed = reference.pack_linear(weight)
        assert weight_or_packed.is_mkldnn
    else:
        weight_or_packed = weight
    for b in (None, bias):
        torch.testing.assert_close(reference.linear(x, weight_or_packed, b), torch.nn.functional.linear(x, weight, b))
