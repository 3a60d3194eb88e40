"""The operations of a forward pass in plain torch: the CPU backend, and what every kernel is tested against.

Shape legend: T tokens, R rows (sequences), Hq query heads, Hk key/value heads (Hq is a multiple of Hk), D head_dim,
H hidden size, I intermediate size, S token places, P pages of the longest page table. A slot is page * page_size +
offset. A cache is one layer's K or V: [num_pages, page_size, Hk, D], contiguous. Places that no token was stored to may
hold anything, NaN included; nothing here lets them reach a result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sgrun_kernels.hidden import Hidden


def embed_norm(token_ids: Tensor, weight: Tensor, norm: Tensor, eps: float) -> Hidden:
    """Rows `token_ids` [T] of `weight` [V, H], and their norm by `norm` [H]."""
    total = F.embedding(token_ids, weight)
    return Hidden(total, rms_norm(total, norm, eps), eps)


def can_pack_linear(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `pack_linear` pays: bfloat16 on a CPU for which oneDNN has kernels."""
    return dtype == torch.bfloat16 and device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_linear(weight: Tensor) -> Tensor:
    """`weight` [N, K] in the blocked layout that oneDNN multiplies from, for `linear` alone; the results are the same.

    Reading it takes 30% less time than the plain layout at 1 to 32 rows. torch offers the layout to its own compiler
    only, hence the private operators.
    """
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    assert isinstance(packed, Tensor)
    return packed


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: x [T, K], weight [N, K] plain or packed, bias [N]; returns [T, N]."""
    if not weight.is_mkldnn:
        return F.linear(x, weight, bias)
    if not len(x):
        return x.new_empty(0, weight.shape[0])
    result = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    assert isinstance(result, Tensor)
    return result


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension: x [..., N], weight [N]; computed in float32."""
    return F.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual), all [T, N]; mutates nothing."""
    residual = residual + x
    return F.rms_norm(residual, weight.shape, weight, eps), residual


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, where gate_up [T, 2 * I] holds gate, then up; returns [T, I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def linear_add_norm(x: Tensor, weight: Tensor, bias: Tensor | None, hidden: Hidden, norm: Tensor) -> Hidden:
    """linear(x, weight, bias) + hidden.total, and its norm: x [T, K], weight [H, K], hidden [T, H], norm [H]."""
    normed, total = add_rms_norm(linear(x, weight, bias), hidden.total, norm, hidden.eps)
    return Hidden(total, normed, hidden.eps)


def normed_linear(hidden: Hidden, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """linear(hidden.normed, weight, bias): weight [N, H]; returns [T, N]."""
    return linear(hidden.normed, weight, bias)


def normed_gate_up(hidden: Hidden, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """silu_mul of that product: weight [2 * I, H]; returns [T, I]."""
    return silu_mul(linear(hidden.normed, weight, bias))


def rotations(positions: Tensor, inv_freq: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin [T, 1, D] in `dtype`, as `rope_` wants them: positions [T], inv_freq [D / 2] float32.

    Angles are float32 products, as in transformers.
    """
    angles = positions[:, None, None].float() * inv_freq
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)


