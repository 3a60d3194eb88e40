"""Fixtures that several folders of tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgrun.models.source import default_model_path


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct, fetched once into the user's cache."""
    return default_model_path()
