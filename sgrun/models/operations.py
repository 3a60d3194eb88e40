"""What a decoder asks of its operations: `sgrun_kernels.reference` on a CPU, `sgrun_kernels.triton_ops` on a GPU.

`reference` says what each operation computes. Plans are opaque: each module has its own.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Protocol

import torch
from torch import Tensor

from sgrun.errors import ConfigError
from sgrun_kernels import reference
from sgrun_kernels.hidden import Hidden


class Operations(Protocol):
    """Both modules have these functions."""

    def embed_norm(self, token_ids: Tensor, weight: Tensor, norm: Tensor, eps: float) -> Hidden: ...

    def linear_add_norm(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, hidden: Hidden, norm: Tensor
    ) -> Hidden: ...

    def normed_linear(self, hidden: Hidden, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...

    def normed_gate_up(self, hidden: Hidden, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...

    def rotations(self, positions: Tensor, inv_freq: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]: ...

    def norm_rope_store(
        self,
        qkv: Tensor,
        q_norm: Tensor | None,
        k_norm: Tensor | None,
        eps: float,
        cos: Tensor,
        sin: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        slots: Tensor,
    ) -> Tensor: ...

    def copy_kv(self, k_cache: Tensor, v_cache: Tensor, src_slots: Tensor, dst_slots: Tensor) -> None: ...

    def plan_extend(
        self,
        page_tables: Tensor,
        seq_lens: Tensor,
        extend_starts: Tensor,
        seq_lens_host: list[int],
        extend_lens_host: list[int],
        k_cache: Tensor,
        num_q_heads: int,
    ) -> Any: ...

    def extend_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: Any, scale: float) -> Tensor: ...

    def plan_decode(
        self,
        page_tables: Tensor,
        seq_lens: Tensor,
        max_seq_len: int,
        k_cache: Tensor,
        num_q_heads: int,
        *,
        shares_prefixes: bool = False,
    ) -> Any: ...

    def decode_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: Any, scale: float) -> Tensor: ...


def operations_for(device: torch.device) -> Operations:
    """The operations that run on `device`. Raises ConfigError where a GPU is to be used without triton."""
    if device.type == "cpu":
        return reference
    if importlib.util.find_spec("triton") is None:
        raise ConfigError(f"device is '{device}', which needs triton; install sgrun[gpu], or use device='cpu'")
    from sgrun_kernels import triton_ops  # only where a GPU is used

    return triton_ops
