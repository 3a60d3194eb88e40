"""Host arrays to the device and back without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A copy of `array` on the device, there for whatever is launched after; shares memory with it on a CPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def all_to_device(arrays: list[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Copies of `arrays`, which have one dtype, by one transfer. Each begins at a whole 256 bytes, since kernels are
    compiled anew for pointers that are aligned otherwise."""
    unit = 256 // arrays[0].itemsize
    sizes = [-(-array.size // unit) * unit for array in arrays]
    packed = np.zeros(sum(sizes), dtype=arrays[0].dtype)
    for part, array in zip(np.split(packed, np.cumsum(sizes)[:-1]), arrays, strict=True):
        part[: array.size] = array.reshape(-1)
    parts = torch.split(to_device(packed, device), sizes)
    return [part[: array.size].view(array.shape) for part, array in zip(parts, arrays, strict=True)]


class Arrival:
    """Tensors on their way to the host."""

    def __init__(self, *tensors: Tensor) -> None:
        """Queues their copies behind all that has been launched."""
        self._event: torch.cuda.Event | None = None
        self._tensors = [tensor.clone() for tensor in tensors if tensor.device.type == "cpu"]
        if len(self._tensors) < len(tensors):
            self._tensors = [_pinned(tensor).copy_(tensor, non_blocking=True) for tensor in tensors]
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def wait(self) -> list[Tensor]:
        """The values as they were, on the host."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors


def _pinned(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
