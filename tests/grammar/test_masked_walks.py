"""Whole generations under masks with a real model's vocabulary: a random draw among the allowed tokens at each step."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field

from sgrun.engine.tokenizer import Tokenizer
from sgrun.grammar.automaton import DEAD, Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.matcher import GrammarMatcher, MaskCache, advance, token_bitmask
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.types import JsonSchemaSpec, RegexSpec

EXAMPLE_PHONE = r"\(\d{3}\) \d{3}-\d{4}"


class Invoice(BaseModel):
    number: Annotated[str, Field(pattern=r"^INV-\d{4}$")]
    buyer: Annotated[str, Field(max_length=12)]
    paid: bool
    kind: Literal["credit", "debit"] | None = None
    lines: Annotated[list[tuple[Annotated[str, Field(max_length=8)], int]], Field(max_length=3)]


@pytest.fixture(scope="module")
def tokenizer(smollm2_gguf: Path) -> Tokenizer:
    return Tokenizer.load(smollm2_gguf)


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(tokenizer.token_bytes)


def _allowed(mask: np.ndarray, size: int) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[:size]).tolist()


def _walk(automaton: Automaton, vocabulary: Vocabulary, end_id: int, draw: random.Random) -> str:
    matcher = GrammarMatcher(automaton, vocabulary, MaskCache(1 << 24), (end_id,))
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


def test_walks_under_a_regex_match_it(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    automaton = compile_grammar(RegexSpec(EXAMPLE_PHONE))
    for seed in range(20):
        text = _walk(automaton, vocabulary, min(tokenizer.eos_token_ids), random.Random(seed))
        assert re.fullmatch(EXAMPLE_PHONE, text)


def test_walks_under_a_schema_fit_the_model(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    automaton = compile_grammar(JsonSchemaSpec(json.dumps(Invoice.model_json_schema())))
    for seed in range(10):
        Invoice.model_validate_json(_walk(automaton, vocabulary, min(tokenizer.eos_token_ids), random.Random(seed)))


@pytest.mark.parametrize("pattern", [EXAMPLE_PHONE, r"\w+@\w+", "(?s).*"])
def test_masks_of_the_real_vocabulary_are_what_their_definition_says(vocabulary: Vocabulary, pattern: str) -> None:
    automaton = compile_grammar(RegexSpec(pattern))
    draw = random.Random(0)
    for state in sorted({automaton.start, *draw.choices(range(automaton.num_states), k=4)}):
        allowed = set(_allowed(token_bitmask(automaton, state, vocabulary), vocabulary.size))
        for token_id in draw.sample(range(vocabulary.size), 3000):
            data = vocabulary.token(token_id)
            assert (token_id in allowed) == (data != b"" and advance(automaton, state, data) != DEAD)
