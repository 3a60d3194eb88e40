"""Loads a decoder from a Hugging Face folder or a GGUF file, one tensor at a time."""

from __future__ import annotations

from pathlib import Path

import torch

from sgrun.errors import ModelNotFoundError
from sgrun.models.checkpoint import Checkpoint, check_entries
from sgrun.models.decoder import Decoder
from sgrun.models.dummy import dummy_weights
from sgrun.models.gguf_checkpoint import open_gguf
from sgrun.models.hf_checkpoint import open_hf_folder, read_hf_config
from sgrun.models.operations import operations_for
from sgrun.models.source import OnProgress
from sgrun.models.weights import DecoderWeights, empty_weights, packed_weights, parameters_by_name
from sgrun_kernels.reference import can_pack_linear


def load_model(
    path: Path | str,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    is_dummy: bool = False,
    on_progress: OnProgress | None = None,
) -> Decoder:
    """The model under `path`, a Hugging Face folder (config.json, safetensors) or a .gguf file, as a decoder with
    weights of `dtype` on `device`. `is_dummy`: only its config.json is read, and the weights are random.

    What headers can tell is checked against the config before memory for the weights is taken. Raises
    ModelNotFoundError, UnsupportedModelError, WeightsError; ConfigError for a GPU without triton.
    """
    path, device = Path(path), torch.device(device)
    ops = operations_for(device)
    if is_dummy:
        config = read_hf_config(path)
        weights = dummy_weights(config, dtype, device)
    else:
        checkpoint = _open_checkpoint(path)
        config = checkpoint.config
        weights = _read_weights(checkpoint, dtype, device, on_progress)
    if can_pack_linear(dtype, device):
        weights = packed_weights(weights)
    return Decoder(config, weights, device, dtype, ops)


def _open_checkpoint(path: Path) -> Checkpoint:
    if path.is_dir():
        return open_hf_folder(path)
    if path.is_file() and path.suffix.lower() == ".gguf":
        return open_gguf(path)
    raise ModelNotFoundError(f"no model under {path}; give a folder in Hugging Face layout or a .gguf file")


def _read_weights(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, on_progress: OnProgress | None
) -> DecoderWeights:
    check_entries(checkpoint)
    weights = empty_weights(checkpoint.config, dtype, device)
    parameters = parameters_by_name(checkpoint.config, weights)
    for num_done, (name, tensor) in enumerate(checkpoint.read(dtype), start=1):
        parameters[name].copy_(tensor)
        if on_progress is not None:
            on_progress("loading weights", num_done / len(parameters))
    return weights
