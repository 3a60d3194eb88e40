"""The benchmarks of kernels run, in tiny sizes, on a machine without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "kernels" / "benchmarks"


@pytest.mark.parametrize("script", ["attention.py", "linear.py", "norms.py"])
def test_a_benchmark_ends_with_a_line_of_json(script: str) -> None:
    run = subprocess.run([sys.executable, FOLDER / script, "--smoke"], capture_output=True, text=True, check=True)
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["benchmark"] == script.removesuffix(".py")
    assert all(row["us"] > 0 for row in result["rows"])
    assert result["rows"]
