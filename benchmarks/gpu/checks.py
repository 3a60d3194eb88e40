"""Whether the engine on this device says what it says on the CPU."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.workloads import Prompts, greedy
from sgrun.config import Dtype
from sgrun.engine.client import Engine

PROMPT_LEN = 48


def compare_with_cpu(dtype: Dtype, num_prompts: int, num_outputs: int) -> dict[str, Any]:
    """Greedy tokens of the default model on the default device in `dtype`, against the CPU in float32."""
    prompts = Prompts(49_000).take(num_prompts, PROMPT_LEN)
    outputs = []
    for options in ({"device": "cpu", "dtype": "float32"}, {"dtype": dtype}):
        with Engine(num_pages=4096, **options) as engine:
            futures = []
            for token_ids in prompts:
                seq_id = engine.open()
                engine.append_ids(seq_id, token_ids)
                futures.append(engine.generate(seq_id, greedy(num_outputs)))
                engine.close(seq_id)
            outputs.append([future.result().completions[0].token_ids for future in futures])
            device = str(engine.device)
    pairs = list(zip(*outputs, strict=True))
    same_first = sum(expected[0] == got[0] for expected, got in pairs)
    return {
        "device": device,
        "dtype": dtype,
        "prompts": num_prompts,
        "outputs": num_outputs,
        "identical": sum(expected == got for expected, got in pairs),
        "same_first_token": same_first,
    }
