"""Everything that is measured on a GPU: correctness gates first, then timings, one section at a time.

    python -m benchmarks.gpu_suite [--section NAME ...] [--repeats 5] [--tokenizer PATH] [--commit ID] [--smoke]

Each section appends its results, one JSON object a line, to benchmarks/results/<file>.jsonl and prints a table; the
last line printed is a JSON object of all of them. Without --section all run, but for those that sections.jsonl has as
finished for this commit. --tokenizer: of models with random weights, instead of the default model's. --commit: what is
measured, where git cannot say. --smoke: tiny shapes on whatever device there is, results not kept.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import checks, trace, transformers_baseline, workloads
from benchmarks.gpu.ceilings import copy_bytes_per_s, matmul_flops, short_matmul_flops
from benchmarks.gpu.shapes import SHAPES, prefill_flops, traffic, write_folder
from sgrun.engine.client import Engine
from sgrun.engine.tokenizer import Tokenizer
from sgrun.models.source import default_model_path

RESULTS = Path(__file__).parent / "results"
DECODE_BATCHES = (1, 8, 32, 64, 128, 256)
PROMPT_LEN = 512
OUTPUT_LEN = 128


@dataclass
class Suite:
    """The options, the ceilings of this run, and what has been measured so far."""

    is_smoke: bool
    repeats: int
    folder: Path
    tokenizer: Path
    out: Path | None  # where results are kept
    stamp: dict[str, str]
    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    copy_bytes_per_s: float = 0.0
    matmul_flops: float = 0.0

    def shapes(self, *names: str) -> tuple[str, ...]:
        return ("tiny",) if self.is_smoke else names

    def batches(self, *sizes: int) -> tuple[int, ...]:
        return (1, 3) if self.is_smoke else sizes

    def length(self, tokens: int) -> int:
        return min(tokens, 20) if self.is_smoke else tokens

    def engine(self, shape: str, vocab_size: int | None = None, **options: Any) -> Engine:
        dtype = "float32" if self.is_smoke else "bfloat16"
        path = write_folder(shape, self.folder / shape, vocab_size)
        return Engine(path, load_format="dummy", tokenizer=self.tokenizer, dtype=dtype, **options)

    def prompts(self, shape: str) -> workloads.Prompts:
        return workloads.Prompts(SHAPES[shape]["vocab_size"])

    def add(self, name: str, **values: Any) -> None:
        print("  ".join(f"{key} {_short(value)}" for key, value in values.items()), flush=True)
        self.keep(name, values)

    def keep(self, name: str, values: dict[str, Any]) -> None:
        """Writes a result at once: what comes after it may fail."""
        self.results.setdefault(name, []).append(values)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / f"{name}.jsonl").open("a") as file:
                file.write(json.dumps({**values, **self.stamp}) + "\n")


def ceilings(suite: Suite) -> None:
    suite.add(
        "ceilings",
        copy_tb_per_s=suite.copy_bytes_per_s / 1e12,
        matmul_tflops=suite.matmul_flops / 1e12,
        short_matmul_tflops=short_matmul_flops(suite.is_smoke) / 1e12,
    )


def decode(suite: Suite) -> None:
    """step_ms at each batch size, as the peers were measured."""
    for shape in suite.shapes("llama-8b", "qwen3-0.6b"):
        prompt_len, output_len = suite.length(PROMPT_LEN), suite.length(OUTPUT_LEN)
        with suite.engine(shape) as engine:
            prompts = suite.prompts(shape)
            for batch in suite.batches(*DECODE_BATCHES):
                step = workloads.decode_step(engine, prompts, batch, prompt_len, output_len, suite.repeats)
                floor = traffic(SHAPES[shape]).floor_s(batch, prompt_len + output_len / 2, suite.copy_bytes_per_s)
                suite.add(
                    "decode",
                    shape=shape,
                    batch=batch,
                    step_ms=step.median * 1e3,
                    step_ms_range=[step.low * 1e3, step.high * 1e3],
                    floor_ms=floor * 1e3,
                    ratio=step.median / floor,
                    prompt_len=prompt_len,
                    output_len=output_len,
                )


def prefill(suite: Suite) -> None:
    """Prompts of 512 tokens in batches, one long prompt, and what one that arrives costs those that decode."""
    for shape in suite.shapes("llama-8b"):
        with suite.engine(shape) as engine:
            prompts = suite.prompts(shape)
            cases = [(batch, PROMPT_LEN) for batch in (1, 8, 16, 32)] + [(1, 8192)]
            for batch, prompt_len in [(2, 20)] if suite.is_smoke else cases:
                seconds = workloads.prefill(engine, prompts, batch, prompt_len, suite.repeats)
                flops = batch * prefill_flops(SHAPES[shape], prompt_len)
                suite.add(
                    "prefill",
                    shape=shape,
                    batch=batch,
                    prompt_len=prompt_len,
                    tokens_per_s=batch * prompt_len / seconds.median,
                    ms=seconds.median * 1e3,
                    ms_range=[seconds.low * 1e3, seconds.high * 1e3],
                    share_of_matmul_rate=flops / seconds.median / suite.matmul_flops,
                )
            decoding, newcomer_len = (3, 20) if suite.is_smoke else (64, 1024)
            outputs = suite.length(400)
            _, *arrivals = (
                workloads.arrival(engine, prompts, decoding, suite.length(PROMPT_LEN), newcomer_len, outputs)
                for _ in range(1 + suite.repeats)
            )
            first = workloads.Timing.of([arrival.first_token * 1e3 for arrival in arrivals])
            suite.add(
                "prefill",
                shape=shape,
                case=f"{newcomer_len} tokens arrive while {decoding} decode",
                first_token_ms=first.median,
                first_token_ms_range=[first.low, first.high],
                gap_alone_ms=statistics.median(arrival.gap_alone for arrival in arrivals) * 1e3,
                gap_p50_ms=statistics.median(arrival.gap_p50 for arrival in arrivals) * 1e3,
                gap_p99_ms=statistics.median(arrival.gap_p99 for arrival in arrivals) * 1e3,
            )


def prefix(suite: Suite) -> None:
    """64 requests on one cold prefix, then on the same one warm."""
    for shape in suite.shapes("llama-8b"):
        batch, shared, own, outputs = (3, 20, 4, 4) if suite.is_smoke else (64, 2048, 64, 64)
        with suite.engine(shape) as engine:
            prompts = suite.prompts(shape)
            workloads.shared_prefix(engine, prompts, batch, shared, own, outputs)
            runs = [workloads.shared_prefix(engine, prompts, batch, shared, own, outputs) for _ in range(suite.repeats)]
        cold, warm = (workloads.Timing.of(seconds) for seconds in zip(*runs, strict=True))
        for name, timing in (("cold", cold), ("warm", warm)):
            suite.add("shared_prefix", shape=shape, case=name, s=timing.median, s_range=[timing.low, timing.high])


def start(suite: Suite) -> None:
    """From the start of a Python process to the first token of a random 8B model, and again with warm kernels."""
    for shape in suite.shapes("llama-8b"):
        path = write_folder(shape, suite.folder / shape)
        code = (
            "import sys; from pathlib import Path; from sgrun.engine.client import Engine;"
            "from sgrun.types import SamplingParams;"
            "e = Engine(Path(sys.argv[1]), load_format='dummy', tokenizer=Path(sys.argv[2]), num_pages=2048);"
            "s = e.open(); e.append_ids(s, range(500)); e.generate(s, SamplingParams(max_tokens=1)).result()"
        )
        runs = []
        for _ in range(1 + suite.repeats):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code, str(path), str(suite.tokenizer)], check=True)
            runs.append(time.perf_counter() - started)
        for case, seconds in (("first", runs[:1]), ("warm", runs[1:])):
            timing = workloads.Timing.of(seconds)
            suite.add("start", shape=shape, case=case, s=timing.median, s_range=[timing.low, timing.high])


def grammar(suite: Suite) -> None:
    """64 rows under 64 different schemas against 64 rows without, of equal length; every token has a text."""
    vocab_size = Tokenizer.load(suite.tokenizer).vocab_size
    for shape in suite.shapes("qwen3-0.6b", "llama-8b"):
        batch, outputs = (3, 12) if suite.is_smoke else (64, 256)
        params = workloads.SamplingParams(max_tokens=outputs, temperature=1.0, seed=0, ignore_eos=True)
        with suite.engine(shape, vocab_size) as engine:
            prompts = workloads.Prompts(vocab_size)
            specs = workloads.object_schemas(batch)
            cases = {"unconstrained": (), "one schema": [specs[0]] * batch, "different schemas": specs}
            rows: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
            for _, (case, grammars) in itertools.product(range(suite.repeats + 1), cases.items()):
                taken = prompts.take(batch, suite.length(PROMPT_LEN))
                clocks, futures = workloads.submit(engine, taken, params, grammars)
                for future in futures:
                    future.result()
                rows[case].append(_gaps(clocks))
            for case, (_, *measured) in rows.items():  # the first one compiled and captured
                values: dict[str, Any] = {}
                for name in measured[0]:
                    of = sorted(row[name] for row in measured)
                    values |= {name: statistics.median(of), f"{name}_range": [of[0], of[-1]]}
                suite.add("grammar_overhead", shape=shape, batch=batch, case=case, vocab_size=vocab_size, **values)


def offline(suite: Suite) -> None:
    """256 requests of 1,024 tokens in and out."""
    for shape in suite.shapes("qwen3-8b"):
        batch, prompt_len, outputs = (3, 20, 10) if suite.is_smoke else (256, 1024, 1024)
        with suite.engine(shape) as engine:
            prompts = suite.prompts(shape)
            workloads.run(engine, prompts.take(batch, 64), workloads.greedy(4))
            params = workloads.greedy(outputs)
            runs = [workloads.run(engine, prompts.take(batch, prompt_len), params) for _ in range(suite.repeats)]
        seconds = workloads.Timing.of(runs)
        suite.add(
            "offline",
            shape=shape,
            requests=batch,
            s=seconds.median,
            s_range=[seconds.low, seconds.high],
            tokens_per_s=batch * outputs / seconds.median,
        )


def equality(suite: Suite) -> None:
    """Greedy tokens of the default model on this device against those of the CPU in float32."""
    for dtype in ("float32",) if suite.is_smoke else ("float32", "bfloat16"):
        suite.add("equality", **checks.compare_with_cpu(dtype, *((2, 4) if suite.is_smoke else (64, 64))))


def baseline(suite: Suite) -> None:
    """transformers' generate (sdpa) on the same shape."""
    for shape in suite.shapes("llama-8b"):
        for batch in suite.batches(1, 8, 32):
            step = transformers_baseline.decode_step(
                SHAPES[shape], batch, suite.length(PROMPT_LEN), suite.length(OUTPUT_LEN), suite.repeats
            )
            suite.add("baseline", shape=shape, batch=batch, step_ms=step.median * 1e3, engine="transformers")


