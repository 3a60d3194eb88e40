"""The operations of a forward pass in plain torch: the CPU backend, and what every kernel is tested against.

Shape legend: T tokens, R rows (sequences), Hq query heads, Hk key/value heads (Hq is a multiple of Hk), D head_dim,
I intermediate size, S token places, P pages of the longest page table. A slot is page * page_size + offset.
A cache is one layer's K or V: [num_pages, page_size, Hk, D], contiguous. Places that no token was stored to may hold
anything, NaN included; nothing here lets them reach a result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def copy_kv(k_cache: Tensor, v_cache: Tensor, src_slots: Tensor, dst_slots: Tensor) -> None:
    """Copies slots within the caches: src_slots, dst_slots [C] int64, no slot in both, dst_slots unique."""
    for places in (_places(k_cache), _places(v_cache)):
        places.index_copy_(0, dst_slots, places.index_select(0, src_slots))


def extend_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    page_tables: Tensor,
    seq_lens: Tensor,
    extend_starts: Tensor,
    seq_lens_host: list[int],
    extend_lens_host: list[int],
    scale: float,
) -> Tensor:
    """Causal attention of ragged rows over their pages: q [T, Hq, D] -> [T, Hq, D].

    page_tables [R, P], seq_lens [R] and extend_starts [R + 1] int64; the last two are the host lists once more, for a
    kernel to read on the device. The i-th new token of a row with n tokens, e of them new, stands at position
    n - e + i and sees positions 0 to that one. All n places of a row must have been stored.
    """
    page_size = k_cache.shape[1]
    out = torch.empty_like(q)
    start = 0
    for row, (seq_len, extend_len) in enumerate(zip(seq_lens_host, extend_lens_host, strict=True)):
        pages = page_tables[row, : -(-seq_len // page_size)]
        k = _places(k_cache.index_select(0, pages))[:seq_len]
        v = _places(v_cache.index_select(0, pages))[:seq_len]
        has_prefix = seq_len > extend_len
        mask = _causal_mask(seq_len, extend_len, q.device) if has_prefix and extend_len > 1 else None
        rows = slice(start, start + extend_len)
        out[rows] = F.scaled_dot_product_attention(
            q[None, rows].transpose(1, 2),
            k[None].transpose(1, 2),
            v[None].transpose(1, 2),
            attn_mask=mask,
            is_causal=not has_prefix,
            scale=scale,
            enable_gqa=True,
        )[0].transpose(0, 1)
        start += extend_len
    return out


def plan_decode(page_tables: Tensor, seq_lens: Tensor, max_seq_len: int, page_size: int) -> tuple[Tensor, Tensor]:
    """What `decode_attention` needs and all layers share: slots [R * S] int64 and mask [R, 1, 1, S] bool.

    page_tables [R, P], seq_lens [R] int64; S is max_seq_len, the longest of them. A place behind a row's end gets the
    slot of the row's first token, which was stored: masked scores of finite keys and values add exactly nothing,
    those of unwritten memory might.
    """
    positions = torch.arange(max_seq_len, device=page_tables.device)
    slots = page_tables[:, positions // page_size] * page_size + positions % page_size
    mask = positions < seq_lens[:, None]
    return torch.where(mask, slots, slots[:, :1]).flatten(), mask[:, None, None]


def decode_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention of one token per row over the row's whole sequence: q [R, Hq, D] -> [R, Hq, D].

    slots and mask come from `plan_decode`. The query heads of one key/value head stand as its queries, so that keys
    and values are read once and never repeated.
    """
    num_rows, num_q_heads, head_dim = q.shape
    num_kv_heads = k_cache.shape[2]
    k = _places(k_cache).index_select(0, slots).view(num_rows, -1, num_kv_heads, head_dim)
    v = _places(v_cache).index_select(0, slots).view(num_rows, -1, num_kv_heads, head_dim)
    grouped = q.reshape(num_rows, num_kv_heads, num_q_heads // num_kv_heads, head_dim)
    out = F.scaled_dot_product_attention(grouped, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale)
    return out.reshape(num_rows, num_q_heads, head_dim)


def _places(cache: Tensor) -> Tensor:
    """[num_pages, page_size, Hk, D] as [num_pages * page_size, Hk, D], sharing memory."""
    return cache.view(-1, cache.shape[2], cache.shape[3])


def _causal_mask(seq_len: int, extend_len: int, device: torch.device) -> Tensor:
    """[extend_len, seq_len] bool, True where the query may look."""
    keys = torch.arange(seq_len, device=device)
    return keys <= keys[seq_len - extend_len :, None]
