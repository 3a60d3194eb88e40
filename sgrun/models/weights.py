"""A decoder's weights: how its parameters are fused, and where each named tensor of a checkpoint belongs.

Shape legend: H hidden_size, D head_dim, Hq query heads, Hk key/value heads, I intermediate_size, V vocab_size.
Matrices are [out, in], as torch.nn.functional.linear wants them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sgrun.models.config import ModelConfig
from sgrun_kernels.reference import pack_linear


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Matrices are plain, or all packed for `sgrun_kernels`' linear."""

    input_norm: Tensor  # [H]
    qkv: Tensor  # [(Hq + 2 * Hk) * D, H]: queries, keys, values
    qkv_bias: Tensor | None
    q_norm: Tensor | None  # [D]
    k_norm: Tensor | None  # [D]
    o: Tensor  # [H, Hq * D]
    o_bias: Tensor | None
    mlp_norm: Tensor  # [H]
    gate_up: Tensor  # [2 * I, H]: gate, then up
    gate_up_bias: Tensor | None
    down: Tensor  # [H, I]
    down_bias: Tensor | None


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    embed: Tensor  # [V, H]
    layers: list[LayerWeights]
    norm: Tensor  # [H]
    lm_head: Tensor  # [V, H]; the very tensor `embed` when tied


def empty_weights(config: ModelConfig, dtype: torch.dtype, device: torch.device | str) -> DecoderWeights:
    """Uninitialised weights; on device "meta" just their shapes."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    hidden, inner = config.hidden_size, config.intermediate_size
    q_rows = config.num_heads * config.head_dim
    qkv_rows = q_rows + 2 * config.num_kv_heads * config.head_dim
    layers = [
        LayerWeights(
            input_norm=empty(hidden),
            qkv=empty(qkv_rows, hidden),
            qkv_bias=empty(qkv_rows) if config.qkv_bias else None,
            q_norm=empty(config.head_dim) if config.qk_norm else None,
            k_norm=empty(config.head_dim) if config.qk_norm else None,
            o=empty(hidden, q_rows),
            o_bias=empty(hidden) if config.o_bias else None,
            mlp_norm=empty(hidden),
            gate_up=empty(2 * inner, hidden),
            gate_up_bias=empty(2 * inner) if config.mlp_bias else None,
            down=empty(hidden, inner),
            down_bias=empty(hidden) if config.mlp_bias else None,
        )
        for _ in range(config.num_layers)
    ]
    embed = empty(config.vocab_size, hidden)
    lm_head = embed if config.tie_word_embeddings else empty(config.vocab_size, hidden)
    return DecoderWeights(embed=embed, layers=layers, norm=empty(hidden), lm_head=lm_head)


def parameters_by_name(config: ModelConfig, weights: DecoderWeights) -> dict[str, Tensor]:
    """Hugging Face's name of every checkpoint tensor -> the part of `weights` that it fills (views)."""
    named = {"model.embed_tokens.weight": weights.embed, "model.norm.weight": weights.norm}
    if not config.tie_word_embeddings:
        named["lm_head.weight"] = weights.lm_head
    for index, layer in enumerate(weights.layers):
        for name, tensor in _layer_parameters(config, layer).items():
            named[f"model.layers.{index}.{name}"] = tensor
    return named


def _layer_parameters(config: ModelConfig, layer: LayerWeights) -> dict[str, Tensor]:
    kv_rows = config.num_kv_heads * config.head_dim
    qkv_rows = [config.num_heads * config.head_dim, kv_rows, kv_rows]
    qkv_names = [f"self_attn.{part}_proj" for part in "qkv"]
    optional = {
        **_parts(qkv_names, "weight", layer.qkv, qkv_rows),
        **_parts(qkv_names, "bias", layer.qkv_bias, qkv_rows),
        **_parts(["mlp.gate_proj", "mlp.up_proj"], "weight", layer.gate_up, [config.intermediate_size] * 2),
        **_parts(["mlp.gate_proj", "mlp.up_proj"], "bias", layer.gate_up_bias, [config.intermediate_size] * 2),
        "input_layernorm.weight": layer.input_norm,
        "post_attention_layernorm.weight": layer.mlp_norm,
        "self_attn.q_norm.weight": layer.q_norm,
        "self_attn.k_norm.weight": layer.k_norm,
        "self_attn.o_proj.weight": layer.o,
        "self_attn.o_proj.bias": layer.o_bias,
        "mlp.down_proj.weight": layer.down,
        "mlp.down_proj.bias": layer.down_bias,
    }
    return {name: tensor for name, tensor in optional.items() if tensor is not None}


def _parts(names: list[str], kind: str, fused: Tensor | None, rows: list[int]) -> dict[str, Tensor]:
    if fused is None:
        return {}
    return {f"{name}.{kind}": part for name, part in zip(names, torch.split(fused, rows), strict=True)}


def packed_weights(weights: DecoderWeights) -> DecoderWeights:
    """The same weights with their matrices packed for `sgrun_kernels`' linear. Empties `weights.layers` on the way, so
    that there is no second copy of the whole model; the embedding stays plain."""
    layers: list[LayerWeights] = []
    while weights.layers:
        layer = weights.layers.pop(0)
        matrices = {name: pack_linear(getattr(layer, name)) for name in ("qkv", "o", "gate_up", "down")}
        layers.append(replace(layer, **matrices))
    return replace(weights, layers=layers, lm_head=pack_linear(weights.lm_head))