def profile(suite: Suite) -> None:
    """How busy the device is while rows decode, with and without constraints, and what waits in between."""
    for shape in () if suite.is_smoke else ("qwen3-0.6b", "llama-8b"):
        with suite.engine(shape) as engine:
            prompts = suite.prompts(shape)
            for case, batch in (("unconstrained", 1), ("unconstrained", 64), ("different schemas", 64)):
                grammars = workloads.object_schemas(batch) if case == "different schemas" else []
                values = trace.trace_decode(engine, prompts, batch, grammars)
                suite.add("profile", shape=shape, batch=batch, case=case, **values)


def kernels(suite: Suite) -> None:
    """The kernels by themselves, each against its floor; a script each."""
    root = Path(__file__).parents[1]
    paths = [str(root / path) for path in ("", "kernels", "kernels/benchmarks")]
    if "PYTHONPATH" in os.environ:
        paths.append(os.environ["PYTHONPATH"])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    flags = ["--smoke"] if suite.is_smoke else []
    for script, *options in (
        ["kernels/benchmarks/attention.py"],
        ["kernels/benchmarks/linear.py"],
        ["kernels/benchmarks/norms.py"],
        ["kernels/benchmarks/sampling.py", "--check"],
        ["kernels/benchmarks/sampling.py"],
        ["benchmarks/masks.py"],
        ["benchmarks/uploads.py"],
    ):
        command = [sys.executable, str(root / script), *options, *flags]
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(output)
        result = json.loads(output.splitlines()[-1])
        for row in result["rows"]:
            suite.keep(result["benchmark"], row)


