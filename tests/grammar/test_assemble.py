from __future__ import annotations

import itertools
import json
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pytest
from schema_checks import compiled

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError
from sgrun.grammar.assemble import assemble
from sgrun.grammar.automaton import ACCEPT, CALL, COUNT, DEAD, OP_BITS, OP_MASK, RETURN, RETURN_AFTER, Automaton
from sgrun.grammar.explore import Explorer, LazyCall, LazyCount, LazyMove, ProcedureLike, Row, State
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import END, Call, Count, Move, Overlay, Procedure, ProcedureBuilder, Reset, Return
from sgrun.grammar.walk import Cursor

A, B, C, X, OPEN, CLOSE, BANG = b"abcx()!"


def _procedure(*states: dict[int, Any]) -> Procedure:
    """State by state: what each byte or END does."""
    builder = ProcedureBuilder()
    for _ in states:
        builder.add_state()
    for number, row in enumerate(states):
        for column, edge in row.items():
            builder.add_edge(number, [column], edge)
    return builder.build()


def _assembled(procedures: Mapping[Any, ProcedureLike], max_states: int = 10_000) -> Automaton:
    return assemble("root", lambda key: procedures[key], Budget(CompileLimits(max_states=max_states)))


def _end() -> dict[int, Any]:
    return {END: Return(0, consumes=False)}


# "a" is label 1, "b" label 2, "x" label 3, and "c" leads to nothing
LETTER = _procedure(
    {A: Return(1, consumes=True), B: Return(2, consumes=True), X: Return(3, consumes=True), C: Move(1)}, {}
)


def _texts(automaton: Automaton, max_len: int, letters: bytes = b"abcx()!") -> set[str]:
    texts = (bytes(chars) for n in range(max_len + 1) for chars in itertools.product(letters, repeat=n))
    return {text.decode() for text in texts if automaton.accepts(text)}


def _check_nothing_dead_is_offered(automaton: Automaton, max_len: int) -> None:
    """Every text that is not refused, up to this length, can be completed by the shortest ways of its frames."""
    ways = _ways(automaton)
    cursors: set[Cursor] = {automaton.walker.start}
    representatives = [bytes([int(np.flatnonzero(automaton.byte_classes == column)[0])])
                       for column in np.unique(automaton.byte_classes)]  # fmt: skip
    for _ in range(max_len):
        after = {automaton.walker.advance(cursor, byte) for cursor in cursors for byte in representatives}
        cursors = {cursor for cursor in after if cursor is not None}
        for cursor in cursors:
            assert _is_completable(automaton, ways, cursor), cursor


def _is_completable(automaton: Automaton, ways: list[set[int]], cursor: Cursor) -> bool:
    """By labels alone: which can be returned from the innermost frame, then from the next, until one accepts."""
    found = ways[cursor.state]
    for site, _ in reversed(cursor.stack):
        targets = [int(automaton.sites[site, 1 + label]) for label in found if label >= 0]
        found = set().union(*(ways[target] for target in targets if target != DEAD))
    return -1 in found


def _ways(automaton: Automaton) -> list[set[int]]:
    """For each state the labels that can be returned from it, -1 for accepting. Counters are not looked at."""
    ways: list[set[int]] = [set() for _ in automaton.table]
    is_new = True
    while is_new:
        is_new = False
        for state, row in enumerate(automaton.table.tolist()):
            found = set(ways[state])
            for entry in set(row) - {DEAD}:
                op, argument = entry & OP_MASK, entry >> OP_BITS
                if op == ACCEPT:
                    found.add(-1)
                elif op in (RETURN, RETURN_AFTER):
                    found.add(argument)
                elif op == CALL:
                    site = automaton.sites[argument].tolist()
                    for label in ways[site[0]]:
                        found |= ways[site[1 + label]] if label >= 0 else set()
                elif op == COUNT:
                    found |= ways[int(automaton.counts[argument, 1])] | ways[int(automaton.counts[argument, 2])]
                else:
                    found |= ways[argument]
            is_new |= found != ways[state]
            ways[state] = found
    return ways


