"""Steps whose tokens are sampled on the device: the same tokens as with steps on the host, whatever happens between."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sgrun.engine.client import Engine
from sgrun.engine.device_steps import DeviceSteps
from sgrun.engine.runner import ModelRunner
from sgrun.engine.triton_kernels import TRITON_KERNELS
from sgrun.models.decoder import Decoder
from sgrun.models.piece_graphs import PieceGraphs
from sgrun.types import Completion, GrammarSpec, JsonSchemaSpec, RegexSpec, SamplingParams
from sgrun_kernels import triton_ops

OBJECT = '{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"$ref": "#"}}}}'
GRAMMARS: list[GrammarSpec | None] = [
    None,
    RegexSpec("(ab|c[0-9]{2,5}d)*"),
    JsonSchemaSpec(OBJECT),
    RegexSpec("[a-z]{30,}x"),
    JsonSchemaSpec('{"type": "string", "maxLength": 7}'),
    JsonSchemaSpec('{"type": "array", "items": {"type": "boolean"}, "minItems": 3}', whitespace="free"),
]


def requests() -> list[tuple[list[int], SamplingParams, GrammarSpec | None]]:
    rng = random.Random(0)
    return [
        (
            rng.choices(range(3, 290), k=rng.randint(1, 40)),
            SamplingParams(
                max_tokens=rng.randint(1, 30),
                temperature=rng.choice([0.0, 0.7, 3.0]),
                seed=number,
                n=rng.choice([1, 1, 3]),
                min_tokens=rng.choice([0, 0, 1]),
                presence_penalty=rng.choice([0.0, 0.5]),
                logit_bias=rng.choice([{}, {70: 2.0}]),
                ignore_eos=rng.random() < 0.3,
                stop=rng.choice([(), ("1", "bc")]),
                stop_token_ids=rng.choice([(), (40, 41)]),
                logprobs=rng.random() < 0.3,
            ),
            GRAMMARS[number % len(GRAMMARS)],
        )
        for number in range(36)
    ]


def outcomes(engine: Engine) -> list[tuple[Completion, ...] | str]:
    """What becomes of each request, all at once; the kind of the error where it has no completion."""
    futures = []
    for prompt, params, grammar in requests():
        seq_id = engine.open()
        engine.append_ids(seq_id, prompt)
        futures.append(engine.generate(seq_id, params, grammar))
        engine.close(seq_id)
    return [
        type(future.exception(120)).__name__ if future.exception(120) else future.result().completions
        for future in futures
    ]


@pytest.fixture(scope="module")
def expected(tiny_model: Path) -> list[tuple[Completion, ...] | str]:
    with Engine(tiny_model, dtype="float32", device="cpu", num_pages=256) as engine:
        return outcomes(engine)


@pytest.mark.parametrize("open_tiny_engine", ["device"], indirect=True)
@pytest.mark.parametrize(
    "options",
    [{"num_pages": 256}, {"num_pages": 256, "max_running": 3}, {"page_size": 4, "num_pages": 40}, {"token_budget": 9}],
    ids=["roomy", "few rows", "retractions", "small budget"],
)
def test_mixed_requests_have_the_same_outcomes(
    open_tiny_engine: Callable[..., Engine],
    expected: list[tuple[Completion, ...] | str],
    options: dict[str, int],
) -> None:
    engine = open_tiny_engine(**{"num_pages": 256, **options})
    for got, wanted in zip(outcomes(engine), expected, strict=True):
        if isinstance(got, str) or isinstance(wanted, str):
            assert got == wanted
            continue
        for completion, other in zip(got, wanted, strict=True):
            assert completion.token_ids == other.token_ids
            assert (completion.text, completion.finish_reason) == (other.text, other.finish_reason)
            assert (completion.stop_reason, completion.completion_tokens) == (
                other.stop_reason,
                other.completion_tokens,
            )
            logprobs, others = ([entry.logprob for entry in one.logprobs] for one in (completion, other))
            assert logprobs == pytest.approx(others, abs=1e-4)
    assert ("page_size" in options) == (engine.stats.num_retractions > 0)


def test_the_kernels_themselves_carry_an_engine(tiny_model: Path) -> None:
    """The whole way of a GPU: on one where there is one, otherwise under Triton's interpreter."""
    grammar = JsonSchemaSpec('{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')
    cases = [
        ([5, 6, 7], SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True), None),
        (list(range(30, 50)), SamplingParams(max_tokens=3, seed=1, top_p=0.8, logprobs=True), RegexSpec("[ab]{3,5}c")),
        (list(range(30, 64)), SamplingParams(max_tokens=4, seed=2, presence_penalty=0.5), grammar),
    ]
    tokens = []
    for device in ("cpu", str(torch.get_default_device())):
        with Engine(tiny_model, dtype="float32", device=device, num_pages=64, max_running=4) as engine:
            if tokens and device == "cpu":
                interpret_kernels(engine)
            futures = []
            for prompt, params, spec in cases:
                seq_id = engine.open()
                engine.append_ids(seq_id, prompt)
                futures.append(engine.generate(seq_id, params, spec))
            tokens.append([future.result(120).completions[0].token_ids for future in futures])
    assert tokens[0] == tokens[1]


def interpret_kernels(engine: Engine) -> None:
    """Gives a new engine on the CPU the operations and steps of a GPU."""
    core = engine._core
    decoder, kv = core.steps.forward.decoder, core.steps.forward.kv
    decoder = Decoder(decoder.config, decoder.weights, decoder.device, decoder.dtype, triton_ops)
    kv = torch.full((*kv.shape[:2], kv.shape[2] + 1, *kv.shape[3:]), float("nan"))
    limits = core.limits
    pieces = PieceGraphs(decoder, kv, limits.num_pages * limits.page_size, limits.token_budget)
    core.steps = DeviceSteps(ModelRunner(decoder, kv, pieces), core.vocabulary, core.limits, TRITON_KERNELS)
