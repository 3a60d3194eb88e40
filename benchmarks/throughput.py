"""Output tokens a second on one machine, transformers' `generate` in the same run. A table and, last, one JSON line.

    python benchmarks/throughput.py [--model PATH] [--dtype bfloat16] [--repeats 3]

64 random prompt tokens, 64 output tokens, greedy, end tokens ignored: one request alone, and 16 at once. transformers
(sdpa) runs the same weights and dtype, the 16 as one static batch. llama.cpp runs the quantised file alone, where
llama-cpp-python is installed. Every repeat runs all contenders in turn; the median of the repeats counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from sgrun.engine.client import Engine
from sgrun.models.source import resolve_model
from sgrun.types import SamplingParams

PROMPT_LEN = 64
OUTPUT_LEN = 64


def prompts(count: int, seed: int) -> list[list[int]]:
    """Fresh ones each time, so that no prefix cache answers."""
    rng = random.Random(seed)
    return [rng.choices(range(100, 20_000), k=PROMPT_LEN) for _ in range(count)]


def sgrun_runner(engine: Engine) -> Callable[[int, int], None]:
    params = SamplingParams(max_tokens=OUTPUT_LEN, temperature=0.0, ignore_eos=True)

    def run(count: int, seed: int) -> None:
        futures = []
        for token_ids in prompts(count, seed):
            seq_id = engine.open()
            engine.append_ids(seq_id, token_ids)
            futures.append(engine.generate(seq_id, params))
            engine.close(seq_id)
        for future in futures:
            assert len(future.result().completions[0].token_ids) == OUTPUT_LEN

    return run


def transformers_runner(path: Path, dtype: torch.dtype) -> Callable[[int, int], None]:
    if path.suffix == ".gguf":  # by hand, because from_pretrained wants the package accelerate for these
        config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        weights = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
        model.load_state_dict(weights, strict=False)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype)

    @torch.inference_mode()
    def run(count: int, seed: int) -> None:
        token_ids = torch.tensor(prompts(count, seed))
        output = model.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            do_sample=False,
            min_new_tokens=OUTPUT_LEN,
            max_new_tokens=OUTPUT_LEN,
            pad_token_id=0,
        )
        assert output.shape == (count, PROMPT_LEN + OUTPUT_LEN)

    return run


def llama_cpp_runner(path: Path) -> Callable[[int, int], None]:
    import llama_cpp

    model = llama_cpp.Llama(str(path), n_ctx=256, n_threads=torch.get_num_threads(), verbose=False)

    def run(count: int, seed: int) -> None:
        for token_ids in prompts(count, seed):
            model.reset()
            for number, _ in enumerate(model.generate(token_ids, temp=0.0), start=1):
                if number == OUTPUT_LEN:
                    break

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    path = resolve_model(args.model)
    engine = Engine(path, dtype=args.dtype, device="cpu")
    runners = {"sgrun": sgrun_runner(engine), "transformers": transformers_runner(path, getattr(torch, args.dtype))}
    cases = [(name, count) for name in runners for count in (1, 16)]
    if path.suffix == ".gguf" and importlib.util.find_spec("llama_cpp") is not None:
        runners["llama.cpp"] = llama_cpp_runner(path)
        cases.append(("llama.cpp", 1))
    speeds: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    steps: dict[int, int] = {}
    for name, count in cases:
        runners[name](count, 0)
    for repeat in range(1, args.repeats + 1):
        for name, count in cases:
            num_steps, started = engine.stats.num_steps, time.perf_counter()
            runners[name](count, repeat)
            speeds[name, count].append(count * OUTPUT_LEN / (time.perf_counter() - started))
            if name == "sgrun":
                steps[count] = engine.stats.num_steps - num_steps
    engine.shutdown()
    medians = {case: statistics.median(values) for case, values in speeds.items()}
    print(f"{torch.get_num_threads()} threads, {args.dtype}, {PROMPT_LEN} in / {OUTPUT_LEN} out; output tokens/s")
    print(f"{'engine':<14}{'requests':>9}{'tokens/s':>10}{'min':>8}{'max':>8}{'x transformers':>16}{'steps':>7}")
    for name, count in cases:
        values = speeds[name, count]
        ratio = medians[name, count] / medians["transformers", count]
        num_steps_text = str(steps[count]) if name == "sgrun" else ""
        print(
            f"{name:<14}{count:>9}{medians[name, count]:>10.1f}{min(values):>8.1f}{max(values):>8.1f}"
            f"{ratio:>16.2f}{num_steps_text:>7}"
        )
    result = {
        "benchmark": "throughput",
        "dtype": args.dtype,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokens_per_s": {f"{name} x{count}": round(value, 1) for (name, count), value in medians.items()},
        "steps": steps,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