def gate(suite: Suite) -> None:
    """The tests of kernels, models and the engine, on this device. Nothing is timed if one fails."""
    folders = ["tests/kernel"] if suite.is_smoke else ["tests/kernel", "tests/models", "tests/engine"]
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", *folders], check=True, cwd=Path(__file__).parents[1])
    suite.add("gate", passed=folders)


ORDER = (gate, ceilings, equality, kernels, decode, prefill, prefix, grammar, profile, start, offline, baseline)
SECTIONS: dict[str, Callable[[Suite], None]] = {section.__name__: section for section in ORDER}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", nargs="*", choices=SECTIONS, default=[])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--commit")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    stamp = _stamp(args.commit)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = args.tokenizer or default_model_path()
        out = None if args.smoke else args.out
        suite = Suite(args.smoke, 1 if args.smoke else args.repeats, Path(folder), tokenizer, out, stamp)
        suite.copy_bytes_per_s, suite.matmul_flops = copy_bytes_per_s(args.smoke), matmul_flops(args.smoke)
        for name, section in SECTIONS.items():
            if args.section and name not in args.section:
                continue
            if not args.section and _is_done(args.out, name, stamp):
                continue
            print(f"-- {name}", flush=True)
            started = time.perf_counter()
            section(suite)
            suite.keep("sections", {"section": name, "s": time.perf_counter() - started})
    print(json.dumps({"benchmark": "gpu_suite", **stamp, **suite.results}))


def _gaps(clocks: list[workloads.Clock]) -> dict[str, float]:
    """Step time and the spread of the gaps between tokens, once every row has its first one."""
    start = max(clock.times[0] for clock in clocks)
    gaps = sorted(gap for clock in clocks for gap in clock.gaps(start))
    return {
        "step_ms": statistics.mean(gaps) * 1e3,
        "gap_p50_ms": gaps[len(gaps) // 2] * 1e3,
        "gap_p99_ms": gaps[int(len(gaps) * 0.99)] * 1e3,
    }


def _stamp(commit: str | None) -> dict[str, str]:
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = commit or subprocess.run(git, capture_output=True, text=True).stdout.strip()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "commit": commit,
        "date": datetime.date.today().isoformat(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _is_done(out: Path, section: str, stamp: dict[str, str]) -> bool:
    path = out / "sections.jsonl"
    rows = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return any(row["section"] == section and row["commit"] == stamp["commit"] for row in rows)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_short, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    main()
