"""What the loader asks of a weight file, whatever its format, and the check of its header against the config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sgrun.errors import WeightsError
from sgrun.models.config import ModelConfig
from sgrun.models.weights import empty_weights, parameters_by_name


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as its file's header describes it. `name`: as the file spells it; `shape`: row-major."""

    path: Path
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`entries`: by Hugging Face name. `read(dtype)` yields (Hugging Face name, tensor) for all of them, one at a
    time, in whatever floating dtype is cheapest on the way to `dtype`."""

    path: Path
    config: ModelConfig
    entries: Mapping[str, Entry]
    read: Callable[[torch.dtype], Iterator[tuple[str, Tensor]]]


def check_entries(checkpoint: Checkpoint) -> None:
    """Raises WeightsError unless the checkpoint has exactly the tensors, in the shapes, that its config calls for."""
    config = checkpoint.config
    wanted = parameters_by_name(config, empty_weights(config, torch.float32, "meta"))
    for name, parameter in wanted.items():
        entry = checkpoint.entries.get(name)
        if entry is None:
            raise WeightsError(
                f"{checkpoint.path} has no tensor {name}, which its config calls for; the download may be incomplete"
            )
        if entry.shape != tuple(parameter.shape):
            raise WeightsError(
                f"{entry.path}: tensor {entry.name} has shape {list(entry.shape)}; "
                f"its config calls for {list(parameter.shape)}"
            )
    for name, entry in checkpoint.entries.items():
        if name not in wanted:
            raise WeightsError(
                f"{entry.path}: tensor {entry.name} has no place in a {config.architecture} with this config; "
                "sgrun does not leave out weights"
            )
