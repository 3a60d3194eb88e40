"""The operations of `reference` on a GPU: the same names and signatures."""

from __future__ import annotations

from sgrun_kernels.activation import silu_mul
from sgrun_kernels.decode_attention import decode_attention, plan_decode
from sgrun_kernels.embedding import embed
from sgrun_kernels.extend_attention import extend_attention, plan_extend
from sgrun_kernels.kv import copy_kv
from sgrun_kernels.linear import add_norm_gate_up, add_norm_linear, linear
from sgrun_kernels.norms import add_rms_norm
from sgrun_kernels.rotary import norm_rope_store, rotations

__all__ = [
    "add_norm_gate_up",
    "add_norm_linear",
    "add_rms_norm",
    "copy_kv",
    "decode_attention",
    "embed",
    "extend_attention",
    "linear",
    "norm_rope_store",
    "plan_decode",
    "plan_extend",
    "rotations",
    "silu_mul",
]
