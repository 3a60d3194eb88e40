"""A Hugging Face folder as a checkpoint: config.json, generation_config.json and safetensors files, nothing else.

No pickle is ever read and nothing of the folder is executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sgrun.errors import ModelNotFoundError, UnsupportedModelError, WeightsError
from sgrun.models.checkpoint import Checkpoint, Entry
from sgrun.models.config import ModelConfig

_DTYPES = ("F64", "F32", "F16", "BF16")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def open_hf_folder(folder: Path) -> Checkpoint:
    """Reads config and safetensors headers. Raises ModelNotFoundError, UnsupportedModelError, WeightsError."""
    config = read_hf_config(folder)
    entries: dict[str, Entry] = {}
    for path in _weight_files(folder):
        for entry in _read_entries(path):
            if entry.name in entries:
                raise WeightsError(f"{path}: tensor {entry.name} stands in {entries[entry.name].path.name} as well")
            if not _is_redundant(entry.name, config):
                entries[entry.name] = entry
    return Checkpoint(folder, config, entries, partial(_read_tensors, entries))


def read_hf_config(folder: Path) -> ModelConfig:
    """What config.json and generation_config.json say. Raises ModelNotFoundError, UnsupportedModelError,
    WeightsError."""
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise ModelNotFoundError(f"{folder} has no config.json; give a folder in Hugging Face layout or a .gguf file")
    generation_path = folder / "generation_config.json"
    generation_config = _read_json(generation_path) if generation_path.is_file() else None
    return ModelConfig.from_hf(_read_json(config_path), generation_config)


def _is_redundant(name: str, config: ModelConfig) -> bool:
    """Some checkpoints store what follows from the config: rotary frequencies, and a tied output matrix."""
    return name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.tie_word_embeddings)


def _weight_files(folder: Path) -> list[Path]:
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index_path = folder / "model.safetensors.index.json"
    if index_path.is_file():
        return _indexed_files(index_path)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise WeightsError(
            f"{folder} has its weights in {pickles[0]} only, a pickle, which can run code when it is read; "
            "sgrun reads safetensors or GGUF: look for such a version, or convert it in a place you trust"
        )
    raise WeightsError(f"{folder} has neither model.safetensors nor model.safetensors.index.json")


def _indexed_files(index_path: Path) -> list[Path]:
    weight_map = _read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{index_path} has no weight_map")
    paths: dict[str, Path] = {}
    for tensor_name, file_name in weight_map.items():
        if (
            not isinstance(file_name, str)
            or Path(file_name).name != file_name
            or not file_name.endswith(".safetensors")
        ):
            raise WeightsError(
                f"{index_path} places tensor {tensor_name} in {file_name!r}; "
                "allowed: a .safetensors file name without folders"
            )
        paths[file_name] = index_path.parent / file_name
    for path in paths.values():
        if not path.is_file():
            raise WeightsError(f"{path} is missing, but {index_path.name} names it; the download may be incomplete")
    return list(paths.values())


def _read_entries(path: Path) -> list[Entry]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or truncated: {error}") from error
    for name, (_, dtype) in shapes.items():
        if dtype not in _DTYPES:
            raise UnsupportedModelError(f"{path}: tensor {name} has dtype {dtype}; sgrun reads {', '.join(_DTYPES)}")
    return [Entry(path, name, shape) for name, (shape, _) in shapes.items()]


def _read_tensors(entries: dict[str, Entry], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for path in dict.fromkeys(entry.path for entry in entries.values()):
        with safe_open(path, framework="pt") as file:
            for entry in entries.values():
                if entry.path == path:
                    yield entry.name, file.get_tensor(entry.name)


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds a {type(value).__name__}; allowed: a JSON object")
    return value
