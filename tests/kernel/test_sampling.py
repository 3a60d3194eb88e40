"""Draws on the device against the host's sampler, row by row; `kernels/benchmarks/sampling.py --check` holds a million
of them against the exact distributions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from device_rows import implementations, records_of, rows_of

from sgrun.engine.sampler import SampleRow, sample
from sgrun.types import SamplingParams
from sgrun_kernels import reference_sampling, sampling
from sgrun_kernels.rows import MAX_STOP_IDS, NOT_FINITE, NOTHING_ALLOWED, Adjustments, new_records
from sgrun_kernels.workspace import MAX_GROUPS, SampleWorkspace

IMPLEMENTATIONS = implementations(reference_sampling, sampling)
CLASSES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.75},
    "hot": {"temperature": 4.0},
    "cold": {"temperature": 0.05},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.75},
    "min_p": {"min_p": 0.1, "temperature": 1.25},
    "all cuts": {"top_k": 40, "top_p": 0.9375, "min_p": 0.01, "temperature": 1.5},
    "top_k 1": {"top_k": 1},
    "wide": {"top_k": 300, "top_p": 0.99},
    "penalties": {"frequency_penalty": 0.5, "presence_penalty": 0.25, "repetition_penalty": 1.25},
    "bias": {"logit_bias": {3: 4.0, 5: -100.0}, "top_p": 0.9},
}


class Case:
    """Rows for both sides: what the host's sampler is told, and records with masks and adjustments."""

    def __init__(self, vocab_size: int, max_groups: int = MAX_GROUPS) -> None:
        self.vocab_size = vocab_size
        self.max_groups = max_groups
        self.host: list[SampleRow] = []
        self.masks: list[np.ndarray] = []
        self.seen: list[np.ndarray] = []
        self.bias: list[np.ndarray] = []
        self.records: list[Any] = []

    def add(
        self,
        params: SamplingParams,
        seed: int,
        position: int,
        mask: np.ndarray | None = None,
        banned: tuple[int, ...] = (),
        prompt_ids: list[int] | None = None,
        output_ids: list[int] | None = None,
    ) -> None:
        prompt_ids, output_ids = prompt_ids or [], output_ids or []
        self.host.append(SampleRow(params, seed, position, prompt_ids, output_ids, mask, banned))
        record = new_records(1)
        record["seed"] = np.uint64(seed).astype(np.int64)
        record["temperature"] = 0.0 if params.is_greedy else params.temperature
        record["top_k"] = params.top_k if params.top_k > 0 else self.vocab_size
        for name in ("top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"):
            record[name] = getattr(params, name)
        record["position"], record["wants_logprob"], record["is_active"] = position, params.logprobs, 1
        assert len(banned) <= MAX_STOP_IDS
        record["stop_ids"][0, : len(banned)] = banned
        record["ban_until"] = position + 1 if banned else position
        record["automaton"], record["mask"] = -1 if mask is None else 0, len(self.masks)
        words = (self.vocab_size + 31) // 32
        self.masks.append(np.full(words, 0x5A5A5A5A, dtype=np.int32) if mask is None else mask)
        seen = np.zeros(self.vocab_size, dtype=np.int32)
        np.add.at(seen, output_ids, 2)
        seen[list(set(prompt_ids))] += 1
        bias = np.zeros(self.vocab_size, dtype=np.float32)
        bias[list(params.logit_bias)] = list(params.logit_bias.values())
        if seen.any() or bias.any():
            record["adjustment"] = len(self.seen)
            self.seen.append(seen)
            self.bias.append(bias)
        self.records.append(record)

    def draw(self, implementation: Any, logits: torch.Tensor, order: list[int] | None = None) -> Any:
        """Records after the draw of the rows `order` (all if None), logits [num_rows, V] being in the rows' order."""
        if order is None:
            order = list(range(len(self.records)))  # and the logits as they are, strides included
        else:
            logits = logits[order]
        records = np.concatenate(self.records)
        records["drawn"], records["drawn_logprob"] = -9, np.nan
        rows = rows_of(records)
        none = np.zeros((1, self.vocab_size))
        adjustments = Adjustments(
            torch.tensor(np.stack(self.seen) if self.seen else none, dtype=torch.int32),
            torch.tensor(np.stack(self.bias) if self.bias else none, dtype=torch.float32),
        )
        workspace = SampleWorkspace.allocate(len(order), self.vocab_size, rows.words.device)
        workspace = replace(workspace, groups=torch.empty((len(order), self.max_groups), dtype=torch.int32))
        for tensor in (workspace.stats, workspace.kept, workspace.group_maxes):
            tensor.fill_(float("nan"))
        workspace.brackets.copy_(torch.tensor([-1.0, 2.0, 1.0, 0.5]))
        workspace.num_ties.fill_(10**9)
        workspace.groups.fill_(10**9)
        workspace.num_groups.fill_(7)
        workspace.ties.fill_(10**9)
        ids = torch.tensor(order, dtype=torch.int32)
        masks = torch.tensor(np.stack(self.masks))
        implementation.sample_(
            logits,
            ids,
            rows,
            masks,
            adjustments,
            workspace,
        )
        empty = (workspace.counts, workspace.masses, workspace.above, workspace.arrivals, workspace.num_queued)
        assert not any(tensor.any() for tensor in empty)
        return records_of(rows)

    def check(self, implementation: Any, logits: torch.Tensor) -> None:
        expected = sample(logits.float().clone(), self.host)
        drawn = self.draw(implementation, logits)
        assert drawn["drawn"].tolist() == [row.token_id for row in expected]
        np.testing.assert_allclose(drawn["drawn_logprob"], [row.logprob for row in expected], rtol=2e-5, atol=1e-5)


