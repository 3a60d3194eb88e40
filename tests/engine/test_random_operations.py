"""Random operations on the engine core against a naive model, with the page accounting checked after each of them.

The model here is a fake that can be predicted: K/V places hold token ids, and the next token is a hash of all tokens
that attention would read through the page table. A wrong page, a missed copy, or a stale place gives another token.
`python tests/engine/test_random_operations.py 100000` is the long run.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from sgrun.engine.core import EngineCore
from sgrun.engine.limits import Limits
from sgrun.engine.messages import (
    Abort,
    Append,
    Close,
    Event,
    Failed,
    Finished,
    FlushCache,
    Fork,
    Generate,
    Open,
    Score,
    ScoreOutput,
)
from sgrun.engine.scheduler import Row
from sgrun.engine.steps import HostSteps, StepResult, Steps
from sgrun.errors import AbortedError
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.models.inputs import ForwardInputs
from sgrun.types import GenerationResult, SamplingParams

VOCAB_SIZE = 40
PAGE_SIZE = 4
NUM_PAGES = 60
PEAK = 20.0


def next_token(tokens: list[int]) -> int:
    """Few values, so that sequences coincide and diverge often."""
    digest = hashlib.blake2b(bytes(tokens), digest_size=4).digest()
    return 3 + int.from_bytes(digest, "little") % 3


class HashModel:
    """Stores token ids where K/V would be and looks them up as attention would."""

    def __init__(self) -> None:
        self.places = np.full(NUM_PAGES * PAGE_SIZE, -1)

    def __call__(self, inputs: ForwardInputs) -> torch.Tensor:
        slots = inputs.store_slots.numpy()
        assert len(set(slots)) == len(slots), "two rows write one place"
        self.places[slots] = inputs.token_ids.numpy()
        self.places[inputs.copy_dst.numpy()] = self.places[inputs.copy_src.numpy()]
        starts = inputs.extend_starts.numpy()
        logits = torch.zeros(len(inputs.logits_rows), VOCAB_SIZE, device="cpu")
        for out, packed in enumerate(inputs.logits_rows.tolist()):
            row = int(np.searchsorted(starts, packed, side="right")) - 1
            seen = np.arange(int(inputs.positions[packed]) + 1)
            pages = inputs.page_tables[row].numpy()[seen // PAGE_SIZE]
            logits[out, next_token(self.places[pages * PAGE_SIZE + seen % PAGE_SIZE].tolist())] = PEAK
        return logits


class LateSteps(HostSteps):
    """Results come up to two steps late, as from a device that goes on with tokens that the host does not know."""

    max_ahead = 2

    def __init__(self, forward: HashModel) -> None:
        super().__init__(forward, PAGE_SIZE, torch.device("cpu"))
        self.unknown: dict[int, list[int]] = {}  # what leases have sampled that is not collected

    def launch(self, rows: list[Row]) -> None:
        known = [replace(row.task, tokens=row.task.tokens + self.unknown.get(id(row.lease), [])) for row in rows]
        super().launch([replace(row, task=task) for row, task in zip(rows, known, strict=True)])
        result = self._results.pop()
        row_of = {id(row.lease): row for row in rows}
        sampled = [(row_of[id(row.lease)], row_of[id(row.lease)].task, outcome) for row, _, outcome in result.sampled]
        scored = [(row_of[id(row.lease)], row_of[id(row.lease)].task, *rest) for row, _, *rest in result.scored]
        for row, _, outcome in sampled:
            self.unknown.setdefault(id(row.lease), []).append(outcome.token_id)
        self._results.append(StepResult(rows, sampled, scored))

    def collect(self) -> StepResult:
        result = self._results.pop(0)
        for row, _, _ in result.sampled:
            self.unknown[id(row.lease)].pop(0)
        return result


class ByteTokenizer:
    def __init__(self) -> None:
        self.token_bytes = [None, None, None, *[bytes([65 + i]) for i in range(VOCAB_SIZE - 3)]]
        self.eos_token_ids = frozenset({2})

    def encode_text(self, text: str) -> list[int]:
        return [ord(char) - 65 + 3 for char in text]


@dataclass
class NaiveSequence:
    """`expected` in the order of its operations: op id -> what must come back."""

    tokens: list[int] = field(default_factory=list)
    expected: dict[int, object] = field(default_factory=dict)
    has_forked: bool = False


class Harness:
    def __init__(self, seed: int, steps: Steps) -> None:
        self.rng = random.Random(seed)
        self.events: list[Event] = []
        limits = Limits(
            vocab_size=VOCAB_SIZE,
            context_len=128,
            page_size=PAGE_SIZE,
            num_pages=NUM_PAGES,
            token_budget=37,
            max_running=8,
            max_wait_s=0.0 if seed % 2 else 10.0,
        )
        tokenizer = ByteTokenizer()
        self.core = EngineCore(
            steps,
            tokenizer,
            Vocabulary(tokenizer.token_bytes, tokenizer.eos_token_ids),
            limits,
            self.events.append,
            lambda _: None,
        )
        self.sequences: dict[int, NaiveSequence] = {}
        self.num_ids = 0
        self.closed: list[NaiveSequence] = []  # they still have to deliver what they were asked for
        self.aborted: set[int] = set()
        self.num_results = 0

    def new_id(self) -> int:
        self.num_ids += 1
        return self.num_ids

    def operate(self) -> None:
        """One random operation on the engine and on the naive model."""
        actions = ["open", "append", "append", "generate", "generate", "score", "fork", "close", "abort", "flush"]
        action = self.rng.choices(actions, [4, 4, 4, 5, 5, 2, 4, 6, 1, 1])[0]
        if action == "flush":
            self.core.handle(FlushCache(self.new_id()))
        elif action == "open" or not self.sequences:
            seq_id = self.new_id()
            self.sequences[seq_id] = NaiveSequence()
            self.core.handle(Open(seq_id, priority=self.rng.choice([0, 0, 1])))
        else:
            seq_id = self.rng.choice(list(self.sequences))
            getattr(self, action)(seq_id, self.sequences[seq_id])

    def append(self, seq_id: int, seq: NaiveSequence) -> None:
        token_ids = self.rng.choices([3, 4, 5], k=self.rng.randint(1, 20))
        if len(seq.tokens) + len(token_ids) < 100:
            seq.tokens += token_ids
            self.core.handle(Append(seq_id, tuple(token_ids)))

    def generate(self, seq_id: int, seq: NaiveSequence) -> None:
        if not seq.tokens or len(seq.tokens) > 100:
            return
        op_id = self.new_id()
        num_tokens, n = self.rng.randint(1, 20), self.rng.choice([1, 1, 1, 3])
        stop = self.rng.choice([(), (), ("A",), ("BC", "CAB")])
        params = SamplingParams(max_tokens=num_tokens, temperature=0.0, n=n, stop=stop)
        text = ""
        tokens = list(seq.tokens)
        while len(text) < num_tokens and not any(word in text for word in stop):
            tokens.append(next_token(tokens))
            text += chr(65 + tokens[-1] - 3)
        cut = min((text.index(word) for word in stop if word in text), default=len(text))
        seq.tokens = tokens[: len(seq.tokens) + cut]
        seq.expected[op_id] = [text[:cut]] * n
        self.core.handle(Generate(seq_id, op_id, params))

    def score(self, seq_id: int, seq: NaiveSequence) -> None:
        if len(seq.tokens) > 100:
            return
        op_id = self.new_id()
        choices = tuple(tuple(self.rng.choices([3, 4, 5], k=self.rng.randint(1, 4))) for _ in range(3))
        seq.expected[op_id] = [is_likely(seq.tokens, choice) for choice in choices]
        self.core.handle(Score(seq_id, op_id, choices))

    def fork(self, seq_id: int, seq: NaiveSequence) -> None:
        if len(self.sequences) > 30:
            return
        child_ids = tuple(self.new_id() for _ in range(self.rng.randint(1, 4)))
        for child_id in child_ids:
            self.sequences[child_id] = NaiveSequence(list(seq.tokens))
        seq.has_forked = True
        self.core.handle(Fork(seq_id, child_ids))

    def close(self, seq_id: int, seq: NaiveSequence) -> None:
        self.core.handle(Close(seq_id))
        self.closed.append(self.sequences.pop(seq_id))

    def abort(self, seq_id: int, seq: NaiveSequence) -> None:
        if seq.has_forked:  # forks that wait for it would end with it
            return
        self.aborted.update(seq.expected)
        self.core.handle(Abort(seq_id))
        del self.sequences[seq_id]

    def step(self) -> None:
        self.core.step()
        self.check_invariant()
        for event in self.events:
            self.check_event(event)
        self.events.clear()

    def check_invariant(self) -> None:
        leases = [task.lease for task in self.core.scheduler.running]
        assert all(task.lease is None for task in self.core.scheduler.waiting)
        self.core.cache.check_invariant(leases)

    def check_event(self, event: Event) -> None:
        if isinstance(event, Failed):
            assert isinstance(event.error, AbortedError) and event.op_id in self.aborted, event
            return
        assert isinstance(event, Finished)
        if isinstance(event.result, int):
            return
        owner = next(seq for seq in [*self.sequences.values(), *self.closed] if event.op_id in seq.expected)
        expected = owner.expected.pop(event.op_id)
        if isinstance(event.result, GenerationResult):
            assert [completion.text for completion in event.result.completions] == expected
        else:
            assert isinstance(event.result, ScoreOutput)
            assert [[logprob > -1.0 for logprob in choice] for choice in event.result.logprobs] == expected
        self.num_results += 1
        self.closed = [seq for seq in self.closed if seq.expected]

    def drain(self) -> None:
        while self.core.has_work:
            self.step()
        self.step()
        for seq in self.closed:
            assert not seq.expected, "an operation was never answered"


def is_likely(tokens: list[int], choice: tuple[int, ...]) -> list[bool]:
    """With nothing before it a token scores 0.0, which counts as likely."""
    text = [*tokens, *choice]
    return [place == 0 or next_token(text[:place]) == text[place] for place in range(len(tokens), len(text))]


def run(num_operations: int, seed: int, steps: Steps) -> Harness:
    harness = Harness(seed, steps)
    for _ in range(num_operations):
        harness.operate()
        harness.check_invariant()
        if harness.rng.random() < 0.6:
            harness.step()
    for seq_id in list(harness.sequences):
        harness.close(seq_id, harness.sequences[seq_id])
    harness.drain()
    harness.core.handle(FlushCache(0))
    assert harness.core.cache.check_invariant([]) == (NUM_PAGES, 0, 0)
    return harness


def host_steps() -> HostSteps:
    return HostSteps(HashModel(), PAGE_SIZE, torch.device("cpu"))


def late_steps() -> LateSteps:
    return LateSteps(HashModel())


@pytest.mark.parametrize("steps", [host_steps, late_steps])
@pytest.mark.parametrize("seed", range(3))
def test_random_operations_give_what_a_naive_model_gives(seed: int, steps: Callable[[], Steps]) -> None:
    harness = run(4000, seed, steps())
    stats = harness.core.stats
    assert harness.num_results > 800
    assert stats.num_evicted_pages > 0 and stats.num_retractions > 0 and stats.num_failures == 0
    harness.core.close()


def test_a_request_that_arrives_while_others_decode_runs_once_the_steps_under_way_have_ended() -> None:
    harness = Harness(0, late_steps())
    for seq_id, max_tokens in ((1, 20), (2, 1)):
        harness.core.handle(Open(seq_id))
        harness.core.handle(Append(seq_id, (3, 4, seq_id)))
        harness.core.handle(Generate(seq_id, 10 + seq_id, SamplingParams(max_tokens=max_tokens, temperature=0.0)))
        for _ in range(LateSteps.max_ahead + 1):
            harness.core.step()
    assert [event.op_id for event in harness.events if isinstance(event, Finished)] == [12]
    harness.core.close()


if __name__ == "__main__":
    started = time.perf_counter()
    total = int(sys.argv[1])
    for number in range(10):
        done = run(total // 10, number, late_steps() if number % 2 else host_steps())
        print(number, done.core.stats, f"{done.num_results} results, {time.perf_counter() - started:.0f} s", flush=True)
        done.core.close()
