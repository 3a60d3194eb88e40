"""The operations of `reference` on a GPU: the same names and signatures."""

from __future__ import annotations

from sgrun_kernels.activation import silu_mul
from sgrun_kernels.decode_attention import decode_attention
from sgrun_kernels.decode_plan import plan_decode
from sgrun_kernels.embedding import embed_norm
from sgrun_kernels.extend_attention import extend_attention, plan_extend
from sgrun_kernels.kv import copy_kv
from sgrun_kernels.linear import linear_add_norm, normed_gate_up, normed_linear
from sgrun_kernels.norms import add_rms_norm
from sgrun_kernels.rotary import norm_rope_store, rotations

__all__ = [
    "add_rms_norm",
    "copy_kv",
    "decode_attention",
    "embed_norm",
    "extend_attention",
    "linear_add_norm",
    "normed_gate_up",
    "normed_linear",
    "norm_rope_store",
    "plan_decode",
    "plan_extend",
    "rotations",
    "silu_mul",
]