def test_what_follows_depends_on_the_label() -> None:
    letters = [A, B, X, C]
    root = _procedure(
        {letter: Call("letter", ((1, 1), (2, 2), (3, 3))) for letter in letters},
        {OPEN: Move(3)}, {CLOSE: Move(3)}, _end(),
    )  # fmt: skip
    assert _texts(_assembled({"root": root, "letter": LETTER}), 3) == {"a(", "b)", "x"}


def test_calls_offer_what_some_wanted_label_can_end() -> None:
    root = _procedure({letter: Call("letter", ((2, 1),)) for letter in (A, B, C, X)}, _end())
    automaton = _assembled({"root": root, "letter": LETTER})
    assert _texts(automaton, 2) == {"b"}
    start = automaton.walker.start
    assert [automaton.walker.advance(start, bytes([letter])) is not None for letter in (A, B, C, X)] == [
        False,
        True,
        False,
        False,
    ]


def test_labels_that_lead_to_nothing_are_not_wanted() -> None:
    root = _procedure(
        {letter: Call("letter", ((1, 1), (2, 2))) for letter in (A, B)},
        {B: Call("letter", ((9, 2),))},  # no letter returns 9
        _end(),
    )
    automaton = _assembled({"root": root, "letter": LETTER})
    assert _texts(automaton, 2) == {"b"} and automaton.walker.advance(automaton.walker.start, b"a") is None


def test_recursive_calls_nest() -> None:
    nested = _procedure({OPEN: Move(1)}, {OPEN: Call("nested", ((0, 2),)), CLOSE: Return(0, consumes=True)},
                        {CLOSE: Return(0, consumes=True)})  # fmt: skip
    root = _procedure({OPEN: Call("nested", ((0, 1),))}, _end())
    automaton = _assembled({"root": root, "nested": nested})
    assert _texts(automaton, 6, b"()") == {"()", "(())", "((()))"}
    assert automaton.accepts(b"(" * 64 + b")" * 64) and not automaton.accepts(b"(" * 65 + b")" * 65)
    _check_nothing_dead_is_offered(automaton, 6)


@pytest.mark.parametrize(
    "procedures",
    [
        {"root": _procedure({A: Move(1)}, {B: Move(0)})},
        {"root": _procedure({A: Call("letter", ((9, 1),))}, _end()), "letter": LETTER},
        {"root": _procedure({OPEN: Call("root2", ((0, 1),))}, _end()),
         "root2": _procedure({OPEN: Call("root2", ((0, 1),))}, {CLOSE: Return(0, consumes=True)})},
        {"root": _procedure({END: Return(1, consumes=False)})},
    ],
    ids=["no end", "no such label", "endless nesting", "another label"],
)  # fmt: skip
def test_a_language_without_texts_is_refused(procedures: dict[str, Procedure]) -> None:
    with pytest.raises(InvalidGrammarError, match="matches nothing"):
        _assembled(procedures)


def test_counters_belong_to_their_frames() -> None:
    three = _procedure({A: Count(3, 1, 2)}, {A: Move(3)}, {A: Return(0, consumes=True)}, {A: Count(3, 1, 2)})
    root = _procedure({A: Count(2, 1, 3)}, {A: Call("three", ((0, 2),))}, {A: Count(2, 1, 3)},
                      {A: Call("three", ((0, 4),))}, _end())  # fmt: skip
    automaton = _assembled({"root": root, "three": three})
    assert {len(text) for text in _texts(automaton, 12, b"a")} == {6}


def test_a_reset_counts_anew() -> None:
    root = _procedure(
        {A: Count(2, 1, 2), END: Return(0, consumes=False)}, {A: Move(0)}, {A: Move(3)}, {BANG: Reset(0), **_end()}
    )
    texts = _texts(_assembled({"root": root}), 5, b"a!")
    assert {"aa", "aa!aa", "aa!a"} <= texts and not {"aaa", "aa!aaa"} & texts


def test_a_count_whose_one_side_is_dead_goes_on_with_the_other() -> None:
    root = _procedure({A: Count(3, 1, 3)}, {A: Move(2)}, {A: Count(3, 1, 3), **_end()}, {})
    assert _texts(_assembled({"root": root}), 5, b"a") == {"a", "aa"}


