"""The model shapes that are measured with random weights, and what a step of them must read at least."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "max_position_embeddings": 16384,
    "tie_word_embeddings": False,
}
QWEN3_0_6B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 16384,
    "tie_word_embeddings": True,
    "attention_bias": False,
}
QWEN3_8B: dict[str, Any] = QWEN3_0_6B | {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "tie_word_embeddings": False,
}
TINY: dict[str, Any] = QWEN3_0_6B | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 49152,
}
SHAPES = {"llama-8b": LLAMA_8B, "qwen3-0.6b": QWEN3_0_6B, "qwen3-8b": QWEN3_8B, "tiny": TINY}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes in bfloat16: of the weights that a step reads, and of one token's keys and values."""

    weights: int
    token: int

    def floor_s(self, batch: int, mean_context: float, bytes_per_s: float) -> float:
        """The time of a decode step that does nothing but read weights and K/V once."""
        return (self.weights + batch * mean_context * self.token) / bytes_per_s


def traffic(shape: dict[str, Any]) -> Traffic:
    """The embedding of an untied model is not counted: a step reads a few rows of it."""
    hidden, inner, head_dim = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    q_rows, kv_rows = shape["num_attention_heads"] * head_dim, shape["num_key_value_heads"] * head_dim
    layer = hidden * (2 * q_rows + 2 * kv_rows) + 3 * hidden * inner
    weights = shape["num_hidden_layers"] * layer + shape["vocab_size"] * hidden
    return Traffic(2 * weights, 2 * 2 * shape["num_hidden_layers"] * kv_rows)


def prefill_flops(shape: dict[str, Any], num_tokens: int) -> float:
    """Of the matrix products and causal attention of one prompt; the output matrix is applied to its last token."""
    hidden = shape["hidden_size"]
    per_token = traffic(shape).weights - 2 * shape["vocab_size"] * hidden  # 2 bytes and 2 operations a weight
    q_rows = shape["num_attention_heads"] * shape["head_dim"]
    attention = 2 * shape["num_hidden_layers"] * q_rows * num_tokens**2
    return per_token * num_tokens + attention + 2 * shape["vocab_size"] * hidden


def write_folder(name: str, folder: Path, vocab_size: int | None = None) -> Path:
    """A folder with the config of a shape, or of one with another vocabulary, for `load_format="dummy"`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = SHAPES[name] | ({} if vocab_size is None else {"vocab_size": vocab_size})
    (folder / "config.json").write_text(json.dumps(config))
    return folder
