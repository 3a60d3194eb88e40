from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from procedure_walks import moves_and_ends, regex_procedure, takes

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.charset import SCALARS
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import Procedure
from sgrun.grammar.regular import regular_procedure
from sgrun.grammar.syntax import (
    EMPTY,
    Alternation,
    Chars,
    Complement,
    Concat,
    Intersection,
    Lookahead,
    Node,
    Repeat,
    Scope,
    Text,
    repeat,
)


def _num_distinguishable(targets: np.ndarray, accepting: np.ndarray) -> int:
    """How many states Moore's algorithm tells apart, by brute force."""
    labels = accepting.astype(np.int64)
    while True:
        rows = np.concatenate([labels[:, None], labels[targets]], axis=1)
        _, refined = np.unique(rows, axis=0, return_inverse=True)
        if refined.max() == labels.max():
            return int(labels.max()) + 1
        labels = refined


def _reachable(targets: np.ndarray) -> set[int]:
    seen, waiting = {0}, [0]
    while waiting:
        for target in set(targets[waiting.pop()].tolist()) - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def _check_shape(procedure: Procedure) -> None:
    """Minimal, all reachable, and no state but the dead one without a way to acceptance."""
    targets, accepting = moves_and_ends(procedure)
    dead = len(procedure.table)
    assert _num_distinguishable(targets, accepting) == dead + 1
    assert _reachable(targets) | {dead} == set(range(dead + 1))


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "a*", "(?:ab|cb)*", "(?:a|b)*abb", '[^"]*', r"\w{1,3}", ".", "é|è|ü", "(?s).*", "𝄞?日*"),
        *("(?:aa|aaa)*b{2,4}", r"\d{4}-\d{2}", "(?:a?b?)*c", "[à-ž]+[а-я]", "(?:(?:foo|bar)baz)+|(?:fo|ba)z"),
    ],
)
def test_automaton_is_minimal_and_trimmed(pattern: str) -> None:
    _check_shape(regex_procedure(pattern))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*"abé|*?日", "[^a]", "{0,3}"]), max_size=10).map("".join))
def test_random_automaton_is_minimal_and_trimmed(pattern: str) -> None:
    try:
        procedure = regex_procedure(pattern)
    except InvalidGrammarError:
        return
    if procedure.table.any():
        _check_shape(procedure)


def _compiled(node: Node) -> Procedure:
    return regular_procedure(node, Budget(CompileLimits()))


def test_intersection_takes_what_both_take() -> None:
    letters = Chars(((0x61, 0x7A),))
    ends_in_ab = Concat((Repeat(letters, 0, None), Text("ab")))
    procedure = _compiled(Concat((Text("<"), Intersection(ends_in_ab, Repeat(letters, 3, 4)), Text(">"))))
    for text, expected in [("<cab>", True), ("<ccab>", True), ("<ab>", False), ("<cccab>", False), ("<abc>", False)]:
        assert takes(procedure, text) == expected, text
    _check_shape(procedure)


def test_intersection_without_common_text_adds_nothing() -> None:
    procedure = _compiled(Alternation((Intersection(Text("ab"), Text("ac")), Text("d"))))
    assert takes(procedure, "d") and not takes(procedure, "ab") and not takes(procedure, "")


def test_empty_text_is_accepted_at_the_start() -> None:
    assert takes(_compiled(EMPTY), "")


_LETTERS: Node = Repeat(Chars(((0x61, 0x7A),)), 0, None)


def test_complement_takes_what_its_node_does_not() -> None:
    procedure = _compiled(Concat((Text("<"), Complement(Alternation((Text("ab"), Text("é")))), Text(">"))))
    for text, expected in [
        ("<>", True),
        ("<a>", True),
        ("<abc>", True),
        ("<日>", True),
        ("<ab>", False),
        ("<é>", False),
    ]:
        assert takes(procedure, text) == expected, text
    _check_shape(procedure)


def test_complement_of_everything_takes_nothing() -> None:
    assert not _compiled(Complement(Repeat(Chars(SCALARS), 0, None))).table.any()
    assert takes(_compiled(Complement(Alternation(()))), "anything\n")


def test_difference_of_languages() -> None:
    procedure = _compiled(Intersection(_LETTERS, Complement(Concat((_LETTERS, Text("x"), _LETTERS)))))
    assert (
        takes(procedure, "") and takes(procedure, "abc") and not takes(procedure, "axb") and not takes(procedure, "A")
    )


@pytest.mark.parametrize("is_swapped", [False, True])
def test_either_side_of_an_intersection_may_count(is_swapped: bool) -> None:
    sides = (Repeat(Chars(SCALARS), 2, 5000), Complement(Concat((_LETTERS, Text("xx"), _LETTERS))))
    procedure = _compiled(Intersection(*(reversed(sides) if is_swapped else sides)))
    assert len(procedure.table) < 150
    assert takes(procedure, "axbxc") and takes(procedure, "a" * 5000)
    assert not takes(procedure, "axxb") and not takes(procedure, "a" * 5001) and not takes(procedure, "a")


def test_lookahead_sees_the_end_of_its_scope_only() -> None:
    inner = Scope(Concat((Lookahead(Text("ab"), True), _LETTERS)))
    procedure = _compiled(Concat((inner, Text("-b"))))
    assert takes(procedure, "a-b") and not takes(procedure, "ab-b")


@pytest.mark.parametrize("outer", [(0, 3), (1, 2), (2, 2), (2, None), (0, None), (0, 0)])
@pytest.mark.parametrize("inner", [(0, 2), (1, 1), (1, 3), (2, 3), (3, 3), (2, None), (0, 0)])
def test_repeat_of_a_repeat_counts_the_same(inner: tuple[int, int | None], outer: tuple[int, int | None]) -> None:
    joined = _compiled(repeat(repeat(Text("a"), *inner), *outer))
    nested = _compiled(Repeat(Repeat(Text("a"), *inner), *outer))
    for length in range(15):
        assert takes(joined, "a" * length) == takes(nested, "a" * length), length
