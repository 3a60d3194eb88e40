"""Models of a real shape with random weights: for measurements, where what a model says does not matter."""

from __future__ import annotations

import torch

from sgrun.models.config import ModelConfig
from sgrun.models.weights import DecoderWeights, empty_weights, parameters_by_name

STD = 0.02  # what most models are initialised with: keeps activations and logits finite and lively at any depth


def dummy_weights(config: ModelConfig, dtype: torch.dtype, device: torch.device, seed: int = 0) -> DecoderWeights:
    """Normally distributed matrices and biases, norms of 1; made on the device, the same for the same `seed` there."""
    weights = empty_weights(config, dtype, device)
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in parameters_by_name(config, weights).items():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, STD, generator=generator)
    return weights
