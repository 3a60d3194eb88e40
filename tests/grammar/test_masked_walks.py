"""Whole generations under masks with a real model's vocabulary: a random draw among the allowed tokens at each step."""

from __future__ import annotations

import json
import random
import re
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor
from sgrun.types import JsonSchemaSpec, RegexSpec

EXAMPLE_PHONE = r"\(\d{3}\) \d{3}-\d{4}"


Count = Annotated[int, Field(ge=-9, lt=10**6)]


class Invoice(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: Annotated[str, Field(pattern=r"^INV-\d{4}$")]
    buyer: Annotated[str, Field(max_length=12)]
    paid: bool
    kind: Literal["credit", "debit"] | None = None
    lines: Annotated[list[tuple[Annotated[str, Field(max_length=8)], Count]], Field(max_length=3)]


NAMES = ("smollm2", "tekken", "sentencepiece")


def _allowed(mask: np.ndarray, size: int) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[:size]).tolist()


def _walk(automaton: Automaton, vocabulary: Vocabulary, draw: random.Random) -> str:
    matcher = automaton.matcher(vocabulary)
    (end_id,) = vocabulary.end_token_ids
    data = b""
    for _ in range(3000):
        allowed = _allowed(matcher.bitmask(), vocabulary.size)
        assert allowed and not matcher.is_dead_end, data
        short = [i for i in allowed if len(vocabulary.token(i)) == 1]  # closes what long tokens would leave open
        token_id = draw.choice(short if short and draw.random() < 0.5 else allowed)
        if end_id in allowed and draw.random() < 0.5:
            token_id = end_id
        assert matcher.accept(token_id)
        if token_id == end_id:
            assert matcher.is_finished
            return data.decode()
        data += vocabulary.token(token_id)
    raise AssertionError(f"no end within 3000 tokens: {data!r}")


@pytest.mark.parametrize("name", NAMES)
def test_walks_under_a_regex_match_it(real_vocabularies: dict[str, Vocabulary], name: str) -> None:
    automaton = compile_grammar(RegexSpec(EXAMPLE_PHONE))
    for seed in range(20):
        assert re.fullmatch(EXAMPLE_PHONE, _walk(automaton, real_vocabularies[name], random.Random(seed)))


@pytest.mark.parametrize("name", NAMES)
def test_walks_under_a_schema_fit_the_model(real_vocabularies: dict[str, Vocabulary], name: str) -> None:
    automaton = compile_grammar(JsonSchemaSpec(json.dumps(Invoice.model_json_schema())))
    for seed in range(5):
        Invoice.model_validate_json(_walk(automaton, real_vocabularies[name], random.Random(seed)))


@pytest.mark.parametrize("pattern", [EXAMPLE_PHONE, r"\w+@\w+", "(?s).*"])
@pytest.mark.parametrize("name", NAMES)
def test_masks_of_real_vocabularies_are_what_their_definition_says(
    real_vocabularies: dict[str, Vocabulary], name: str, pattern: str
) -> None:
    automaton, vocabulary = compile_grammar(RegexSpec(pattern)), real_vocabularies[name]
    draw = random.Random(0)
    for state in sorted({automaton.start, *draw.choices(range(1, automaton.num_states), k=3)}):
        allowed = set(_allowed(vocabulary.masks.get(automaton, Cursor(state)), vocabulary.size))
        for token_id in range(vocabulary.size):
            data = vocabulary.token(token_id)
            is_alive = data != b"" and automaton.walker.advance(Cursor(state), data) is not None
            assert (token_id in allowed) == is_alive, (state, data)


OPEN = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "tags": {"type": "array", "maxItems": 40}},
    "additionalProperties": {"type": ["number", "string"], "maxLength": 300},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "prefix", ['{"', '{"na', '{"name": "ab é', '{"tags": [[{"a": "', '{"tags": [1,', '{"other": "x']
)
def test_masks_inside_open_objects_are_what_their_definition_says(
    real_vocabularies: dict[str, Vocabulary], name: str, prefix: str
) -> None:
    automaton, vocabulary = compile_grammar(JsonSchemaSpec(json.dumps(OPEN))), real_vocabularies[name]
    cursor = automaton.walker.advance(automaton.walker.start, prefix.encode())
    assert cursor is not None
    allowed = set(_allowed(vocabulary.masks.get(automaton, cursor), vocabulary.size))
    for token_id in range(vocabulary.size):
        data = vocabulary.token(token_id)
        is_alive = data != b"" and automaton.walker.advance(cursor, data) is not None
        assert (token_id in allowed) == is_alive, data
