"""Loading Hugging Face folders: what is read, and that damaged or refused files name themselves."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from sgrun.errors import ModelNotFoundError, UnsupportedModelError, WeightsError
from sgrun.models.decoder import Decoder
from sgrun.models.load import load_model
from sgrun.models.weights import parameters_by_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama as transformers writes it, in one safetensors file."""
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def _load(path: Path) -> Decoder:
    return load_model(path, dtype=torch.float32, device="cpu")


def _tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def _rewrite(folder: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors")


def _edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _shard(folder: Path) -> dict[str, str]:
    """Splits the weights over two files and an index; returns the index's weight_map."""
    tensors = _tensors(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file_name = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file_name)
        weight_map |= dict.fromkeys(part, file_name)
    _write_index(folder, weight_map)
    return weight_map


def _write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _assert_holds(decoder: Decoder, tensors: dict[str, Tensor]) -> None:
    parameters = parameters_by_name(decoder.config, decoder.weights)
    assert parameters.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(parameters[name], tensor.to(decoder.dtype)), name


def test_every_tensor_lands_in_its_place(folder: Path) -> None:
    _assert_holds(_load(folder), _tensors(folder))


def test_shards_are_read_as_one(folder: Path) -> None:
    tensors = _tensors(folder)
    _shard(folder)
    _assert_holds(_load(folder), tensors)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_stored_dtypes_are_converted(folder: Path, stored: torch.dtype) -> None:
    tensors = {name: tensor.to(stored) for name, tensor in _tensors(folder).items()}
    _rewrite(folder, tensors)
    _assert_holds(load_model(folder, dtype=torch.float16, device="cpu"), tensors)


def test_a_tied_model_shares_one_matrix_and_ignores_a_stored_copy(folder: Path) -> None:
    _edit_config(folder, tie_word_embeddings=True)
    tensors = _tensors(folder)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    _rewrite(folder, tensors)
    weights = _load(folder).weights
    assert weights.lm_head is weights.embed
    assert torch.equal(weights.embed, tensors["model.embed_tokens.weight"])


def test_progress_ends_at_one(folder: Path) -> None:
    seen: list[tuple[str, float]] = []
    load_model(folder, dtype=torch.float32, device="cpu", on_progress=lambda *step: seen.append(step))
    assert len(seen) == len(_tensors(folder))
    assert seen[-1] == ("loading weights", 1.0)
    assert [fraction for _, fraction in seen] == sorted(fraction for _, fraction in seen)


def test_remote_code_is_never_run(folder: Path) -> None:
    _edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    (folder / "modeling_evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    _load(folder)
    assert not (folder / "ran").exists()


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        _load(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        _load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100_000])
def test_a_damaged_config_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(WeightsError, match=r"config\.json"):
        _load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_with_advice(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(WeightsError, match=rf"{name}.*pickle.*safetensors or GGUF"):
        _load(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"neither model\.safetensors nor"):
        _load(folder)


@pytest.mark.parametrize("keep", [0, 4, 300, -1])
def test_a_truncated_file_is_named(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged or truncated"):
        _load(folder)


def _write_raw(path: Path, header: dict[str, object], data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_overlapping_tensors_are_refused(folder: Path) -> None:
    header: dict[str, object] = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    }
    _write_raw(folder / "model.safetensors", header, bytes(12))
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        _load(folder)


def test_a_header_longer_than_the_file_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        _load(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    tensors = _tensors(folder)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    _rewrite(folder, tensors)
    with pytest.raises(WeightsError, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        _load(folder)


def test_a_wrong_shape_is_named_with_both_shapes(folder: Path) -> None:
    tensors = _tensors(folder)
    tensors["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(8, 15)
    _rewrite(folder, tensors)
    with pytest.raises(WeightsError, match=r"k_proj\.weight has shape \[8, 15\].*\[8, 16\]"):
        _load(folder)


def test_a_tensor_without_a_place_is_refused(folder: Path) -> None:
    tensors = _tensors(folder)
    tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(4)
    _rewrite(folder, tensors)
    with pytest.raises(WeightsError, match=r"q_norm\.weight has no place"):
        _load(folder)


def test_more_layers_in_the_config_than_in_the_file_are_refused_before_memory_is_taken(folder: Path) -> None:
    _edit_config(folder, num_hidden_layers=900, intermediate_size=1 << 23)
    with pytest.raises(WeightsError, match=r"has shape \[24, 16\]"):
        _load(folder)


def test_other_dtypes_are_refused_by_name(folder: Path) -> None:
    tensors = _tensors(folder)
    tensors["model.norm.weight"] = torch.ones(16, dtype=torch.int8)
    _rewrite(folder, tensors)
    with pytest.raises(UnsupportedModelError, match=r"model\.norm\.weight has dtype I8"):
        _load(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    _shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors is missing"):
        _load(folder)


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    tensors = _tensors(folder)
    _shard(folder)
    second = folder / "model-00002-of-00002.safetensors"
    first = load_file(folder / "model-00001-of-00002.safetensors")
    save_file({**load_file(second), **first}, second)
    assert first.keys() < tensors.keys()
    with pytest.raises(WeightsError, match="as well"):
        _load(folder)


@pytest.mark.parametrize("file_name", ["../model.safetensors", "/etc/passwd", "sub/x.safetensors", "x.bin", "..", 3])
def test_an_index_that_leaves_its_folder_is_refused(folder: Path, file_name: str) -> None:
    weight_map = _shard(folder)
    weight_map["model.norm.weight"] = file_name
    _write_index(folder, weight_map)
    with pytest.raises(WeightsError, match=r"model\.norm\.weight.*without folders"):
        _load(folder)


def test_an_index_without_a_map_is_refused(folder: Path) -> None:
    _shard(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match="no weight_map"):
        _load(folder)


def test_dummy_weights_need_no_weight_files_and_are_the_same_each_time(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    first, second = (load_model(folder, dtype=torch.float32, device="cpu", is_dummy=True) for _ in range(2))
    for name, tensor in parameters_by_name(first.config, first.weights).items():
        assert torch.equal(tensor, parameters_by_name(second.config, second.weights)[name])
        assert bool((tensor == 1).all()) if name.endswith("norm.weight") else 0.015 < float(tensor.std()) < 0.025
