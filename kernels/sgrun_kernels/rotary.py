"""Rotary positions, and with them everything between the product of queries, keys, values and attention, on a GPU.

Shape legend: see `reference`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgrun_kernels.overlap import await_previous, launch_options

BLOCK_HEADS = 8


def rotations(positions: Tensor, inv_freq: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin [T, 1, D] in `dtype`, sin negative in its first half: positions [T], inv_freq [D / 2] float32."""
    num_tokens, half = len(positions), len(inv_freq)
    cos, sin = torch.empty(2, num_tokens, 1, 2 * half, dtype=dtype, device=positions.device)
    if num_tokens:
        block = triton.next_power_of_2(half)
        _rotations_kernel[(num_tokens,)](
            positions, inv_freq, cos, sin, half, BLOCK=block, num_warps=1, **launch_options()
        )
    return cos, sin


@triton.jit
def _rotations_kernel(positions, inv_freq, cos, sin, half, BLOCK: tl.constexpr, OVERLAPS: tl.constexpr):
    """One program a token."""
    await_previous(OVERLAPS)
    token = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK)
    inside = index < half
    angle = tl.load(positions + token).to(tl.float32) * tl.load(inv_freq + index, mask=inside, other=0.0)
    cosine = tl.cos(angle).to(cos.dtype.element_ty)
    sine = tl.sin(angle)
    first = token * 2 * half + index
    tl.store(cos + first, cosine, mask=inside)
    tl.store(cos + first + half, cosine, mask=inside)
    tl.store(sin + first, (-sine).to(sin.dtype.element_ty), mask=inside)
    tl.store(sin + first + half, sine.to(sin.dtype.element_ty), mask=inside)


def norm_rope_store(
    qkv: Tensor,
    q_norm: Tensor | None,
    k_norm: Tensor | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
) -> Tensor:
    """Norms (where there are weights [D]) and rotates queries and keys, stores keys and values; returns q [T, Hq, D].

    qkv [T, Hq + 2 * Hk, D] holds the heads of queries, keys, values, each token's contiguous. cos and sin come from
    `rotations`; slots [T] int32 or int64, those of tokens that count are unique.
    """
    num_tokens, num_all_heads, head_dim = qkv.shape
    num_kv_heads = k_cache.shape[2]
    num_heads = num_all_heads - 2 * num_kv_heads
    assert qkv.stride(1) == head_dim
    assert k_cache.is_contiguous()
    assert v_cache.is_contiguous()
    q = torch.empty(num_tokens, num_heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    if num_tokens:
        _norm_rope_store_kernel[(num_tokens, triton.cdiv(num_all_heads, BLOCK_HEADS))](
            qkv,
            q_norm,
            k_norm,
            cos,
            sin,
            q,
            k_cache,
            v_cache,
            slots,
            eps,
            qkv.stride(0),
            NUM_HEADS=num_heads,
            NUM_KV_HEADS=num_kv_heads,
            HEAD_DIM=head_dim,
            HAS_NORM=q_norm is not None,
            BLOCK_HEADS=BLOCK_HEADS,
            BLOCK_HALF=triton.next_power_of_2(head_dim // 2),
            num_warps=2,
            **launch_options(),
        )
    return q


@triton.jit
def _norm_rope_store_kernel(
    qkv,
    q_norm,
    k_norm,
    cos,
    sin,
    q,
    k_cache,
    v_cache,
    slots,
    eps,
    token_stride,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HAS_NORM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """One program a token and block of heads; a block may hold heads of all three kinds."""
    await_previous(OVERLAPS)
    HALF: tl.constexpr = HEAD_DIM // 2
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    dims = tl.arange(0, BLOCK_HALF)[None, :]
    inside = dims < HALF
    is_query = (heads < NUM_HEADS)[:, None]
    is_key = ((heads >= NUM_HEADS) & (heads < NUM_HEADS + NUM_KV_HEADS))[:, None]
    is_value = ((heads >= NUM_HEADS + NUM_KV_HEADS) & (heads < NUM_HEADS + 2 * NUM_KV_HEADS))[:, None]

    places = qkv + token * token_stride + heads[:, None] * HEAD_DIM + dims
    is_head = (is_query | is_key | is_value) & inside
    first_in = tl.load(places, mask=is_head, other=0.0)
    second_in = tl.load(places + HALF, mask=is_head, other=0.0)
    first, second = first_in.to(tl.float32), second_in.to(tl.float32)
    if HAS_NORM:
        squares = tl.sum(first * first, axis=1) + tl.sum(second * second, axis=1)
        rstd = tl.rsqrt(squares / HEAD_DIM + eps)[:, None]
        q_first = tl.load(q_norm + dims, mask=inside, other=0.0).to(tl.float32)
        k_first = tl.load(k_norm + dims, mask=inside, other=0.0).to(tl.float32)
        q_second = tl.load(q_norm + HALF + dims, mask=inside, other=0.0).to(tl.float32)
        k_second = tl.load(k_norm + HALF + dims, mask=inside, other=0.0).to(tl.float32)
        first = first * rstd * tl.where(is_query, q_first, k_first)
        second = second * rstd * tl.where(is_query, q_second, k_second)

    cosine = tl.load(cos + token * HEAD_DIM + dims, mask=inside, other=0.0).to(tl.float32)
    sine = tl.load(sin + token * HEAD_DIM + HALF + dims, mask=inside, other=0.0).to(tl.float32)
    dtype = q.dtype.element_ty
    first_out = (first * cosine - second * sine).to(dtype)
    second_out = (second * cosine + first * sine).to(dtype)

    q_places = q + (token * NUM_HEADS + heads[:, None]) * HEAD_DIM + dims
    tl.store(q_places, first_out, mask=is_query & inside)
    tl.store(q_places + HALF, second_out, mask=is_query & inside)
    slot = tl.load(slots + token).to(tl.int64)
    k_places = k_cache + (slot * NUM_KV_HEADS + heads[:, None] - NUM_HEADS) * HEAD_DIM + dims
    tl.store(k_places, first_out, mask=is_key & inside)
    tl.store(k_places + HALF, second_out, mask=is_key & inside)
    v_places = v_cache + (slot * NUM_KV_HEADS + heads[:, None] - NUM_HEADS - NUM_KV_HEADS) * HEAD_DIM + dims
    tl.store(v_places, first_in, mask=is_value & inside)
    tl.store(v_places + HALF, second_in, mask=is_value & inside)
