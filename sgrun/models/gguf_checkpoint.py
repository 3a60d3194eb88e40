"""A GGUF file as a checkpoint: llama.cpp's names, types and order of rows turned into Hugging Face's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import quants
from numpy.typing import NDArray
from torch import Tensor

from sgrun.errors import UnsupportedModelError, WeightsError
from sgrun.models.checkpoint import Checkpoint, Entry
from sgrun.models.config import ModelConfig, RopeConfig
from sgrun.models.gguf_header import GgufTensor, read_gguf_header

_FLOAT_TYPES = (Type.F32, Type.F16, Type.BF16)
_QUANTISED_TYPES = (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0)
_K_TYPES = (Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K)
_TYPES = _FLOAT_TYPES + _QUANTISED_TYPES + _K_TYPES
_ROPE_FACTORS = "rope_freqs.weight"
_BLOCK_ELEMENTS = 1 << 20  # dequantised at a time: bounds float32 copies, and stays in the cache

_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_NAMES["output.weight"] = "lm_head.weight"
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAME = re.compile(r"blk\.(\d{1,4})\.(\w+)\.(weight|bias)")


def open_gguf(path: Path) -> Checkpoint:
    """Reads and checks the header. Raises UnsupportedModelError, WeightsError."""
    header = read_gguf_header(path)
    for tensor in header.tensors:
        if tensor.type not in _TYPES:
            raise UnsupportedModelError(
                f"{path}: tensor {tensor.name} has type {tensor.type.name}; "
                f"sgrun reads {', '.join(type_.name for type_ in _TYPES)}"
            )
    tensors = {tensor.name: tensor for tensor in header.tensors}
    config = ModelConfig.from_gguf(header.metadata, {name: _shape(tensor) for name, tensor in tensors.items()})
    rope_factors = tensors.pop(_ROPE_FACTORS, None)
    if rope_factors is not None:
        config = replace(config, rope=_rope_with_factors(path, rope_factors, config))
    by_hf_name = {_hf_name(name): tensor for name, tensor in tensors.items()}
    entries = {name: Entry(path, tensor.name, _shape(tensor)) for name, tensor in by_hf_name.items()}
    # llama.cpp stores the rotated rows of this architecture pair by pair instead of half by half.
    is_interleaved = header.metadata["general.architecture"] == "llama"
    rotated_head_dim = config.head_dim if is_interleaved else None
    return Checkpoint(path, config, entries, partial(_read_tensors, path, by_hf_name, rotated_head_dim))


def _shape(tensor: GgufTensor) -> tuple[int, ...]:
    return tensor.dims[::-1]


def _hf_name(name: str) -> str:
    """Names without a counterpart stay as they are, and are then refused by `check_entries`."""
    match = _LAYER_NAME.fullmatch(name)
    if match and match[2] in _LAYER_NAMES:
        return f"model.layers.{int(match[1])}.{_LAYER_NAMES[match[2]]}.{match[3]}"
    return _NAMES.get(name, name)


def _rope_with_factors(path: Path, tensor: GgufTensor, config: ModelConfig) -> RopeConfig:
    """Llama 3.1's scaling comes as one divisor per frequency."""
    factors = _dequantise(np.memmap(path, np.uint8, mode="c"), tensor, torch.float32).flatten().tolist()
    if len(factors) != config.head_dim // 2 or not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise WeightsError(
            f"{path}: tensor {tensor.name} has {len(factors)} numbers; allowed: {config.head_dim // 2}, all positive"
        )
    return replace(config.rope, kind="factors", factors=tuple(factor * config.rope.factor for factor in factors))


def _read_tensors(
    path: Path, tensors: dict[str, GgufTensor], rotated_head_dim: int | None, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    # copy on write: torch wants memory that it could write to; a plain array: each slice of a memmap object is slow
    data = np.asarray(np.memmap(path, np.uint8, mode="c"))
    for name, tensor in tensors.items():
        values = _dequantise(data, tensor, dtype)
        if rotated_head_dim is not None and re.search(r"\.[qk]_proj\.", name):
            pairs = values.view(-1, rotated_head_dim // 2, 2, *values.shape[1:])
            values = pairs.transpose(1, 2).reshape(values.shape)
        yield name, values


def _dequantise(data: NDArray[np.uint8], tensor: GgufTensor, dtype: torch.dtype) -> Tensor:
    shape = _shape(tensor)
    row_len = shape[-1]
    num_rows = math.prod(shape[:-1])
    rows = data[tensor.offset : tensor.offset + tensor.size_bytes].reshape(num_rows, -1)
    out = torch.empty(num_rows, row_len, dtype=dtype)
    step = max(1, _BLOCK_ELEMENTS // row_len)
    for start in range(0, num_rows, step):
        # As one row: gguf goes through 16 rows at a time in Python. Its blocks do not reach over a row's end.
        block = quants.dequantize(rows[start : start + step].reshape(1, -1), tensor.type)
        out[start : start + step] = torch.from_numpy(block).view(-1, row_len)
    return out.view(shape)
