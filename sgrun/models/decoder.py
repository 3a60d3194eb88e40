"""The forward pass of Llama-like decoders (Llama, Mistral, Qwen2, Qwen3) over paged K/V.

Shape legend: T new tokens, L rows of wanted logits, H hidden_size, Hq query heads, Hk key/value heads, D head_dim,
V vocab_size. Rows and pages: see `sgrun.models.inputs`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sgrun.models.config import ModelConfig, RopeConfig
from sgrun.models.inputs import ForwardInputs
from sgrun.models.operations import Operations
from sgrun.models.weights import DecoderWeights
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
        plan = self.plan(inputs, kv)
        between = self.start(inputs.token_ids, inputs.positions, inputs.store_slots, kv)
        for layer in range(self.config.num_layers):
            between = self.go_on(layer, between, self.attend(between.q, plan, kv[layer]), kv)
        return self.logits(between.hidden, inputs.logits_rows)

    # Its parts. What stands between two attentions depends on the number of tokens alone, whatever the rows are.

    def plan(self, inputs: ForwardInputs, kv: Tensor) -> AttentionPlan:
        """What the attentions of all layers share."""
        num_heads, num_extends, k_cache = self.config.num_heads, inputs.num_extends, kv[0, 0]
        page_tables, seq_lens = inputs.page_tables, inputs.seq_lens
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
        return AttentionPlan(inputs, sum(inputs.extend_lens_host), extend_plan, decode_plan)

    def start(self, token_ids: Tensor, positions: Tensor, slots: Tensor, kv: Tensor) -> Between:
        """What stands in front of the first attention, of tokens [T]; stores their keys and values to `slots`."""
        layer = self.weights.layers[0]
        cos, sin = self.ops.rotations(positions, self._inv_freq, self.dtype)
        hidden = self.ops.embed_norm(token_ids, self.weights.embed, layer.input_norm, self.config.rms_norm_eps)
        return self._stored(0, hidden, cos, sin, slots, kv)

    def attend(self, q: Tensor, plan: AttentionPlan, kv: Tensor) -> Tensor:
        """[T, Hq * D] of queries q [T, Hq, D] over the `kv` of one layer."""
        ops, inputs, scale = self.ops, plan.inputs, self.config.head_dim**-0.5
        k_cache, v_cache = kv
        if len(inputs.copy_src):
            ops.copy_kv(k_cache, v_cache, inputs.copy_src, inputs.copy_dst)
        parts = []
        if plan.extends is not None:
            parts.append(ops.extend_attention(q[: plan.num_extend_tokens], k_cache, v_cache, plan.extends, scale))
        if plan.decodes is not None:
            parts.append(ops.decode_attention(q[plan.num_extend_tokens :], k_cache, v_cache, plan.decodes, scale))
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return attended.view(len(q), -1)

    def go_on(self, layer: int, between: Between, attended: Tensor, kv: Tensor) -> Between:
        """From the attention of a layer to that of the next, or to the end."""
        ops, weights = self.ops, self.weights.layers[layer]
        is_last = layer == self.config.num_layers - 1
        next_norm = self.weights.norm if is_last else self.weights.layers[layer + 1].input_norm
        hidden = ops.linear_add_norm(attended, weights.o, weights.o_bias, between.hidden, weights.mlp_norm)
        inner = ops.normed_gate_up(hidden, weights.gate_up, weights.gate_up_bias)
        hidden = ops.linear_add_norm(inner, weights.down, weights.down_bias, hidden, next_norm)
        if is_last:
            return replace(between, hidden=hidden)
        return self._stored(layer + 1, hidden, between.cos, between.sin, between.slots, kv)

    def logits(self, hidden: Hidden, rows: Tensor | None) -> Tensor:
        """[L, V] of the last `hidden` at `rows` [L], or at all."""
        return self.ops.normed_linear(hidden if rows is None else hidden.rows(rows), self.weights.lm_head)

    def _stored(self, layer: int, hidden: Hidden, cos: Tensor, sin: Tensor, slots: Tensor, kv: Tensor) -> Between:
        weights, (k_cache, v_cache) = self.weights.layers[layer], kv[layer]
        qkv = self.ops.normed_linear(hidden, weights.qkv, weights.qkv_bias)
        heads = qkv.view(len(qkv), -1, self.config.head_dim)
        eps = self.config.rms_norm_eps
        q = self.ops.norm_rope_store(heads, weights.q_norm, weights.k_norm, eps, cos, sin, k_cache, v_cache, slots)
        return Between(hidden, q, cos, sin, slots)


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What the attentions of one forward share."""

    inputs: ForwardInputs
    num_extend_tokens: int
    extends: Any  # of the operations' own; None without extends
    decodes: Any  # likewise, of decodes


@dataclass(frozen=True, slots=True)
class Between:
    """What stands in front of an attention, or behind the last: of tokens [T]."""

    hidden: Hidden
    q: Tensor  # [T, Hq, D]
    cos: Tensor  # [T, 1, D]
    sin: Tensor  # [T, 1, D], negative in its first half
    slots: Tensor  # [T]


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