def test_callers_share_states_and_equal_states_are_one() -> None:
    word = _procedure({A: Move(1)}, {B: Move(2)}, {C: Return(0, consumes=True), X: Return(1, consumes=True)})
    root = _procedure(
        {A: Call("word", ((0, 2), (1, 3))), OPEN: Move(1)}, {A: Call("word", ((0, 3), (1, 2)))}, _end(), _end()
    )
    automaton = _assembled({"root": root, "word": word})
    assert _texts(automaton, 4, b"abcx(") == {"abc", "abx", "(abc", "(abx"}
    assert automaton.num_states == 1 + 6  # dead; start, after a bracket, end, and three of the word
    assert len(automaton.sites) == 1


def test_only_reached_procedures_are_resolved() -> None:
    asked: list[Hashable] = []

    def resolve(key: Hashable) -> Procedure:
        asked.append(key)
        return LETTER if key == "letter" else _procedure({A: Call("letter", ((1, 1),))}, _end())

    assemble("root", resolve, Budget(CompileLimits()))
    assert asked == ["root", "letter"]


class _Numbers:
    """Reads "a" again and again, up to a number of times."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.expanded: list[State] = []

    def expand(self, state: State) -> Row:
        self.expanded.append(state)
        number = state if isinstance(state, int) else 0
        row = Row()
        row.add((B,), Return(number, consumes=True))
        if number < self.last:
            row.add((A,), LazyMove(number + 1))
        return row


class _Root:
    """Goes on with even labels."""

    def expand(self, state: State) -> Row:
        row = Row()
        if state == "start":
            row.add((A, B), LazyCall("numbers", lambda label: "end" if label % 2 == 0 else None))
        else:
            row.add((END,), Return(0, consumes=False))
        return row


def test_states_are_made_as_they_are_reached_each_once() -> None:
    numbers = _Numbers(5)
    automaton = _assembled({"root": _Root(), "numbers": numbers})
    assert _texts(automaton, 7, b"ab") == {"b", "aab", "aaaab"}
    assert numbers.expanded == ["start", 1, 2, 3, 4, 5]
    assert automaton.walker.advance(automaton.walker.start, b"aaaaa") is None  # only an odd label lies there
    _check_nothing_dead_is_offered(automaton, 6)


def test_labels_found_later_reach_the_calls_made_before() -> None:
    explorer = Explorer(lambda key: _Root() if key == "root" else _Numbers(4), Budget(CompileLimits()))
    assert explorer.explore("root").labels == {0}
    assert explorer.parts["numbers"].labels == {0, 1, 2, 3, 4}


class _Counting:
    """At least three times "a", then "!"."""

    def expand(self, state: State) -> Row:
        row = Row()
        match state:
            case "start":
                row.add((A,), LazyCount(3, "few", "enough"))
            case "few" | "enough":
                row.add((A,), LazyMove(("next", state)))
            case ("next", "few"):
                row.add((A,), LazyCount(3, "few", "enough"))
            case ("next", "enough"):
                row.add((A,), LazyMove(state))
                row.add((BANG,), LazyMove("end"))
            case _:
                row.add((END,), Return(0, consumes=False))
        return row


def test_counts_are_explored_on_both_sides() -> None:
    assert _texts(_assembled({"root": _Counting()}), 6, b"a!") == {"aaa!", "aaaa!", "aaaaa!"}


class _Otherwise:
    """After "a" what follows "b" may follow, but for "c", which is spelled out here; "x" is followed by "xx!"."""

    def expand(self, state: State) -> Row:
        match state:
            case "start":
                return Row([((A,), LazyMove("a")), ((B,), LazyMove("b")), ((X,), LazyMove("end", b"xx!"))])
            case "a":
                return Row([((C,), LazyMove("end", b"()"))], otherwise="b")
            case "b":
                return Row([((C, BANG), LazyMove("end")), ((A,), LazyMove("b"))])
        return Row([((END,), Return(0, consumes=False))])


def test_a_state_does_otherwise_what_another_does_and_bytes_are_spelled_behind_a_move() -> None:
    automaton = _assembled({"root": _Otherwise()})
    behind_b = {"c", "!", "ac", "a!", "aac", "aa!"}
    behind_a = {"!", "ac", "a!", "aac", "aa!", "c()"}
    assert _texts(automaton, 4) == {"b" + text for text in behind_b} | {"a" + text for text in behind_a} | {"xxx!"}
    _check_nothing_dead_is_offered(automaton, 5)


def test_an_overlay_does_what_its_base_does_but_for_its_own_bytes() -> None:
    base = _procedure({A: Move(0), B: Move(1), X: Return(0, consumes=True)}, {C: Move(0), X: Return(0, consumes=True)})
    over = Overlay(base, [(0, [((B,), None), ((C,), Move(1))]), (1, [((X,), Return(1, consumes=True))])])
    root = _procedure({letter: Call("over", ((0, 1), (1, 2))) for letter in (A, B, C, X)}, _end(), {BANG: Move(1)})
    automaton = _assembled({"root": root, "over": over})
    assert _texts(automaton, 4) == {"x", "ax", "aax", "aaax", "abx", "aabx", "abcx", "cx!", "ccx", "ccax", "ccbx"}
    only_base = _procedure({letter: Call("over", ((0, 1),)) for letter in (A, B, C, X)}, _end())
    assert "cx!" not in _texts(_assembled({"root": only_base, "over": over}), 3)


def test_states_over_different_states_are_not_alike() -> None:
    base = _procedure({A: Move(1), B: Move(2)}, {A: Return(0, consumes=True)}, {B: Return(0, consumes=True)})
    ends = [((BANG,), Return(1, consumes=True))]
    over = Overlay(base, [(0, [((OPEN,), Move(1)), ((CLOSE,), Move(2))]), (1, [*ends]), (2, [*ends])])
    root = _procedure({letter: Call("over", ((0, 1), (1, 1))) for letter in (A, B, OPEN, CLOSE)}, _end())
    assert _texts(_assembled({"root": root, "over": over}), 3) == {"aa", "bb", "(a", ")b", "(!", ")!"}


def test_procedures_of_one_shape_share_the_states_of_their_base() -> None:
    base = _procedure({A: Move(1)}, {A: Move(1), X: Return(0, consumes=True)})
    overlays = {n: Overlay(base, [(0, [((n,), Return(1, consumes=True))])]) for n in (B, C)}
    root = _procedure({OPEN: Move(1), CLOSE: Move(2)}, {n: Call(B, ((0, 3), (1, 3))) for n in (A, B)},
                      {n: Call(C, ((0, 3), (1, 3))) for n in (A, C)}, _end())  # fmt: skip
    automaton = _assembled({"root": root, **overlays})
    assert _texts(automaton, 4) == {"(b", ")c", "(ax", ")ax", "(aax", ")aax"}
    assert automaton.num_states == 1 + 4 + 2 + 2  # dead; the root's; one of each overlay; the base once


def test_states_are_bounded() -> None:
    with pytest.raises(GrammarTooLargeError, match="max_states is 50"):
        _assembled({"root": _Root(), "numbers": _Numbers(10_000)}, max_states=50)


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["ab", "ac", 10, [1, {"a": None}]]},
        {"oneOf": [{"items": {"enum": [1, 2]}}, {"items": {"enum": [2, 3]}}], "type": "array"},
        {"type": "object", "properties": {"a": {"enum": [1]}, "ab": False}, "required": ["a"], "maxProperties": 2},
        {"type": "array", "contains": {"const": 1}, "items": {"enum": [1, "x"]}, "maxContains": 2},
        {"type": "array", "items": {"$ref": "#"}, "maxItems": 2, "not": {"minItems": 1, "maxItems": 1}},
        {"type": "string", "pattern": "^(ab|ac)+$", "maxLength": 4},
    ],
    ids=json.dumps,
)
def test_whatever_a_schema_offers_can_be_completed(schema: Any) -> None:
    _check_nothing_dead_is_offered(compiled(schema, whitespace="compact"), 7)
