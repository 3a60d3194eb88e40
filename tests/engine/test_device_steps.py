"""Steps whose tokens are sampled on the device: the same tokens as with steps on the host, whatever happens between."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sgrun.engine.client import Engine
from sgrun.types import Completion, GrammarSpec, JsonSchemaSpec, RegexSpec, SamplingParams

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
