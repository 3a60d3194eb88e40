"""Constraints that are made to cost, end to end: each fails or runs by itself, and whoever runs beside is served."""

from __future__ import annotations

import time

import pytest
from test_engine import open_with, random_ids

from sgrun.engine.client import Engine
from sgrun.errors import GrammarError, GrammarTooLargeError
from sgrun.types import GrammarSpec, JsonSchemaSpec, LarkSpec, RegexSpec, SamplingParams

REFUSED: list[GrammarSpec] = [
    RegexSpec("(.*a.{18}|b)"),
    RegexSpec("(?:(?:a{1,200}b?){1,200}c?){1,200}"),
    RegexSpec("(" * 30_000),
    JsonSchemaSpec('{"items":' * 5000 + "{}" + "}" * 5000),
    JsonSchemaSpec('{"type":"array","minItems":1,"items":' * 90 + "{}" + "}" * 90),
    JsonSchemaSpec('{"multipleOf":0.123456789,"minimum":1}'),
    LarkSpec('start: ("a" ~ 0..999 "b") ~ 0..999'),
    LarkSpec("start: /(a|b)*a(a|b){16}/"),
]
LARGE = RegexSpec(r"(?=.*[A-Z])(?=.*[a-z])(?=.*\d)(?=.*[^\w\s]).{8,64}")  # tables of some 20 MB
PARAMS = SamplingParams(max_tokens=70, temperature=1.0, seed=1, ignore_eos=True)


def test_others_go_on_and_get_what_they_would_get_alone(tiny_engine: Engine) -> None:
    prompts = [random_ids(seed, 12) for seed in range(3)]
    alone = [tiny_engine.generate(open_with(tiny_engine, ids), PARAMS).result(60).completions[0] for ids in prompts]
    hostile = [tiny_engine.generate(open_with(tiny_engine, [5]), PARAMS, spec) for spec in REFUSED]
    beside = [tiny_engine.generate(open_with(tiny_engine, ids), PARAMS) for ids in prompts]
    assert [future.result(60).completions[0].token_ids for future in beside] == [one.token_ids for one in alone]
    for future in hostile:
        with pytest.raises(GrammarError):
            future.result(120)
    good = tiny_engine.generate(open_with(tiny_engine, [5]), PARAMS, RegexSpec("yes|no"))
    assert good.result(60).completions[0].text in ("yes", "no")


def test_large_automata_hold_nobody_up(tiny_engine: Engine) -> None:
    large = tiny_engine.generate(open_with(tiny_engine, [5]), PARAMS, LARGE)
    steps: list[float] = []
    while not large.done():
        start = time.monotonic()
        short = SamplingParams(max_tokens=1, temperature=0.0)
        tiny_engine.generate(open_with(tiny_engine, [5]), short).result(60)
        steps.append(time.monotonic() - start)
    try:
        text = large.result(0).completions[0].text
    except GrammarTooLargeError as error:  # on a machine with much else to do
        assert "longer than 5 s" in str(error)
        return
    assert 8 <= len(text) <= 64
    assert sorted(steps)[-2] < 1, sorted(steps)[-5:]
