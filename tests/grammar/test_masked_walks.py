"""Whole generations by masked sampling over real vocabularies, and valid texts that no mask may stop.

Logits are random; `Matcher.bitmask`, a draw, `Matcher.accept`, until an end token is drawn. Each text is judged by a
validator that knows nothing of this project. `python tests/grammar/test_masked_walks.py 10000` is the long run; with
the path of a file of MaskBench after it, all its schemas are walked too, and their valid instances followed.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from token_walks import RandomModel, Tokens, Walk, sampled_text
from tokenizer_files import real_vocabularies as make_vocabularies
from walk_subjects import Subject, choices, grammars, regexes, schema_validator, schemas

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.sample import Sampler
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor
from sgrun.types import JsonSchemaSpec, RegexSpec

VOCABULARIES = ("smollm2", "tekken", "sentencepiece")
SUBJECTS = [*schemas(), *choices(), *grammars()]
PATTERNS = list(regexes())


@pytest.fixture(scope="module")
def tokens(real_vocabularies: dict[str, Vocabulary]) -> dict[str, Tokens]:
    return {name: Tokens(vocabulary) for name, vocabulary in real_vocabularies.items()}


class Walker:
    """Walks of one constraint over one vocabulary."""

    def __init__(self, subject: Subject, automaton: Automaton, tokens: Tokens, seed: int) -> None:
        self.subject = subject
        self.automaton = automaton
        self.tokens = tokens
        self._draw = random.Random(seed)
        self._model = RandomModel(tokens, seed)
        self._sampler = Sampler(automaton, seed)

    def sample(self, soft_len: int) -> tuple[bool, int]:
        """Whether a text that a random model drew came to its end, where the validator found it valid; and how many
        masks that took."""
        walk = Walk(self.automaton, self.tokens)
        data = sampled_text(walk, self._model, self._sampler, soft_len, self._draw)
        assert data is None or self.subject.is_valid(data.decode()), (self.subject.name, data)
        return data is not None, walk.num_masks

    def follow_valid(self) -> None:
        """No token of a valid text is masked, however the text is cut into tokens."""
        for text in self.subject.valid:
            assert self.subject.is_valid(text), text
            walk = Walk(self.automaton, self.tokens)
            assert walk.follow(text.encode(), self._draw), (self.subject.name, text, walk.data)


@pytest.mark.parametrize("number", range(len(SUBJECTS)))
def test_masked_walks_end_in_valid_texts_and_valid_texts_are_never_masked(
    number: int, tokens: dict[str, Tokens]
) -> None:
    walker = Walker(SUBJECTS[number], compile_grammar(SUBJECTS[number].spec), tokens[VOCABULARIES[number % 3]], number)
    walker.follow_valid()
    for soft_len in (3, 10, 30):
        walker.sample(soft_len)


def test_masked_walks_match_the_patterns_in_use(tokens: dict[str, Tokens]) -> None:
    for number, subject in enumerate(PATTERNS[::24]):
        walker = Walker(subject, compile_grammar(subject.spec), tokens[VOCABULARIES[number % 3]], seed=number)
        walker.follow_valid()
        walker.sample(soft_len=20)


@pytest.mark.parametrize("pattern", [r"\(\d{3}\) \d{3}-\d{4}", r"\w+@\w+", "(?s).*"])
def test_definition_of_a_mask_is_what_each_token_alone_says(tokens: dict[str, Tokens], pattern: str) -> None:
    automaton = compile_grammar(RegexSpec(pattern))
    draw = random.Random(0)
    for known in tokens.values():
        state = Cursor(draw.choice([automaton.start, draw.randrange(1, automaton.num_states)]))
        allowed = known.defined_mask(automaton, state)
        for token_id in range(known.vocabulary.size):
            data = known.vocabulary.token(token_id)
            is_alive = data != b"" and automaton.walker.advance(state, data) is not None
            assert allowed[token_id] == is_alive, (state, data)
        mask = known.vocabulary.masks.get(automaton, state)
        assert (np.unpackbits(mask.view(np.uint8), count=known.vocabulary.size, bitorder="little") == allowed).all()


OPEN = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "tags": {"type": "array", "maxItems": 40}},
    "additionalProperties": {"type": ["number", "string"], "maxLength": 300},
}


@pytest.mark.parametrize("turn", range(4))
def test_masks_inside_open_objects_are_what_their_definition_says(tokens: dict[str, Tokens], turn: int) -> None:
    prefix = ['{"na', '{"name": "ab é', '{"tags": [[{"a": "', '{"tags": [1,'][turn]
    walk = Walk(compile_grammar(JsonSchemaSpec(json.dumps(OPEN))), tokens[VOCABULARIES[turn % 3]], check_mask=True)
    for token_id in walk.tokens.spell(prefix.encode(), random.Random(turn)):
        assert walk.take(token_id)
    walk.allowed()


def maskbench(path: Path) -> Iterator[tuple[str, Any, list[Any]]]:
    """Name, schema and valid instances."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield row["name"], row["schema"], [test["data"] for test in row["tests"] if test["valid"]]


def maskbench_subject(name: str, schema: Any, instances: list[Any]) -> tuple[Subject, Automaton] | None:
    """None where the schema is not compiled. Valid texts are those that the automaton takes as bytes: the order of
    properties is the schema's (benchmarks/grammar.py judges that)."""
    spec = JsonSchemaSpec(json.dumps(schema), strict=False)
    try:
        automaton = compile_grammar(spec)
    except (GrammarTooLargeError, UnsupportedGrammarError, InvalidGrammarError):
        return None
    spelled = [json.dumps(value, ensure_ascii=False) for value in instances]
    taken = tuple(text for text in spelled if text.isprintable() and automaton.accepts(text.encode()))
    is_checked = not automaton.checked_afterwards
    judge = schema_validator(schema) if is_checked else lambda text: True
    return Subject(name, spec, judge, taken), automaton


def main(num_walks: int, path: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        vocabularies = [Tokens(vocabulary) for vocabulary in make_vocabularies(Path(folder)).values()]
    began = time.monotonic()
    counts: Counter[str] = Counter()
    compiled = [(subject, compile_grammar(subject.spec)) for subject in [*SUBJECTS, *PATTERNS]]
    walkers = [
        Walker(subject, automaton, tokens, seed)
        for seed, tokens in enumerate(vocabularies)
        for subject, automaton in compiled
    ]
    for walker in walkers:
        walker.follow_valid()
        counts["valid texts followed"] += len(walker.subject.valid)
    for turn, walker in zip(range(num_walks), cycle(walkers), strict=False):
        count_walk(counts, walker, soft_len=5 + turn % 60)
    print(f"{len(compiled)} constraints: {dict(counts)}, {time.monotonic() - began:.0f} s", flush=True)
    counts.clear()
    for turn, row in enumerate(maskbench(path) if path else ()):
        found = maskbench_subject(*row)
        if found is None:
            counts["refused"] += 1
            continue
        walker = Walker(*found, vocabularies[turn % 3], turn)
        walker.follow_valid()
        counts["valid texts followed"] += len(walker.subject.valid)
        for soft_len in (10, 60):
            count_walk(counts, walker, soft_len)
    print(f"MaskBench: {dict(counts)}, {time.monotonic() - began:.0f} s")


def count_walk(counts: Counter[str], walker: Walker, soft_len: int) -> None:
    is_ended, num_masks = walker.sample(soft_len)
    counts["valid texts sampled" if is_ended else "walks without an end"] += 1
    counts["masks"] += num_masks


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
