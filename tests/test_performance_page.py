"""The figures of docs/performance.md are those of benchmarks/results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_has_the_newest_results() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_tables"]
    figures = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert figures in (ROOT / "docs" / "performance.md").read_text(), "run: python -m benchmarks.gpu_tables --write"
