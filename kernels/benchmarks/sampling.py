"""Draws of tokens against the time of reading the logits once, and against their exact distributions.

    PYTHONPATH=kernels python kernels/benchmarks/sampling.py [--smoke] [--check]

Rows of one class of parameters at a time, over logits as peaked as a model's ("zipf") and over flat ones; "torch" is
argmax for greedy rows and softmax with multinomial for all others, without cuts. `--check` draws a million tokens of
each class, alone and all mixed, and fails if a chi-square is five standard deviations off. `--smoke` runs tiny sizes
anywhere. A table and, last, one JSON line.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from timing import copy_bandwidth, median_us, num_cold_copies, print_result
from torch import Tensor

from sgrun_kernels.rows import Adjustments, Records, Rows, new_records, words_of
from sgrun_kernels.sampling import sample_
from sgrun_kernels.workspace import SampleWorkspace

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.7},
    "masked": {"temperature": 1.0, "automaton": 0},
    "top_k": {"temperature": 1.0, "top_k": 50},
    "top_p": {"temperature": 1.0, "top_p": 0.95},
    "top_k, top_p": {"temperature": 0.8, "top_k": 40, "top_p": 0.9},
    "min_p": {"temperature": 1.2, "min_p": 0.05},
    "penalties": {"temperature": 1.0, "adjustment": 0, "frequency_penalty": 0.3, "repetition_penalty": 1.2},
    "logprobs": {"temperature": 1.0, "wants_logprob": 1},
}


def zipf_logits(num_rows: int, vocab_size: int) -> Tensor:
    """The r-th likeliest token about r^-1.5 as likely as the first."""
    ranks = torch.argsort(torch.rand(num_rows, vocab_size, device=DEVICE), dim=-1) + 1
    return (-1.5 * ranks.log() + 0.3 * torch.randn(num_rows, vocab_size, device=DEVICE)).bfloat16()


def flat_logits(num_rows: int, vocab_size: int) -> Tensor:
    return torch.randn(num_rows, vocab_size, device=DEVICE).bfloat16()


class Sampler:
    """Rows of the given classes in turn, with what sampling them needs."""

    def __init__(self, classes: list[str], num_rows: int, vocab_size: int) -> None:
        generator = np.random.default_rng(1)
        self.records: Records = new_records(num_rows)
        self.records["is_active"], self.records["temperature"], self.records["mask"] = 1, 1.0, np.arange(num_rows)
        self.records["seed"] = generator.integers(-(2**63), 2**63, num_rows)
        for number in range(num_rows):
            for field, value in CLASSES[classes[number % len(classes)]].items():
                self.records[field][number] = value
        self.rows = Rows.allocate(num_rows, 1, DEVICE)
        self.rows.words.copy_(words_of(self.records))
        self.row_ids = torch.arange(num_rows, dtype=torch.int32, device=DEVICE)
        self.allowed = generator.random(-(-vocab_size // 32) * 32) < 0.3
        words = torch.from_numpy(np.packbits(self.allowed, bitorder="little").view(np.int32))
        self.masks = words.to(DEVICE).repeat(num_rows, 1)
        self.adjustments = Adjustments.allocate(1, vocab_size, DEVICE)
        self.adjustments.seen.copy_(torch.from_numpy(generator.choice([0, 0, 0, 1, 2, 5], vocab_size)))
        self.workspace = SampleWorkspace.allocate(num_rows, vocab_size, DEVICE)

    def draw(self, logits: Tensor) -> None:
        sample_(logits, self.row_ids, self.rows, self.masks, self.adjustments, self.workspace)


def measure(
    name: str, make_logits: Callable[[int, int], Tensor], num_rows: int, vocab_size: int
) -> tuple[float, float]:
    """(microseconds of a draw, of torch)."""
    copies = [make_logits(num_rows, vocab_size) for _ in range(num_cold_copies(2 * num_rows * vocab_size))]
    sampler = Sampler([name], num_rows, vocab_size)
    ours = median_us([lambda logits=logits: sampler.draw(logits) for logits in copies])

    def torch_draw(logits: Tensor) -> Tensor:
        return logits.argmax(-1) if name == "greedy" else torch.multinomial(logits.float().softmax(-1), 1)

    return ours, median_us([lambda logits=logits: torch_draw(logits) for logits in copies])


def exact_probs(logits: Tensor, record: Any, sampler: Sampler) -> np.ndarray:
    """The distribution of one row's draw in float64, from the definitions."""
    values = logits.double().cpu().numpy()
    if record["adjustment"] >= 0:
        seen = sampler.adjustments.seen[0].cpu().numpy()
        repetition = float(record["repetition_penalty"])
        values = np.where(seen > 0, np.where(values > 0, values / repetition, values * repetition), values)
        values = values - (seen >> 1) * float(record["frequency_penalty"])
    if record["automaton"] >= 0:
        values = np.where(sampler.allowed[: len(values)], values, -np.inf)
    if record["temperature"] == 0:
        return (np.arange(len(values)) == values.argmax()).astype(np.float64)
    order = np.argsort(-values, kind="stable")
    probs = np.exp((values[order] - values.max()) / float(record["temperature"]))
    probs[int(record["top_k"]) :] = 0
    probs /= probs.sum()
    if record["top_p"] < 1:
        probs[probs.cumsum() - probs >= float(record["top_p"])] = 0
    probs[probs < float(record["min_p"]) * probs[0]] = 0
    result = np.zeros(len(values))
    result[order] = probs / probs.sum()
    return result


