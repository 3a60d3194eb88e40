"""Which operations a decoder computes with."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from sgrun.errors import ConfigError
from sgrun.models.operations import operations_for
from sgrun_kernels import reference


def test_a_cpu_computes_with_the_reference() -> None:
    assert operations_for(torch.device("cpu")) is reference


def test_a_gpu_without_triton_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"sgrun\[gpu\]"):
        operations_for(torch.device("cuda:0"))