def rope_(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotates x [T, heads, D] in place: dimension i pairs with i + D / 2 (the half-split layout).

    cos and sin [T, 1, D] in x's dtype; sin is negative in its first half, which makes the rotation one roll, one
    product and one fused multiply-add.
    """
    rolled = x.roll(x.shape[-1] // 2, -1)
    x.mul_(cos).addcmul_(rolled, sin)


def store_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """Writes k and v [T, Hk, D] to `slots` [T] int64 (unique) of the caches."""
    _places(k_cache).index_copy_(0, slots, k)
    _places(v_cache).index_copy_(0, slots, v)


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

    qkv [T, Hq + 2 * Hk, D] holds the heads of queries, keys, values; it is used up. cos and sin come from
    `rotations`; slots [T] as in `store_kv`.
    """
    num_kv_heads = k_cache.shape[2]
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    qk, v = torch.split(qkv, [num_heads + num_kv_heads, num_kv_heads], dim=1)
    if q_norm is not None and k_norm is not None:
        q, k = torch.split(qk, [num_heads, num_kv_heads], dim=1)
        qk = torch.cat((rms_norm(q, q_norm, eps), rms_norm(k, k_norm, eps)), dim=1)
    rope_(qk, cos, sin)
    q, k = torch.split(qk, [num_heads, num_kv_heads], dim=1)
    store_kv(k, v, k_cache, v_cache, slots)
    return q


def copy_kv(k_cache: Tensor, v_cache: Tensor, src_slots: Tensor, dst_slots: Tensor) -> None:
    """Copies slots within the caches: src_slots, dst_slots [C] int64, no slot in both, dst_slots unique."""
    for places in (_places(k_cache), _places(v_cache)):
        places.index_copy_(0, dst_slots, places.index_select(0, src_slots))


@dataclass(frozen=True, slots=True)
class ExtendPlan:
    rows: list[_ExtendRow]


@dataclass(frozen=True, slots=True)
class _ExtendRow:
    tokens: slice  # of the step's tokens
    seq_len: int
    pages: Tensor  # [ceil(seq_len / page_size)]
    mask: Tensor | None  # [extend_len, seq_len] bool, True where the query may look; None: all, or plain causal
    is_causal: bool


def plan_extend(
    page_tables: Tensor,
    seq_lens: Tensor,
    extend_starts: Tensor,
    seq_lens_host: list[int],
    extend_lens_host: list[int],
    k_cache: Tensor,
    num_q_heads: int,
) -> ExtendPlan:
    """What `extend_attention` needs and all layers share, for caches of the shape of `k_cache`.

    page_tables [R, P], seq_lens [R] and extend_starts [R + 1]; the last two are the host lists once more, for a kernel
    to read on the device.
    """
    page_size = k_cache.shape[1]
    rows = []
    start = 0
    for row, (seq_len, extend_len) in enumerate(zip(seq_lens_host, extend_lens_host, strict=True)):
        has_prefix = seq_len > extend_len
        rows.append(
            _ExtendRow(
                tokens=slice(start, start + extend_len),
                seq_len=seq_len,
                pages=page_tables[row, : -(-seq_len // page_size)],
                mask=causal_mask(seq_len, extend_len, page_tables.device) if has_prefix and extend_len > 1 else None,
                is_causal=not has_prefix,
            )
        )
        start += extend_len
    return ExtendPlan(rows)


def extend_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: ExtendPlan, scale: float) -> Tensor:
    """Causal attention of ragged rows over their pages: q [T, Hq, D] -> [T, Hq, D].

    The i-th new token of a row with n tokens, e of them new, stands at position n - e + i and sees positions 0 to that
    one. All n places of a row must have been stored.
    """
    out = torch.empty_like(q)
    for row in plan.rows:
        k = _places(k_cache.index_select(0, row.pages))[: row.seq_len]
        v = _places(v_cache.index_select(0, row.pages))[: row.seq_len]
        out[row.tokens] = F.scaled_dot_product_attention(
            q[None, row.tokens].transpose(1, 2),
            k[None].transpose(1, 2),
            v[None].transpose(1, 2),
            attn_mask=row.mask,
            is_causal=row.is_causal,
            scale=scale,
            enable_gqa=True,
        )[0].transpose(0, 1)
    return out


@dataclass(frozen=True, slots=True)
class DecodePlan:
    slots: Tensor  # [R * S] int64
    mask: Tensor  # [R, 1, 1, S] bool


def plan_decode(
    page_tables: Tensor,
    seq_lens: Tensor,
    max_seq_len: int,
    k_cache: Tensor,
    num_q_heads: int,
    *,
    shares_prefixes: bool = False,  # here each row is read by itself
) -> DecodePlan:
    """What `decode_attention` needs and all layers share, for caches of the shape of `k_cache`.

    page_tables [R, P], seq_lens [R]; S is max_seq_len, no less than the longest of them. A place behind a row's end
    gets the slot of the row's first token, which was stored: masked scores of finite keys and values add exactly
    nothing, those of unwritten memory might.
    """
    page_size = k_cache.shape[1]
    positions = torch.arange(max_seq_len, device=page_tables.device)
    slots = page_tables[:, positions // page_size] * page_size + positions % page_size
    mask = positions < seq_lens[:, None]
    return DecodePlan(torch.where(mask, slots, slots[:, :1]).flatten(), mask[:, None, None])


def decode_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: DecodePlan, scale: float) -> Tensor:
    """Attention of one token per row over the row's whole sequence: q [R, Hq, D] -> [R, Hq, D].

    The query heads of one key/value head stand as its queries, so that keys and values are read once and never
    repeated.
    """
    num_rows, num_q_heads, head_dim = q.shape
    num_kv_heads = k_cache.shape[2]
    k = _places(k_cache).index_select(0, plan.slots).view(num_rows, -1, num_kv_heads, head_dim)
    v = _places(v_cache).index_select(0, plan.slots).view(num_rows, -1, num_kv_heads, head_dim)
    grouped = q.reshape(num_rows, num_kv_heads, num_q_heads // num_kv_heads, head_dim)
    out = F.scaled_dot_product_attention(
        grouped, k.transpose(1, 2), v.transpose(1, 2), attn_mask=plan.mask, scale=scale
    )
    return out.reshape(num_rows, num_q_heads, head_dim)


def _places(cache: Tensor) -> Tensor:
    """[num_pages, page_size, Hk, D] as [num_pages * page_size, Hk, D], sharing memory."""
    return cache.view(-1, cache.shape[2], cache.shape[3])


def causal_mask(seq_len: int, extend_len: int, device: torch.device) -> Tensor:
    """[extend_len, seq_len] bool, True where the query may look."""
    keys = torch.arange(seq_len, device=device)
    return keys <= keys[seq_len - extend_len :, None]
