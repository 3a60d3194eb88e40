from __future__ import annotations

import numpy as np
import pytest
from grammar_walks import accepts, distances_to_acceptance
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.automaton import DEAD, Automaton
from sgrun.grammar.build import build_nfa
from sgrun.grammar.compiler import DEFAULT_LIMITS, compile_grammar
from sgrun.grammar.dfa import atoms_of, determinize, minimize
from sgrun.grammar.limits import Budget
from sgrun.grammar.syntax import EMPTY, Alternation, Chars, Concat, Elements, Intersection, Members, Node, Repeat, Text
from sgrun.grammar.utf8 import to_bytes
from sgrun.types import RegexSpec


def _num_distinguishable(automaton: Automaton) -> int:
    """How many states Moore's algorithm tells apart, by brute force."""
    labels = automaton.accepting.astype(np.int64)
    while True:
        rows = np.concatenate([labels[:, None], labels[automaton.transitions]], axis=1)
        _, refined = np.unique(rows, axis=0, return_inverse=True)
        if refined.max() == labels.max():
            return int(labels.max()) + 1
        labels = refined


def _reachable(automaton: Automaton) -> set[int]:
    seen, waiting = {automaton.start}, [automaton.start]
    while waiting:
        for target in set(automaton.transitions[waiting.pop()].tolist()) - seen:
            seen.add(target)
            waiting.append(target)
    return seen | {DEAD}


def _check_shape(automaton: Automaton) -> None:
    assert _num_distinguishable(automaton) == automaton.num_states
    assert _reachable(automaton) == set(range(automaton.num_states))
    assert (distances_to_acceptance(automaton)[1:] < automaton.num_states).all()
    assert not automaton.transitions[DEAD].any() and not automaton.accepting[DEAD]
    columns = np.unique(automaton.transitions, axis=1)
    assert columns.shape == automaton.transitions.shape or not automaton.transitions[:, 0].any()
    assert set(automaton.byte_classes.tolist()) <= set(range(automaton.num_classes))


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "a*", "(?:ab|cb)*", "(?:a|b)*abb", '[^"]*', r"\w{1,3}", ".", "é|è|ü", "(?s).*", "𝄞?日*"),
        *("(?:aa|aaa)*b{2,4}", r"\d{4}-\d{2}", "(?:a?b?)*c", "[à-ž]+[а-я]", "(?:(?:foo|bar)baz)+|(?:fo|ba)z"),
    ],
)
def test_automaton_is_minimal_and_trimmed(pattern: str) -> None:
    _check_shape(compile_grammar(RegexSpec(pattern)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*"abé|*?日", "[^a]", "{0,3}"]), max_size=10).map("".join))
def test_random_automaton_is_minimal_and_trimmed(pattern: str) -> None:
    try:
        automaton = compile_grammar(RegexSpec(pattern))
    except InvalidGrammarError:
        return
    _check_shape(automaton)


def _compiled(node: Node) -> Automaton:
    budget = Budget(DEFAULT_LIMITS)
    nfa = build_nfa(node, budget)
    atoms = atoms_of(nfa.labels, budget)
    return to_bytes(minimize(determinize(nfa, atoms, budget)), atoms.sets, budget)


def test_intersection_takes_what_both_take() -> None:
    letters = Chars(((0x61, 0x7A),))
    ends_in_ab = Concat((Repeat(letters, 0, None), Text("ab")))
    automaton = _compiled(Concat((Text("<"), Intersection(ends_in_ab, Repeat(letters, 3, 4)), Text(">"))))
    for text, expected in [("<cab>", True), ("<ccab>", True), ("<ab>", False), ("<cccab>", False), ("<abc>", False)]:
        assert accepts(automaton, text) == expected, text
    _check_shape(automaton)


def test_intersection_without_common_text_adds_nothing() -> None:
    automaton = _compiled(Alternation((Intersection(Text("ab"), Text("ac")), Text("d"))))
    assert accepts(automaton, "d") and not accepts(automaton, "ab") and not accepts(automaton, "")


@pytest.mark.parametrize("has_rest", [False, True])
@pytest.mark.parametrize("min_count", [0, 1, 3])
@pytest.mark.parametrize("max_count", [None, 0, 2, 4])
def test_elements_count_their_items(has_rest: bool, min_count: int, max_count: int | None) -> None:
    node = Elements((Text("p"), Text("q")), Text("r") if has_rest else None, Text(","), min_count, max_count)
    automaton = (
        _compiled(Concat((Text("["), node, Text("]")))) if _is_satisfiable(has_rest, min_count, max_count) else None
    )
    for num_items in range(7):
        text = "[" + ",".join("pqrrrrr"[:num_items]) + "]"
        fits = min_count <= num_items <= (99 if max_count is None else max_count) and (has_rest or num_items <= 2)
        assert (automaton is not None and accepts(automaton, text)) == fits, text


def _is_satisfiable(has_rest: bool, min_count: int, max_count: int | None) -> bool:
    return min_count <= (99 if max_count is None else max_count) and (has_rest or min_count <= 2)


def test_members_keep_order_and_separate_what_is_there() -> None:
    node = Members(((Text("a"), False), (Text("b"), True), (Text("c"), False)), Text(","))
    automaton = _compiled(node)
    accepted = {"b", "a,b", "b,c", "a,b,c"}
    for text in [*accepted, "", "a", "a,c", "c", "b,", ",b", "b,a", "a,b,", "b,b", "ab"]:
        assert accepts(automaton, text) == (text in accepted), text


def test_members_that_are_all_optional_may_be_absent() -> None:
    automaton = _compiled(Concat((Text("{"), Members(((Text("a"), False), (Text("b"), False)), Text(",")), Text("}"))))
    for text, expected in [
        ("{}", True),
        ("{a}", True),
        ("{b}", True),
        ("{a,b}", True),
        ("{,b}", False),
        ("{a,}", False),
    ]:
        assert accepts(automaton, text) == expected, text


def test_empty_text_is_accepted_at_the_start() -> None:
    assert accepts(_compiled(EMPTY), "")
