"""Owns how a planned step is computed where the host samples: forward, logits, tokens, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sgrun.engine.batch import Scored, build_batch
from sgrun.engine.generation import SampleTask
from sgrun.engine.sampler import Sampled, sample
from sgrun.engine.scheduler import Row
from sgrun.models.inputs import ForwardInputs

Forward = Callable[[ForwardInputs], Tensor]
"""The model with its KV pool: logits [L, vocab] of the wanted rows."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one launched step has computed. Rows are left out whose end the device had found in a step before."""

    rows: list[Row]
    sampled: list[tuple[Row, SampleTask, Sampled]]
    scored: list[Scored]


class Steps(Protocol):
    """Computes steps in the order in which they are launched. Up to `max_ahead` steps may be launched beyond the one
    whose result is collected next; their rows may go on from tokens that only those steps sample."""

    max_ahead: int

    @property
    def num_in_flight(self) -> int: ...

    def launch(self, rows: list[Row]) -> None:
        """Starts a step. Raises what the model raises; then nothing was started."""
        ...

    def collect(self) -> StepResult:
        """The result of the oldest launched step, which is waited for."""
        ...

    def close(self) -> None:
        """Waits for what is launched; afterwards nothing here keeps memory from being freed. No step may follow."""
        ...


class HostSteps:
    """Computes a step at once, and samples on the host."""

    max_ahead = 0

    def __init__(self, forward: Forward, page_size: int, device: torch.device) -> None:
        self.forward = forward
        self.page_size = page_size
        self.device = device
        self._results: list[StepResult] = []

    @property
    def num_in_flight(self) -> int:
        return len(self._results)

    def launch(self, rows: list[Row]) -> None:
        batch = build_batch(rows, self.page_size, self.device)
        logits = self.forward(batch.inputs).float()
        scored, places, sampling = batch.split(logits)
        drawn = sample(logits[places], [task.sample_row() for _, task in sampling]) if sampling else []
        sampled = [(row, task, outcome) for (row, task), outcome in zip(sampling, drawn, strict=True)]
        self._results.append(StepResult(rows, sampled, scored))

    def collect(self) -> StepResult:
        return self._results.pop()

    def close(self) -> None:
        self._results.clear()
