"""The forward pass of Llama-like decoders (Llama, Mistral, Qwen2, Qwen3) over paged K/V.

Shape legend: T new tokens, L rows of wanted logits, H hidden_size, Hq query heads, Hk key/value heads, D head_dim,
V vocab_size. Rows and pages: see `sgrun.models.inputs`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgrun.models.config import ModelConfig, RopeConfig
from sgrun.models.inputs import ForwardInputs
from sgrun.models.operations import Operations
from sgrun.models.weights import DecoderWeights, LayerWeights
from sgrun_kernels import reference
from sgrun_kernels.hidden import Hidden


class Decoder:
    """Weights plus the way through them. `kv` tensors have `config.num_layers` layers and the decoder's dtype."""

    def __init__(
        self,
        config: ModelConfig,
        weights: DecoderWeights,
        device: torch.device,
        dtype: torch.dtype,
        ops: Operations = reference,
    ) -> None:
        self.config = config
        self.weights = weights
        self.device = device
        self.dtype = dtype
        self.ops = ops
        self._inv_freq = rope_frequencies(config.rope, config.head_dim).to(device)

    @torch.inference_mode()
    def forward(self, inputs: ForwardInputs, kv: Tensor) -> Tensor:
        """Logits [L, V] in the decoder's dtype of the tokens `inputs.logits_rows`; writes `kv` [num_layers, 2,
        num_pages, page_size, Hk, D] at store_slots and copy_dst.

        Without extends nothing waits for the device, and shapes depend on the inputs' shapes and on `max_decode_len`
        alone: such a forward can be captured in a CUDA graph.
        """
        step = self._step(inputs, kv[0, 0])
        weights, eps = self.weights, self.config.rms_norm_eps
        hidden = self.ops.embed_norm(inputs.token_ids, weights.embed, weights.layers[0].input_norm, eps)
        next_norms = [*(layer.input_norm for layer in weights.layers[1:]), weights.norm]
        for index, (layer, next_norm) in enumerate(zip(weights.layers, next_norms, strict=True)):
            hidden = self._layer(layer, next_norm, hidden, step, kv[index, 0], kv[index, 1])
        if inputs.logits_rows is not None:
            hidden = hidden.rows(inputs.logits_rows)
        return self.ops.normed_linear(hidden, weights.lm_head)

    def _layer(
        self, weights: LayerWeights, next_norm: Tensor, hidden: Hidden, step: _Step, k_cache: Tensor, v_cache: Tensor
    ) -> Hidden:
        """The residual stream behind this layer, with the norm in front of the next."""
        ops, eps = self.ops, self.config.rms_norm_eps
        qkv = ops.normed_linear(hidden, weights.qkv, weights.qkv_bias)
        attended = self._attention(weights, qkv, step, k_cache, v_cache)
        hidden = ops.linear_add_norm(attended, weights.o, weights.o_bias, hidden.total, weights.mlp_norm, eps)
        inner = ops.normed_gate_up(hidden, weights.gate_up, weights.gate_up_bias)
        return ops.linear_add_norm(inner, weights.down, weights.down_bias, hidden.total, next_norm, eps)

    def _attention(self, weights: LayerWeights, qkv: Tensor, step: _Step, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        """[T, Hq * D] of qkv [T, (Hq + 2 * Hk) * D]."""
        ops, inputs, head_dim = self.ops, step.inputs, self.config.head_dim
        q = ops.norm_rope_store(
            qkv.view(len(qkv), -1, head_dim),
            weights.q_norm,
            weights.k_norm,
            self.config.rms_norm_eps,
            step.cos,
            step.sin,
            k_cache,
            v_cache,
            inputs.store_slots,
        )
        if len(inputs.copy_src):
            ops.copy_kv(k_cache, v_cache, inputs.copy_src, inputs.copy_dst)
        num_extend_tokens, scale = step.num_extend_tokens, head_dim**-0.5
        parts = []
        if step.extend_plan is not None:
            parts.append(ops.extend_attention(q[:num_extend_tokens], k_cache, v_cache, step.extend_plan, scale))
        if step.decode_plan is not None:
            parts.append(ops.decode_attention(q[num_extend_tokens:], k_cache, v_cache, step.decode_plan, scale))
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return attended.view(len(qkv), -1)

    def _step(self, inputs: ForwardInputs, k_cache: Tensor) -> _Step:
        num_heads, num_extends = self.config.num_heads, inputs.num_extends
        page_tables, seq_lens = inputs.page_tables, inputs.seq_lens
        cos, sin = self.ops.rotations(inputs.positions, self._inv_freq, self.dtype)
        extend_plan = decode_plan = None
        if num_extends:
            extend_plan = self.ops.plan_extend(
                page_tables[:num_extends],
                seq_lens[:num_extends],
                inputs.extend_starts[: num_extends + 1],
                inputs.seq_lens_host,
                inputs.extend_lens_host,
                k_cache,
                num_heads,
            )
        if num_extends < len(seq_lens):
            decode_plan = self.ops.plan_decode(
                page_tables[num_extends:],
                seq_lens[num_extends:],
                inputs.max_decode_len,
                k_cache,
                num_heads,
                shares_prefixes=inputs.decodes_share,
            )
        return _Step(inputs, cos, sin, sum(inputs.extend_lens_host), extend_plan, decode_plan)


@dataclass(frozen=True, slots=True)
class _Step:
    """What all layers of one forward share."""

    inputs: ForwardInputs
    cos: Tensor  # [T, 1, D]
    sin: Tensor  # [T, 1, D], negative in its first half
    num_extend_tokens: int
    extend_plan: Any  # of the operations' own; None without extends
    decode_plan: Any  # likewise, of decodes


def rope_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """Angle per position of each pair of dimensions: [head_dim / 2] float32 (https://arxiv.org/abs/2104.09864).

    llama3 divides wavelengths over original_context_len / low_freq_factor by `factor`, keeps those under
    original_context_len / high_freq_factor and blends in between (Llama 3.1 model card).
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    inv_freq: Tensor = 1.0 / rope.theta**exponents
    if rope.kind == "linear":
        return inv_freq / rope.factor
    if rope.kind == "factors":
        return inv_freq / torch.tensor(rope.factors, dtype=torch.float32)
    if rope.kind == "llama3":
        turns = rope.original_context_len * inv_freq / (2 * math.pi)  # rotations over the original context
        kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        kept = kept.clamp(0.0, 1.0)
        return (1.0 - kept) * inv_freq / rope.factor + kept * inv_freq
    return inv_freq
