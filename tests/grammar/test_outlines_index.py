from __future__ import annotations

from dataclasses import dataclass

import pytest

from sgrun import grammar
from sgrun.errors import InvalidGrammarError, InvalidParameterError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.outlines_index import outlines_spec
from sgrun.grammar.vocabulary import Vocabulary


@dataclass
class RecordedIndex:
    """What an `outlines_core.Index` of 0.2.14 answered: state -> token -> state."""

    start: int
    final: set[int]
    transitions: dict[int, dict[int, int]]

    def get_initial_state(self) -> int:
        return self.start

    def get_transitions(self) -> dict[int, dict[int, int]]:
        return self.transitions

    def is_final_state(self, state: int) -> bool:
        return state in self.final


def read_back(index: RecordedIndex, tokens: list[bytes | None]) -> Automaton:
    return compile_grammar(outlines_spec(index, Vocabulary(tokens)))


def takes(automaton: Automaton, text: str | bytes) -> bool:
    return automaton.accepts(text.encode() if isinstance(text, str) else text)


def test_texts_are_those_that_paths_of_tokens_spell() -> None:
    # [ab]+c over a, b, c, ab, bc, the end token 5
    tokens: list[bytes | None] = [b"a", b"b", b"c", b"ab", b"bc", None]
    index = RecordedIndex(7, {9}, {7: {0: 8, 1: 8, 3: 8, 4: 9}, 8: {0: 8, 1: 8, 2: 9, 3: 8, 4: 9}, 9: {5: 9}})
    automaton = read_back(index, tokens)
    for text, expected in [("ac", True), ("bc", True), ("abac", True), ("", False), ("c", False), ("acc", False)]:
        assert takes(automaton, text) == expected, text
    assert automaton.num_states == 4  # the dead one included


def test_what_an_index_leaves_out_is_left_out() -> None:
    # Index("(ab)*") over a, b, ab of 0.2.14 has no transition on `a` alone, so `ab` is spelled by one token only.
    index = RecordedIndex(40, {40}, {40: {3: 40, 2: 40}, 24: {1: 40}})
    automaton = read_back(index, [b"a", b"b", b"ab", None])
    assert takes(automaton, "") and takes(automaton, "abab") and not takes(automaton, "a")


def test_a_token_may_lead_elsewhere_than_its_bytes_one_by_one() -> None:
    index = RecordedIndex(1, {3, 5}, {1: {0: 2, 2: 4}, 2: {1: 3}, 4: {1: 5}})
    automaton = read_back(index, [b"a", b"b", b"ab"])
    for text, expected in [("ab", True), ("abb", True), ("abbb", False), ("a", False)]:
        assert takes(automaton, text) == expected, text


def test_tokens_may_split_a_character() -> None:
    index = RecordedIndex(1, {3}, {1: {0: 2, 2: 3}, 2: {1: 3}})
    automaton = read_back(index, [b"\xc3", b"\xa9", "日".encode()])
    assert takes(automaton, "é") and takes(automaton, "日") and not takes(automaton, b"\xc3")


def test_an_index_is_a_constraint_given_by_name() -> None:
    index = RecordedIndex(7, {9}, {7: {0: 7, 1: 9}})
    automaton = grammar.compile(outlines_index=index, vocabulary=Vocabulary([b"a", b"b"]))
    assert automaton.accepts(b"aab") and not automaton.accepts(b"aa")


def test_an_index_that_takes_no_text_is_refused() -> None:
    with pytest.raises(InvalidGrammarError, match="nothing matches"):
        outlines_spec(RecordedIndex(1, set(), {1: {0: 1}}), Vocabulary([b"a"]))


def test_an_index_of_another_vocabulary_or_none_at_all_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="knows the token 5, the vocabulary has 1"):
        outlines_spec(RecordedIndex(1, {1}, {1: {5: 1}}), Vocabulary([b"a"]))
    with pytest.raises(InvalidParameterError, match="knows the token 1"):
        outlines_spec(RecordedIndex(1, {1}, {1: {1: 1}}), Vocabulary([b"a"]))
    with pytest.raises(InvalidParameterError, match=r"index is .*; allowed"):
        grammar.compile(outlines_index="(ab)*", vocabulary=Vocabulary([b"a"]))  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="without vocabulary"):
        grammar.compile(outlines_index=RecordedIndex(1, {1}, {}))
