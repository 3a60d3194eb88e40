"""The texts of the grammars in `lark_grammars.py` as tokens of three real vocabularies, every mask by its definition.

The tests take some of the texts; `python tests/grammar/test_grammar_tables.py` takes all of them, each cut into tokens
in three ways.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
from lark_grammars import EXAMPLES
from token_walks import Tokens, Walk
from tokenizer_files import real_vocabularies as make_vocabularies

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.types import LarkSpec

VOCABULARIES = ("smollm2", "tekken", "sentencepiece")


@pytest.fixture(scope="module")
def tokens(real_vocabularies: dict[str, Vocabulary]) -> dict[str, Tokens]:
    return {name: Tokens(vocabulary) for name, vocabulary in real_vocabularies.items()}


@cache
def _automaton(name: str) -> Automaton:
    return compile_grammar(LarkSpec(EXAMPLES[name].grammar))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_texts_are_taken_and_refused_token_by_token(name: str, vocabulary: str, tokens: dict[str, Tokens]) -> None:
    draw = random.Random(1)
    for text in EXAMPLES[name].accepted:
        assert Walk(_automaton(name), tokens[vocabulary]).follow(text.encode(), draw), text
    for text in EXAMPLES[name].rejected:
        assert not Walk(_automaton(name), tokens[vocabulary]).follow(text.encode(), draw), text


@pytest.mark.parametrize("name", EXAMPLES)
def test_masks_along_a_text_are_what_their_definition_says(name: str, tokens: dict[str, Tokens]) -> None:
    turn = list(EXAMPLES).index(name) % 3
    texts = sorted(EXAMPLES[name].accepted, key=len)
    check_text(name, tokens[VOCABULARIES[turn]], texts[len(texts) // 2], True, seed=turn)
    check_text(name, tokens[VOCABULARIES[turn - 1]], EXAMPLES[name].rejected[-1], False, seed=turn)


def check_text(name: str, tokens: Tokens, text: str, is_accepted: bool, seed: int) -> int:
    """How many masks were compared."""
    walk = Walk(_automaton(name), tokens, check_mask=True)
    assert walk.follow(text.encode(), random.Random(seed)) == is_accepted, (name, text)
    return walk.num_masks


def main(num_cuts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        vocabularies = make_vocabularies(Path(folder))
    began = time.monotonic()
    for vocabulary in VOCABULARIES:
        tokens = Tokens(vocabularies[vocabulary])
        for name, example in EXAMPLES.items():
            num_masks = 0
            texts = [(text, True) for text in example.accepted] + [(text, False) for text in example.rejected]
            for seed in range(num_cuts):
                num_masks += sum(check_text(name, tokens, text, is_accepted, seed) for text, is_accepted in texts)
            print(
                f"{vocabulary:14} {name:14} {len(texts)} texts, {num_masks} masks over {tokens.vocabulary.size} tokens "
                f"equal, {time.monotonic() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
