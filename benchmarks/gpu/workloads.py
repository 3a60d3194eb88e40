"""What is timed on an engine. Every function returns plain numbers; the engine's prompts are token ids."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from sgrun.engine.client import Engine
from sgrun.types import Chunk, GenerationResult, GrammarSpec, JsonSchemaSpec, SamplingParams


@dataclass(frozen=True, slots=True)
class Timing:
    """Of repeated runs, in seconds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        return cls(statistics.median(seconds), min(seconds), max(seconds))


class Prompts:
    """Fresh random prompts each time, so that no prefix cache answers."""

    def __init__(self, vocab_size: int) -> None:
        self._rng = np.random.default_rng(0)
        self._vocab_size = vocab_size

    def take(self, count: int, length: int) -> list[list[int]]:
        ids: list[list[int]] = self._rng.integers(100, self._vocab_size, (count, length)).tolist()
        return ids


def greedy(num_outputs: int) -> SamplingParams:
    return SamplingParams(max_tokens=num_outputs, temperature=0.0, ignore_eos=True)


def run(
    engine: Engine, prompts: list[list[int]], params: SamplingParams, grammars: Sequence[GrammarSpec] = ()
) -> float:
    """Seconds until all prompts, submitted at once, have been continued."""
    started = time.perf_counter()
    futures = []
    for number, token_ids in enumerate(prompts):
        seq_id = engine.open()
        engine.append_ids(seq_id, token_ids)
        futures.append(engine.generate(seq_id, params, grammars[number] if grammars else None))
        engine.close(seq_id)
    for future in futures:
        num_tokens = future.result().completions[0].completion_tokens
        assert grammars or num_tokens == params.max_tokens, f"{num_tokens} tokens instead of {params.max_tokens}"
    return time.perf_counter() - started


def decode_step(
    engine: Engine, prompts: Prompts, batch: int, prompt_len: int, num_outputs: int, repeats: int
) -> Timing:
    """Seconds a step: (a run with `num_outputs` - the median run with one) / (num_outputs - 1), host work included."""
    run(engine, prompts.take(batch, prompt_len), greedy(num_outputs))
    run(engine, prompts.take(batch, prompt_len), greedy(1))
    one = statistics.median(run(engine, prompts.take(batch, prompt_len), greedy(1)) for _ in range(3))
    runs = [run(engine, prompts.take(batch, prompt_len), greedy(num_outputs)) for _ in range(repeats)]
    return Timing.of([(seconds - one) / (num_outputs - 1) for seconds in runs])


def prefill(engine: Engine, prompts: Prompts, batch: int, prompt_len: int, repeats: int) -> Timing:
    """Seconds until each of `batch` prompts has its first token."""
    run(engine, prompts.take(batch, prompt_len), greedy(1))
    return Timing.of([run(engine, prompts.take(batch, prompt_len), greedy(1)) for _ in range(repeats)])


def shared_prefix(
    engine: Engine, prompts: Prompts, batch: int, shared: int, own: int, num_outputs: int
) -> tuple[float, float]:
    """(cold, warm) seconds of `batch` requests on one prefix that is new at first."""
    prefix = prompts.take(1, shared)[0]

    def once() -> float:
        return run(engine, [prefix + tail for tail in prompts.take(batch, own)], greedy(num_outputs))

    return once(), once()


class Clock:
    """When the tokens of one request came: give `record` to the engine as `on_chunk`."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.counts: list[int] = []

    def record(self, chunk: Chunk) -> None:
        self.times.append(time.perf_counter())
        self.counts.append(len(chunk.token_ids))

    def gaps(self, since: float, until: float = math.inf) -> list[float]:
        """Seconds from token to token in that time. Tokens without text of their own come with a later one: what
        passed is divided among them."""
        spans = zip(itertools.pairwise(self.times), self.counts[1:], strict=True)
        return [(b - a) / count for (a, b), count in spans if since <= a and b <= until for _ in range(count)]


def submit(
    engine: Engine, prompts: list[list[int]], params: SamplingParams, grammars: Sequence[GrammarSpec] = ()
) -> tuple[list[Clock], list[Future[GenerationResult]]]:
    """Starts all requests at once."""
    clocks, futures = [Clock() for _ in prompts], []
    for number, token_ids in enumerate(prompts):
        seq_id = engine.open()
        engine.append_ids(seq_id, token_ids)
        grammar = grammars[number] if grammars else None
        futures.append(engine.generate(seq_id, params, grammar, on_chunk=clocks[number].record))
        engine.close(seq_id)
    return clocks, futures


@dataclass(frozen=True, slots=True)
class Arrival:
    """Seconds. `gap_alone`: between tokens of those that decode, before the newcomer came; `gap_p50` and `gap_p99`:
    while it was computed and shortly after."""

    first_token: float
    gap_alone: float
    gap_p50: float
    gap_p99: float


def arrival(
    engine: Engine, prompts: Prompts, num_decoding: int, prompt_len: int, newcomer_len: int, num_outputs: int
) -> Arrival:
    """One long prompt arrives while others decode."""
    clocks, futures = submit(engine, prompts.take(num_decoding, prompt_len), greedy(num_outputs))
    while sum(clocks[-1].counts) < num_outputs // 4:
        time.sleep(0.001)
    decoding = time.perf_counter()
    while sum(clocks[-1].counts) < num_outputs // 2:
        time.sleep(0.001)
    arrived = time.perf_counter()
    first_token = run(engine, prompts.take(1, newcomer_len), greedy(1))
    for future in futures:
        future.result()
    window = arrived + 2 * first_token  # what the newcomer held up has come by then
    before = [gap for clock in clocks for gap in clock.gaps(decoding, arrived)]
    during = [gap for clock in clocks for gap in clock.gaps(arrived - 0.01, window)]
    return Arrival(first_token, *(float(np.quantile(*of)) for of in ((before, 0.5), (during, 0.5), (during, 0.99))))


def object_schemas(count: int, seed: int = 0) -> list[JsonSchemaSpec]:
    """Different schemas, each of an array of at least 500 objects with five typed fields: no row ends early."""
    rng = random.Random(seed)
    types = [
        {"type": "integer"},
        {"type": "string"},
        {"type": "boolean"},
        {"type": "number"},
        {"enum": ["a", "b", "c"]},
    ]
    specs = []
    for _ in range(count):
        names = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in types]
        item = {
            "type": "object",
            "properties": dict(zip(names, rng.sample(types, len(types)), strict=True)),
            "required": names,
            "additionalProperties": False,
        }
        schema = {"type": "array", "items": item, "minItems": 500}
        specs.append(JsonSchemaSpec(json.dumps(schema), whitespace="free"))
    return specs
