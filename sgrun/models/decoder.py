"""The forward pass of Llama-like decoders (Llama, Mistral, Qwen2, Qwen3) over paged K/V.

Shape legend: T new tokens, L rows of wanted logits, H hidden_size, Hq query heads, Hk key/value heads, D head_dim,
V vocab_size. Rows and pages: see `sgrun.models.inputs`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sgrun.models.config import ModelConfig, RopeConfig
from sgrun.models.inputs import ForwardInputs
from sgrun.models.weights import DecoderWeights, LayerWeights
from sgrun_kernels import reference as ops


class Decoder:
    """Weights plus the way through them. `kv` tensors have `config.num_layers` layers and the decoder's dtype."""

    def __init__(self, config: ModelConfig, weights: DecoderWeights, device: torch.device, dtype: torch.dtype) -> None:
        self.config = config
        self.weights = weights
        self.device = device
        self.dtype = dtype
        self._inv_freq = rope_frequencies(config.rope, config.head_dim).to(device)

    @torch.inference_mode()
    def forward(self, inputs: ForwardInputs, kv: Tensor) -> Tensor:
        """Logits [L, V] float32 of the tokens `inputs.logits_rows`; writes `kv` [num_layers, 2, num_pages, page_size,
        Hk, D] at store_slots and copy_dst."""
        step = self._step(inputs, page_size=kv.shape[3])
        residual = F.embedding(inputs.token_ids, self.weights.embed)  # [T, H]
        delta = torch.zeros_like(residual)
        for index, layer in enumerate(self.weights.layers):
            delta, residual = self._layer(layer, delta, residual, step, kv[index, 0], kv[index, 1])
        rows = inputs.logits_rows
        hidden, _ = ops.add_rms_norm(delta[rows], residual[rows], self.weights.norm, self.config.rms_norm_eps)
        return ops.linear(hidden, self.weights.lm_head).float()

    def _layer(
        self, weights: LayerWeights, delta: Tensor, residual: Tensor, step: _Step, k_cache: Tensor, v_cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(what this layer adds, the residual stream before that), both [T, H]."""
        eps = self.config.rms_norm_eps
        hidden, residual = ops.add_rms_norm(delta, residual, weights.input_norm, eps)
        attended = self._attention(weights, hidden, step, k_cache, v_cache)
        hidden, residual = ops.add_rms_norm(attended, residual, weights.mlp_norm, eps)
        inner = ops.silu_mul(ops.linear(hidden, weights.gate_up, weights.gate_up_bias))
        return ops.linear(inner, weights.down, weights.down_bias), residual

    def _attention(
        self, weights: LayerWeights, hidden: Tensor, step: _Step, k_cache: Tensor, v_cache: Tensor
    ) -> Tensor:
        config = self.config
        num_heads, num_kv_heads = config.num_heads, config.num_kv_heads
        qkv = ops.linear(hidden, weights.qkv, weights.qkv_bias).view(len(hidden), -1, config.head_dim)
        qk, v = torch.split(qkv, [num_heads + num_kv_heads, num_kv_heads], dim=1)  # [T, Hq + Hk, D], [T, Hk, D]
        if weights.q_norm is not None and weights.k_norm is not None:
            q, k = torch.split(qk, [num_heads, num_kv_heads], dim=1)
            eps = config.rms_norm_eps
            qk = torch.cat((ops.rms_norm(q, weights.q_norm, eps), ops.rms_norm(k, weights.k_norm, eps)), dim=1)
        ops.rope_(qk, step.cos, step.sin)
        q, k = torch.split(qk, [num_heads, num_kv_heads], dim=1)
        inputs = step.inputs
        ops.store_kv(k, v, k_cache, v_cache, inputs.store_slots)
        if len(inputs.copy_src):
            ops.copy_kv(k_cache, v_cache, inputs.copy_src, inputs.copy_dst)
        parts = []
        if inputs.num_extends:
            parts.append(self._extend_attention(q[: step.num_extend_tokens], k_cache, v_cache, inputs))
        if step.decode_plan is not None:
            parts.append(
                ops.decode_attention(
                    q[step.num_extend_tokens :], k_cache, v_cache, *step.decode_plan, scale=config.head_dim**-0.5
                )
            )
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return ops.linear(attended.view(len(hidden), -1), weights.o, weights.o_bias)

    def _extend_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, inputs: ForwardInputs) -> Tensor:
        num_extends = inputs.num_extends
        return ops.extend_attention(
            q,
            k_cache,
            v_cache,
            inputs.page_tables[:num_extends],
            inputs.seq_lens[:num_extends],
            inputs.extend_starts[: num_extends + 1],
            inputs.seq_lens_host[:num_extends],
            inputs.extend_lens_host[:num_extends],
            scale=self.config.head_dim**-0.5,
        )

    def _step(self, inputs: ForwardInputs, page_size: int) -> _Step:
        num_extends = inputs.num_extends
        decode_lens = inputs.seq_lens_host[num_extends:]
        plan = None
        if decode_lens:
            plan = ops.plan_decode(
                inputs.page_tables[num_extends:], inputs.seq_lens[num_extends:], max(decode_lens), page_size
            )
        cos, sin = self._rotations(inputs.positions)
        return _Step(inputs, cos, sin, sum(inputs.extend_lens_host[:num_extends]), plan)

    def _rotations(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [T, 1, D] as `rope_` wants them; angles in float32, as in transformers."""
        angles = positions[:, None, None].float() * self._inv_freq
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), dim=-1).to(self.dtype), torch.cat((-sin, sin), dim=-1).to(self.dtype)


@dataclass(frozen=True, slots=True)
class _Step:
    """What all layers of one forward share."""

    inputs: ForwardInputs
    cos: Tensor  # [T, 1, D]
    sin: Tensor  # [T, 1, D], negative in its first half
    num_extend_tokens: int
    decode_plan: tuple[Tensor, Tensor] | None  # None without decode rows


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
