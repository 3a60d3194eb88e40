from __future__ import annotations

from dataclasses import dataclass

from procedure_walks import takes

from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.outlines_index import from_outlines_index


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


def test_texts_are_those_that_paths_of_tokens_spell() -> None:
    # [ab]+c over a, b, c, ab, bc, the end token 5
    tokens = [b"a", b"b", b"c", b"ab", b"bc", None]
    index = RecordedIndex(7, {9}, {7: {0: 8, 1: 8, 3: 8, 4: 9}, 8: {0: 8, 1: 8, 2: 9, 3: 8, 4: 9}, 9: {5: 9}})
    procedure = from_outlines_index(index, tokens, Budget(CompileLimits()))
    for text, expected in [("ac", True), ("bc", True), ("abac", True), ("", False), ("c", False), ("acc", False)]:
        assert takes(procedure, text) == expected, text
    assert len(procedure.table) == 3


def test_what_an_index_leaves_out_is_left_out() -> None:
    # Index("(ab)*") over a, b, ab of 0.2.14 has no transition on `a` alone, so `ab` is spelled by one token only.
    index = RecordedIndex(40, {40}, {40: {3: 40, 2: 40}, 24: {1: 40}})
    procedure = from_outlines_index(index, [b"a", b"b", b"ab", None], Budget(CompileLimits()))
    assert takes(procedure, "") and takes(procedure, "abab") and not takes(procedure, "a")


def test_a_token_may_lead_elsewhere_than_its_bytes_one_by_one() -> None:
    index = RecordedIndex(1, {3, 5}, {1: {0: 2, 2: 4}, 2: {1: 3}, 4: {1: 5}})
    procedure = from_outlines_index(index, [b"a", b"b", b"ab"], Budget(CompileLimits()))
    for text, expected in [("ab", True), ("abb", True), ("abbb", False), ("a", False)]:
        assert takes(procedure, text) == expected, text


def test_tokens_may_split_a_character() -> None:
    index = RecordedIndex(1, {3}, {1: {0: 2, 2: 3}, 2: {1: 3}})
    procedure = from_outlines_index(index, [b"\xc3", b"\xa9", "日".encode()], Budget(CompileLimits()))
    assert takes(procedure, "é") and takes(procedure, "日") and not takes(procedure, b"\xc3")


def test_index_without_texts_has_no_edges() -> None:
    procedure = from_outlines_index(RecordedIndex(1, set(), {1: {0: 1}}), [b"a"], Budget(CompileLimits()))
    assert not procedure.table.any()
