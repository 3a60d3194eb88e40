"""What a decode step costs the host where the device samples: planning, launching, and committing the tokens.

    python -m benchmarks.host_step [--rows 1 8 64 256] [--steps 400]

The engine is the real one, but its model and kernels do nothing and every row draws the same token, so that CPU time of
the process is the host's share; the calls of a GPU's runtime come on top. A table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu.shapes import write_folder
from benchmarks.gpu.workloads import Prompts, greedy, run
from sgrun.engine.client import Engine
from sgrun.engine.device_steps import DeviceSteps, SamplingKernels
from sgrun.engine.runner import ModelRunner
from sgrun.models.inputs import ForwardInputs
from sgrun.models.source import default_model_path
from sgrun_kernels.rows import Ring, Rows

TOKEN_ID = 70


class NoModel(ModelRunner):
    """Answers with the same logits at once."""

    def __call__(self, inputs: ForwardInputs) -> Tensor:
        rows = inputs.token_ids if inputs.logits_rows is None else inputs.logits_rows
        return torch.zeros(1, 1).expand(len(rows), self.decoder.config.vocab_size)


def nothing(*_: object) -> None:
    pass


def commit_step_(row_ids: Tensor, rows: Rows, ring: Ring, *_: object) -> None:
    words = ring.words[int(ring.index) % len(ring.words)]
    words.zero_()
    words[:, 0] = TOKEN_ID
    ring.index.add_(1)


def step_ms(engine: Engine, num_rows: int, num_steps: int) -> float:
    """CPU milliseconds a step."""
    prompts = Prompts(40_000)
    run(engine, prompts.take(num_rows, 32), greedy(4))
    steps, started = engine.stats.num_steps, time.process_time()
    run(engine, prompts.take(num_rows, 32), greedy(num_steps))
    return (time.process_time() - started) / (engine.stats.num_steps - steps) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 8, 64, 256])
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = write_folder("tiny", Path(folder))
        options = {"load_format": "dummy", "tokenizer": default_model_path(), "dtype": "float32", "device": "cpu"}
        with Engine(path, **options, num_pages=20_000, max_running=max(args.rows)) as engine:
            core = engine._core
            runner = core.steps.forward
            kernels = SamplingKernels(nothing, nothing, nothing, commit_step_, nothing)
            core.steps = DeviceSteps(NoModel(runner.decoder, runner.kv), core.vocabulary, core.limits, kernels)
            print(f"{'rows':>5}{'CPU ms a step':>15}")
            for num_rows in args.rows:
                results[num_rows] = step_ms(engine, num_rows, args.steps)
                print(f"{num_rows:>5}{results[num_rows]:>15.3f}")
    rounded = {str(num_rows): round(ms, 3) for num_rows, ms in results.items()}
    print(json.dumps({"benchmark": "host_step", "cpu_ms": rounded, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
