"""Loads a decoder from a Hugging Face folder or a GGUF file, one tensor at a time."""

from __future__ import annotations

from pathlib import Path

import torch

from sgrun.errors import ModelNotFoundError
from sgrun.models.checkpoint import check_entries
from sgrun.models.decoder import Decoder
from sgrun.models.gguf_checkpoint import open_gguf
from sgrun.models.hf_checkpoint import open_hf_folder
from sgrun.models.source import OnProgress
from sgrun.models.weights import empty_weights, packed_weights, parameters_by_name
from sgrun_kernels.reference import can_pack_linear


def load_model(
    path: Path | str, *, dtype: torch.dtype, device: torch.device | str, on_progress: OnProgress | None = None
) -> Decoder:
    """The model under `path`, a Hugging Face folder (config.json, safetensors) or a .gguf file, as a decoder with
    weights of `dtype` on `device`.

    What headers can tell is checked against the config before memory for the weights is taken. Raises
    ModelNotFoundError, UnsupportedModelError, WeightsError.
    """
    path, device = Path(path), torch.device(device)
    if path.is_dir():
        checkpoint = open_hf_folder(path)
    elif path.is_file() and path.suffix.lower() == ".gguf":
        checkpoint = open_gguf(path)
    else:
        raise ModelNotFoundError(f"no model under {path}; give a folder in Hugging Face layout or a .gguf file")
    check_entries(checkpoint)
    config = checkpoint.config
    weights = empty_weights(config, dtype, device)
    parameters = parameters_by_name(config, weights)
    for num_done, (name, tensor) in enumerate(checkpoint.read(dtype), start=1):
        parameters[name].copy_(tensor)
        if on_progress is not None:
            on_progress("loading weights", num_done / len(parameters))
    if can_pack_linear(dtype, device):
        del parameters  # they share the memory that packing gives back piece by piece
        weights = packed_weights(weights)
    return Decoder(config, weights, device, dtype)
