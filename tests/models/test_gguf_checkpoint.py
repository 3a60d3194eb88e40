"""Tiny GGUF files against the same weights in Hugging Face layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from sgrun.errors import UnsupportedModelError, WeightsError
from sgrun.models.decoder import Decoder, rope_frequencies
from sgrun.models.gguf_checkpoint import _BLOCK_ELEMENTS
from sgrun.models.load import load_model
from sgrun.models.weights import parameters_by_name

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, VOCAB, LAYERS = 256, 512, 4, 2, 64, 40, 2
GGUF_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(autouse=True)
def on_the_cpu() -> Iterator[None]:
    """The gguf package writes what numpy holds."""
    with torch.device("cpu"):
        yield


def _hf_weights(architecture: str, is_tied: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    q_rows, kv_rows = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    if not is_tied:
        shapes["lm_head.weight"] = (VOCAB, HIDDEN)
    for layer in range(LAYERS):
        parts: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (HIDDEN,),
            "post_attention_layernorm.weight": (HIDDEN,),
            "self_attn.q_proj.weight": (q_rows, HIDDEN),
            "self_attn.k_proj.weight": (kv_rows, HIDDEN),
            "self_attn.v_proj.weight": (kv_rows, HIDDEN),
            "self_attn.o_proj.weight": (HIDDEN, q_rows),
            "mlp.gate_proj.weight": (INNER, HIDDEN),
            "mlp.up_proj.weight": (INNER, HIDDEN),
            "mlp.down_proj.weight": (HIDDEN, INNER),
        }
        if architecture == "qwen2":
            parts |= {f"self_attn.{p}_proj.bias": (q_rows if p == "q" else kv_rows,) for p in "qkv"}
        if architecture == "qwen3":
            parts |= {f"self_attn.{p}_norm.weight": (HEAD_DIM,) for p in "qk"}
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def _gguf_name(name: str) -> str:
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, kind = name.rsplit(".", 1)
    if stem in top:
        return f"{top[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_LAYER[part]}.{kind}"


def _interleaved(name: str, values: np.ndarray) -> np.ndarray:
    """The order of rows that llama.cpp's converter gives queries and keys of the llama architecture."""
    if ".q_proj." not in name and ".k_proj." not in name:
        return values
    by_half = values.reshape(-1, 2, HEAD_DIM // 2, *values.shape[1:])
    return by_half.swapaxes(1, 2).reshape(values.shape)


def _write(
    path: Path,
    architecture: str,
    tensors: dict[str, Tensor],
    type_: Type = Type.F32,
    extra: dict[str, np.ndarray] | None = None,
    extra_type: Type | None = None,
    linear_factor: float | None = None,
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    if linear_factor is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(linear_factor)
    for name, tensor in tensors.items():
        values = tensor.numpy()
        if architecture == "llama":
            values = _interleaved(name, values)
        stored_as = Type.F32 if values.ndim == 1 else type_
        writer.add_tensor(_gguf_name(name), gguf.quants.quantize(values, stored_as), raw_dtype=stored_as)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values, raw_dtype=extra_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _load(path: Path) -> Decoder:
    return load_model(path, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_gguf_holds_the_weights_of_the_hugging_face_layout(tmp_path: Path, architecture: str, is_tied: bool) -> None:
    tensors = _hf_weights(architecture, is_tied)
    decoder = _load(_write(tmp_path / "m.gguf", architecture, tensors))
    parameters = parameters_by_name(decoder.config, decoder.weights)
    assert parameters.keys() == tensors.keys()
    assert decoder.config.tie_word_embeddings == is_tied
    for name, tensor in tensors.items():
        assert torch.equal(parameters[name], tensor), name


@pytest.mark.parametrize(
    ("type_", "tolerance"),
    [
        (Type.F16, 1e-3),
        (Type.BF16, 4e-3),
        (Type.Q8_0, 1e-2),
        (Type.Q5_1, 0.05),
        (Type.Q5_0, 0.06),
        (Type.Q4_1, 0.1),
        (Type.Q4_0, 0.12),
    ],
)
def test_quantised_types_come_back_close(tmp_path: Path, type_: Type, tolerance: float) -> None:
    tensors = _hf_weights("llama")
    decoder = _load(_write(tmp_path / "m.gguf", "llama", tensors, type_))
    parameters = parameters_by_name(decoder.config, decoder.weights)
    for name, tensor in tensors.items():
        assert (parameters[name] - tensor).norm() <= tolerance * tensor.norm(), name


@pytest.mark.parametrize("type_", [Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K])
def test_k_quants_are_read_over_many_blocks(tmp_path: Path, type_: Type) -> None:
    """The gguf package cannot write these, so the bytes are random; whole-tensor dequantisation is the measure."""
    num_rows = _BLOCK_ELEMENTS // HIDDEN + 903
    raw = np.random.default_rng(0).integers(0, 60, (num_rows, gguf.GGML_QUANT_SIZES[type_][1]), dtype=np.uint8)
    tensors = _hf_weights("llama", is_tied=True)
    del tensors["model.embed_tokens.weight"]
    path = _write(tmp_path / "m.gguf", "llama", tensors, extra={"token_embd.weight": raw}, extra_type=type_)
    expected = torch.from_numpy(gguf.quants.dequantize(raw, type_))
    assert torch.equal(_load(path).weights.embed, expected)


@pytest.mark.parametrize("linear_factor", [None, 2.0])
def test_rope_factors_divide_the_frequencies(tmp_path: Path, linear_factor: float | None) -> None:
    factors = np.linspace(1.0, 8.0, HEAD_DIM // 2, dtype=np.float32)
    extra = {"rope_freqs.weight": factors}
    path = _write(tmp_path / "m.gguf", "llama", _hf_weights("llama"), extra=extra, linear_factor=linear_factor)
    rope = _load(path).config.rope
    factors *= linear_factor or 1.0
    plain = 10000.0 ** (-torch.arange(0, HEAD_DIM, 2).double() / HEAD_DIM)
    torch.testing.assert_close(rope_frequencies(rope, HEAD_DIM), (plain / torch.from_numpy(factors)).float())


@pytest.mark.parametrize("factors", [np.ones(7, np.float32), np.zeros(HEAD_DIM // 2, np.float32)])
def test_senseless_rope_factors_are_refused(tmp_path: Path, factors: np.ndarray) -> None:
    path = _write(tmp_path / "m.gguf", "llama", _hf_weights("llama"), extra={"rope_freqs.weight": factors})
    with pytest.raises(WeightsError, match=r"rope_freqs\.weight"):
        _load(path)


def test_missing_wrong_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    tensors = _hf_weights("llama")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(WeightsError, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        _load(_write(tmp_path / "missing.gguf", "llama", tensors))
    tensors = _hf_weights("llama")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(INNER, HIDDEN + 32)
    with pytest.raises(WeightsError, match=r"blk\.1\.ffn_up\.weight has shape \[512, 288\].*\[512, 256\]"):
        _load(_write(tmp_path / "wrong.gguf", "llama", tensors))
    extra = {"blk.0.ffn_gate_inp.weight": np.ones((4, HIDDEN), np.float32)}
    with pytest.raises(WeightsError, match=r"blk\.0\.ffn_gate_inp\.weight has no place"):
        _load(_write(tmp_path / "unknown.gguf", "llama", _hf_weights("llama"), extra=extra))


def test_a_file_without_an_embedding_is_refused(tmp_path: Path) -> None:
    tensors = _hf_weights("llama")
    del tensors["model.embed_tokens.weight"]
    with pytest.raises(WeightsError, match=r"model\.embed_tokens\.weight"):
        _load(_write(tmp_path / "m.gguf", "llama", tensors))


def test_other_tensor_types_are_refused_by_name(tmp_path: Path) -> None:
    extra = {"blk.0.ids": np.ones((4,), np.int32)}
    with pytest.raises(UnsupportedModelError, match=r"blk\.0\.ids has type I32"):
        _load(_write(tmp_path / "m.gguf", "llama", _hf_weights("llama"), extra=extra))
