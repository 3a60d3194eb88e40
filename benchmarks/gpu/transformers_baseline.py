"""transformers' generate with sdpa on a random model of the same shape: what most people have today."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.gpu.workloads import Timing


def decode_step(shape: dict[str, Any], batch: int, prompt_len: int, num_outputs: int, repeats: int) -> Timing:
    """Seconds a step, by the same difference of two runs as the engine's."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.for_model(**{key: value for key, value in shape.items() if key != "architectures"})
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()

    @torch.inference_mode()
    def run(num_new: int) -> float:
        token_ids = torch.randint(100, config.vocab_size, (batch, prompt_len), device=device)
        started = time.perf_counter()
        model.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            do_sample=False,
            min_new_tokens=num_new,
            max_new_tokens=num_new,
            pad_token_id=0,
        )
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    run(num_outputs)
    return Timing.of([(run(num_outputs) - run(1)) / (num_outputs - 1) for _ in range(repeats)])