def random_mask(generator: np.random.Generator, vocab_size: int, share: float) -> np.ndarray:
    bits = np.zeros((vocab_size + 31) // 32 * 32, dtype=np.bool_)
    bits[:vocab_size] = generator.random(vocab_size) < share
    bits[vocab_size - 1] = True
    return np.packbits(bits, bitorder="little").view("<i4")


def mixed_case(vocab_size: int, repeats: int, max_groups: int = MAX_GROUPS) -> Case:
    """Rows of every class, with and without masks and bans."""
    generator = np.random.default_rng(vocab_size)
    case = Case(vocab_size, max_groups)
    for repeat in range(repeats):
        for number, options in enumerate(CLASSES.values()):
            has_mask = (repeat + number) % 3 == 1
            ids = [int(i) for i in generator.integers(0, vocab_size, 8)]
            case.add(
                SamplingParams(**options, logprobs=number % 2 == 0),
                seed=int(generator.integers(0, 2**64, dtype=np.uint64)),
                position=int(generator.integers(0, 5000)),
                mask=random_mask(generator, vocab_size, 0.2) if has_mask else None,
                banned=(1, 7) if repeat % 2 else (),
                prompt_ids=ids[:4] if "penalties" in options or number == 10 else [],
                output_ids=[*ids[3:], ids[3]] if number == 10 else [],
            )
    return case


def random_logits(case: Case, dtype: torch.dtype, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(case.vocab_size)
    logits = torch.randn((len(case.records), case.vocab_size), generator=generator, device="cpu") * scale
    return logits.to(dtype).to(torch.get_default_device())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("vocab_size", "dtype", "max_groups"),
    [
        (33, torch.float32, MAX_GROUPS),
        (300, torch.bfloat16, MAX_GROUPS),
        (2049, torch.float16, 8),
        (4500, torch.bfloat16, 16),
        (4500, torch.bfloat16, MAX_GROUPS),
    ],
)
def test_every_class_of_rows_draws_what_the_host_draws(
    implementation: Any, vocab_size: int, dtype: torch.dtype, max_groups: int
) -> None:
    case = mixed_case(vocab_size, 2, max_groups)
    case.check(implementation, random_logits(case, dtype))


@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy, of the NaN by which the kernel knows
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_rows_without_a_token_are_flagged_and_others_go_on(implementation: Any) -> None:
    case = Case(40)
    nothing, last = np.zeros(2, dtype=np.int32), np.array([0, 128], dtype=np.int32)
    for temperature in (0.0, 1.0):
        for mask in (None, nothing, last):
            for top_p in (1.0, 0.5):
                case.add(SamplingParams(temperature=temperature, top_p=top_p, logprobs=True), 5, 1, mask)
    case.add(SamplingParams(temperature=0.0), 5, 1, last, banned=(39,))
    logits = random_logits(case, torch.float32)
    case.check(implementation, logits)
    for value in (float("nan"), float("inf"), float("-inf")):
        logits[3, 7] = logits[4, 39] = value
        drawn = case.draw(implementation, logits)["drawn"]
        assert drawn[3] == drawn[4] == NOT_FINITE and drawn[2] == NOTHING_ALLOWED and drawn[0] >= 0


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equal_logits_go_by_their_ids(implementation: Any) -> None:
    """Ties over several blocks: the lowest id wins, and cuts keep the lowest ids."""
    vocab_size = 4200
    case = Case(vocab_size)
    allowed = random_mask(np.random.default_rng(3), vocab_size, 0.5)
    for seed, mask in ((1, None), (2, allowed)):
        case.add(SamplingParams(temperature=0.0), seed, 0, mask)
        case.add(SamplingParams(top_k=1), seed, 0, mask)
        case.add(SamplingParams(top_k=70), seed, 0, mask)
        case.add(SamplingParams(top_p=0.031), seed, 0, mask)
        case.add(SamplingParams(top_k=100, top_p=0.47, min_p=1.0), seed, 0, mask)
    logits = torch.full((len(case.records), vocab_size), -7.0)
    logits[:, 1500:4100:2] = 1.0
    case.check(implementation, logits)
    logits = torch.full_like(logits, -7.0)
    logits[:, 100:400] = torch.tensor([-0.0, 0.0, -0.0]).repeat(100)
    case.check(implementation, logits)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_row_draws_the_same_alone_and_in_any_batch(implementation: Any) -> None:
    case = mixed_case(700, 1)
    logits = random_logits(case, torch.bfloat16)
    together = case.draw(implementation, logits)
    backwards = case.draw(implementation, logits, list(range(len(case.records)))[::-1])
    assert together.tobytes() == backwards.tobytes()
    for row_id in range(len(case.records)):
        alone = case.draw(implementation, logits, [row_id])
        assert alone[row_id].tobytes() == together[row_id].tobytes()
        assert (np.delete(alone["drawn"], row_id) == -9).all()


def test_a_vocabulary_of_131072_is_cut_and_drawn_as_on_the_host() -> None:
    """Where a few tokens are likely, and where nearly all are kept."""
    case = Case(131072)
    for options in ({"temperature": 0.0}, {}, {"top_k": 50, "top_p": 0.9}, {"top_p": 0.95}, {"min_p": 0.02}):
        case.add(SamplingParams(**options, logprobs=True), seed=3, position=17)
    logits = random_logits(case, torch.bfloat16, scale=2.0)
    logits[:3] *= 2
    padded = torch.full((len(logits), 131072 + 64), float("nan"), dtype=logits.dtype)
    padded[:, :131072] = logits
    case.check(sampling, padded[:, :131072])


@pytest.mark.parametrize("max_groups", [1, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_draws_do_not_depend_on_what_the_samples_tell(dtype: torch.dtype, max_groups: int) -> None:
    """Tokens that are samples far below or above all others, so that the cut is not where they say."""
    samples = (np.arange(9)[:, None] * 1024 + np.arange(0, 256, 8)).ravel()
    samples = samples[samples < 9000]
    for offset in (-9.0, 9.0):
        case = Case(9000, max_groups)
        for options in ({"top_p": 0.3}, {"top_p": 0.9}, {"top_k": 5}, {"top_k": 900, "top_p": 0.5}, {"top_k": 8990}):
            case.add(SamplingParams(**options), seed=7, position=len(case.records))
        logits = random_logits(case, dtype, scale=1.0)
        logits[:, torch.from_numpy(samples)] += offset
        case.check(sampling, logits)


@pytest.mark.parametrize("max_groups", [1, MAX_GROUPS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuts_among_logits_around_zero_are_found(dtype: torch.dtype, max_groups: int) -> None:
    """Half of the logits are so close to zero that they have most of the keys; the cuts lie among and beside them."""
    case = Case(9000, max_groups)
    cuts = [(50, 1.0), (900, 1.0), (4400, 0.9), (7000, 1.0), (7000, 0.8), (8900, 0.9), (-1, 0.6)]
    for top_k, top_p in cuts:
        case.add(SamplingParams(top_k=top_k, top_p=top_p), seed=9, position=len(case.records))
    logits = random_logits(case, dtype, scale=3.0) - 4.0
    logits[:, ::2] = random_logits(case, dtype, scale=0.001)[:, ::2]
    logits[:, 100:200] = torch.tensor([0.0, -0.0]).repeat(50)
    case.check(sampling, logits)
    logits = random_logits(case, dtype, scale=0.001)
    logits[:, :200] = torch.tensor([0.3, -0.2, -0.01, -0.01]).repeat(50)
    case.check(sampling, logits)


def test_top_logprobs_are_of_the_raw_distribution() -> None:
    logits = torch.randn(3, 50)
    ids, logprobs = sampling.top_logprobs(logits.bfloat16(), 5)
    expected = torch.log_softmax(logits.bfloat16().float(), dim=-1)
    assert torch.equal(logprobs, expected.sort(descending=True).values[:, :5])
    assert torch.equal(expected.gather(1, ids), logprobs)