def deviation(counts: np.ndarray, probs: np.ndarray) -> float:
    """Chi-square in standard deviations from its mean; tokens expected fewer than 10 times count as one."""
    assert not counts[probs == 0].any(), "a token outside of the distribution was drawn"
    expected = probs * counts.sum()
    is_likely = expected >= 10
    observed = np.append(counts[is_likely], counts[~is_likely].sum())
    expected = np.append(expected[is_likely], expected[~is_likely].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)) if freedom else 0.0


def check(classes: list[str], num_rows: int, num_draws: int, vocab_size: int) -> dict[str, float]:
    """Deviation of each class, all of them in the same launches."""
    sampler = Sampler(classes, num_rows, vocab_size)
    logits = zipf_logits(1, vocab_size).repeat(num_rows, 1)
    counts = torch.zeros(len(classes), vocab_size, dtype=torch.int64, device=DEVICE)
    kind = torch.arange(num_rows, device=DEVICE) % len(classes)
    ones = torch.ones(num_rows, dtype=torch.int64, device=DEVICE)
    for _ in range(-(-num_draws * len(classes) // num_rows)):
        sampler.draw(logits)
        drawn = sampler.rows.column("drawn").long()
        counts.view(-1).scatter_add_(0, kind * vocab_size + drawn, ones)
        sampler.rows.column("position").add_(1)
    return {
        name: deviation(counts[i].cpu().numpy(), exact_probs(logits[0], sampler.records[i], sampler))
        for i, name in enumerate(classes)
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    bandwidth, results = copy_bandwidth(), []
    if args.check:
        num_rows, num_draws, vocab_size = (18, 40, 300) if args.smoke else (4608, 1_000_000, 6000)
        mixed = check(list(CLASSES), num_rows, num_draws, vocab_size)
        for name in CLASSES:
            alone = check([name], num_rows, num_draws, vocab_size)[name]
            print(f"{name:<14} chi-square alone {alone:+.2f}, mixed {mixed[name]:+.2f} standard deviations")
            results.append({"class": name, "num_draws": num_draws, "alone": alone, "mixed": mixed[name]})
            assert max(alone, mixed[name]) < 5, name
        print_result("sampling-check", bandwidth, results)
        return
    print(f"{'class':<14}{'logits':<7}{'rows':>5}{'us':>9}{'x floor':>9}{'torch us':>10}")
    vocab_size = 5000 if args.smoke else 131072
    for num_rows in [2] if args.smoke else [1, 8, 64, 256]:
        for name in CLASSES:
            for kind, make_logits in {"zipf": zipf_logits, "flat": flat_logits}.items():
                us, torch_us = measure(name, make_logits, num_rows, vocab_size)
                ratio = us / (1e6 * 2 * num_rows * vocab_size / bandwidth)
                print(f"{name:<14}{kind:<7}{num_rows:>5}{us:>9.1f}{ratio:>9.1f}{torch_us:>10.1f}")
                row = {"class": name, "logits": kind, "num_rows": num_rows, "vocab_size": vocab_size}
                results.append({**row, "us": us, "floor_ratio": ratio, "torch_us": torch_us})
    print_result("sampling", bandwidth, results)


if __name__ == "__main__":
    main()
