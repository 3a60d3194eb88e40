"""Tokens prefilled against the offline optimum, for shapes of programs. Prints a table and, last, one JSON line.

    python benchmarks/prefix_reuse.py [--model PATH] [--device cpu] [--dtype auto] [--scale 4]

The optimum: every distinct (prefix, token) that some prompt holds is computed once, however many sequences hold it and
whenever they arrive. `--scale` divides the published lengths of the workloads (see docs/prefix_cache.md).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from sgrun.engine.client import Engine
from sgrun.types import GenerationResult, SamplingParams, ScoreResult

Ids = list[int]
WORDS = (
    "man",
    "woman",
    "child",
    "takes",
    "puts",
    "holds",
    "ball",
    "chair",
    "dog",
    "beside",
    "water",
    "house",
    "street",
)


@dataclass
class Recorder:
    """An engine whose operations are written down, to be replayed on a trie once all results are there."""

    engine: Engine
    rng: random.Random
    log: list[tuple[str, int, object]] = field(default_factory=list)

    def ids(self, length: int) -> Ids:
        return self.rng.choices(range(100, 20_000), k=max(length, 1))

    def open(self, token_ids: Ids) -> int:
        seq_id = self.engine.open()
        self.append(seq_id, token_ids)
        return seq_id

    def append(self, seq_id: int, token_ids: Ids) -> None:
        self.log.append(("append", seq_id, token_ids))
        self.engine.append_ids(seq_id, token_ids)

    def generate(self, seq_id: int, max_tokens: int) -> Future[GenerationResult]:
        params = SamplingParams(max_tokens=max(max_tokens, 1), temperature=0.0, ignore_eos=True)
        future = self.engine.generate(seq_id, params)
        self.log.append(("generate", seq_id, future))
        return future

    def select(self, seq_id: int, choices: list[str]) -> None:
        self.log.append(("select", seq_id, self.engine.select(seq_id, choices, lambda result: 0)))

    def fork(self, seq_id: int, num_branches: int) -> list[int]:
        child_ids = self.engine.fork(seq_id, num_branches)
        self.log.append(("fork", seq_id, child_ids))
        return child_ids

    def optimum(self) -> int:
        """Distinct prefixes that some prompt or choice needs. Sampled tokens are not among them, unless a later prompt
        goes on from one whose K/V no decode step had to compute: the last of a generation."""
        sequences: dict[int, tuple[int, ...]] = {}
        needed: set[int] = set()  # hashes of prefixes
        decoded: set[int] = set()
        for kind, seq_id, value in self.log:
            tokens = sequences.get(seq_id, ())
            if isinstance(value, Future):
                result = value.result()
                hashes = prefix_hashes(tokens)
                needed.update(hashes)
                if isinstance(result, ScoreResult):
                    for choice in result.choices:
                        needed.update(prefix_hashes((*tokens, *choice.token_ids[:-1])))
                    tokens = (*tokens, *result.choices[result.decision or 0].token_ids)
                else:
                    outputs = result.completions[0].token_ids
                    decoded.update(prefix_hashes((*tokens, *outputs[:-1]))[len(tokens) :])
                    tokens = (*tokens, *outputs)
            elif kind == "append":
                assert isinstance(value, list)
                tokens = (*tokens, *value)
            else:
                assert isinstance(value, list)
                sequences.update(dict.fromkeys(value, tokens))
            sequences[seq_id] = tokens
        return len(needed - decoded)


def prefix_hashes(tokens: tuple[int, ...]) -> list[int]:
    hashes, state = [], 0
    for token_id in tokens:
        state = hash((state, token_id))
        hashes.append(state)
    return hashes


def fork_of_cold_prompt(recorder: Recorder, scale: int) -> None:
    for child in recorder.fork(recorder.open(recorder.ids(512)), 8):
        recorder.append(child, recorder.ids(16))
        recorder.generate(child, 4)


def cold_prefix_of_403(recorder: Recorder, scale: int) -> None:
    prefix = recorder.ids(403)
    for _ in range(16):
        recorder.generate(recorder.open(prefix + recorder.ids(12)), 4)


def second_turn(recorder: Recorder, scale: int) -> None:
    seq_id = recorder.open(recorder.ids(200))
    recorder.generate(seq_id, 20)
    recorder.append(seq_id, recorder.ids(50))
    recorder.generate(seq_id, 20)


def chat(recorder: Recorder, scale: int) -> None:
    """20 chats of 4 turns, user 256-512, answers 4-8 (multi_turn_chat, short)."""
    for _ in range(20 // scale):
        seq_id = recorder.open([1])
        for _ in range(4):
            recorder.append(seq_id, recorder.ids(recorder.rng.randint(256, 512) // scale))
            recorder.generate(seq_id, recorder.rng.randint(4, 8))


def tree_of_thought(recorder: Recorder, scale: int) -> None:
    """Branch 2, depth 4: 2 + 4 + 8 + 16 generations (tree_of_thought_deep)."""
    instruction = recorder.ids(65)
    for _ in range(8 // scale):
        leaves = [recorder.open(instruction + recorder.ids(90))]
        for _ in range(4):
            leaves = [child for leaf in leaves for child in recorder.fork(leaf, 2)]
            for leaf in leaves:
                recorder.append(leaf, recorder.ids(38))
                recorder.generate(leaf, 64 // scale)


def judge(recorder: Recorder, scale: int) -> None:
    """Six metrics on one article, merged back (llm_judge, branch-solve-merge)."""
    for _ in range(8 // scale):
        parent = recorder.open(recorder.ids(35) + recorder.ids(600 // scale))
        answers = []
        for child in recorder.fork(parent, 6):
            recorder.append(child, recorder.ids(90 // scale))
            answers.append(recorder.generate(child, 64 // scale))
        for answer in answers:
            recorder.append(parent, list(answer.result().completions[0].token_ids))
        recorder.generate(parent, 2)


def few_shot(recorder: Recorder, scale: int) -> None:
    """One prefix a subject, many questions, one token each (mmlu)."""
    for _ in range(8 // scale):
        prefix = recorder.ids(1536 // scale)
        for _ in range(16):
            recorder.generate(recorder.open(prefix + recorder.ids(recorder.rng.randint(60, 150) // scale)), 1)


def choices(recorder: Recorder, scale: int) -> None:
    """One 20-shot prefix, four endings for each question (hellaswag)."""
    prefix = recorder.ids(2000 // scale)
    for _ in range(40 // scale):
        seq_id = recorder.open(prefix + recorder.ids(50 // scale))
        recorder.select(seq_id, [" " + " ".join(recorder.rng.choices(WORDS, k=32 // scale)) for _ in range(4)])


SHAPES: list[Callable[[Recorder, int], None]] = [
    fork_of_cold_prompt,
    cold_prefix_of_403,
    second_turn,
    chat,
    tree_of_thought,
    judge,
    few_shot,
    choices,
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--scale", type=int, default=4)
    args = parser.parse_args()
    with Engine(args.model, device=args.device, dtype=args.dtype) as engine:
        rows = {shape.__name__: measure(engine, shape, args.scale) for shape in SHAPES}
        device = torch.cuda.get_device_name() if engine.device.type == "cuda" else "cpu"
    print(f"{'shape':<22}{'prefilled':>11}{'optimum':>9}{'ratio':>8}{'evicted':>9}{'seconds':>9}")
    for name, row in rows.items():
        ratio = row["prefilled"] / row["optimum"]
        print(
            f"{name:<22}{row['prefilled']:>11.0f}{row['optimum']:>9.0f}{ratio:>8.3f}"
            f"{row['evicted_pages']:>9.0f}{row['seconds']:>9.2f}"
        )
    print(json.dumps({"benchmark": "prefix_reuse", "device": device, "torch": torch.__version__, "shapes": rows}))


def measure(engine: Engine, shape: Callable[[Recorder, int], None], scale: int) -> dict[str, float]:
    engine.flush_cache()
    before, started = engine.stats, time.perf_counter()
    recorder = Recorder(engine, random.Random(0))
    shape(recorder, scale)
    optimum = recorder.optimum()
    seconds, after = time.perf_counter() - started, engine.stats
    for seq_id in {seq_id for _, seq_id, _ in recorder.log}:
        engine.close(seq_id)
    return {
        "prefilled": after.extend_tokens - before.extend_tokens,
        "optimum": optimum,
        "evicted_pages": after.num_evicted_pages - before.num_evicted_pages,
        "seconds": round(seconds, 3),
    }


if __name__ == "__main__":
    main()
