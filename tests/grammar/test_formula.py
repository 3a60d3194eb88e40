from __future__ import annotations

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrun.errors import InvalidGrammarError
from sgrun.grammar.schema.formula import FALSE, KINDS, TRUE, Formulas, Kind

ABOUT_STRINGS = ("p", "q", "r")  # the others are about numbers


def _kind_of(atom: Hashable) -> Kind | None:
    return "string" if atom in ABOUT_STRINGS else "number"


def _formulas(targets: dict[Hashable, int] | None = None) -> Formulas:
    return Formulas(_kind_of, ({} if targets is None else targets).__getitem__)


def test_equal_formulas_are_one() -> None:
    formulas = _formulas()
    p, q = formulas.atom("p"), formulas.atom("q")
    assert formulas.atom("p") == p != q
    assert formulas.and_((p, q)) == formulas.and_((q, p, q)) == formulas.and_((formulas.and_((p,)), q))
    assert formulas.not_(formulas.not_(p)) == p
    assert formulas.is_kind("string", "null") == formulas.is_kind("null", "string", "null")


def test_constants_and_contradictions_vanish() -> None:
    formulas = _formulas()
    p, q = formulas.atom("p"), formulas.atom("q")
    not_p = formulas.not_(p)
    assert formulas.and_(()) == TRUE and formulas.or_(()) == FALSE and formulas.is_kind() == FALSE
    assert formulas.and_((p, TRUE)) == p and formulas.and_((p, FALSE)) == FALSE
    assert formulas.or_((p, FALSE)) == p and formulas.or_((p, TRUE)) == TRUE
    assert formulas.and_((p, q, not_p)) == FALSE and formulas.or_((not_p, q, p)) == TRUE
    assert formulas.implies(TRUE, p) == p and formulas.implies(p, p) == TRUE


def test_exactly_one_counts_what_is_decided() -> None:
    formulas = _formulas()
    p, q = formulas.atom("p"), formulas.atom("q")
    assert formulas.exactly_one(()) == formulas.exactly_one((FALSE,)) == formulas.exactly_one((TRUE, TRUE, p)) == FALSE
    assert formulas.exactly_one((p, FALSE)) == p and formulas.exactly_one((p, TRUE)) == formulas.not_(p)
    assert formulas.exactly_one((TRUE, FALSE)) == TRUE
    one = formulas.exactly_one((p, q))
    assert formulas.substitute(one, {p: FALSE}) == q and formulas.substitute(one, {p: TRUE}) == formulas.not_(q)
    twice = formulas.exactly_one((p, p))  # both hold or neither
    assert formulas.substitute(twice, {p: TRUE}) == formulas.substitute(twice, {p: FALSE}) == FALSE


def test_atoms_hold_of_values_of_other_kinds() -> None:
    formulas = _formulas()
    p = formulas.atom("p")
    assert formulas.specialise(p, "string") == p
    assert all(formulas.specialise(p, kind) == TRUE for kind in KINDS if kind != "string")
    assert formulas.specialise(formulas.not_(p), "null") == FALSE
    assert formulas.specialise(formulas.and_((formulas.is_kind("number"), p)), "string") == FALSE


def test_references_are_followed_where_they_are_asked() -> None:
    targets: dict[Hashable, int] = {}
    formulas = _formulas(targets)
    p, there = formulas.atom("p"), formulas.reference("there")
    either = formulas.or_((there, p))
    targets["there"] = formulas.is_kind("null")
    assert formulas.specialise(either, "null") == TRUE and formulas.specialise(either, "string") == p


def test_a_reference_to_itself_alone_is_refused_only_where_it_is_reached() -> None:
    targets: dict[Hashable, int] = {}
    formulas = _formulas(targets)
    loop = formulas.reference("loop")
    targets["loop"] = formulas.not_(loop)
    with pytest.raises(InvalidGrammarError, match="loop: the reference leads only to itself"):
        formulas.specialise(loop, "string")


def test_atoms_and_conjuncts_are_found() -> None:
    formulas = _formulas()
    p, q, r = (formulas.atom(name) for name in ABOUT_STRINGS)
    some = formulas.and_((p, formulas.or_((q, formulas.not_(r))), formulas.is_kind("string")))
    assert formulas.atoms(some) == [p, q, r] and set(formulas.atoms(q, p)) == {p, q} and formulas.atoms(TRUE) == []
    assert set(formulas.conjuncts(some)) >= {p} and formulas.conjuncts(q) == (q,)
    assert formulas.atom_of(p) == "p" and formulas.atom_of(some) is None and formulas.atom_of(TRUE) is None


Tree = str | tuple[str, list["Tree"]]
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.sampled_from(["p", "q", "r", "true", "false"]),
    lambda inner: st.tuples(st.sampled_from(["and", "or", "one", "not"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=12,
)


def _built(formulas: Formulas, tree: Tree) -> int:
    if isinstance(tree, str):
        return formulas.atom(tree) if tree in ABOUT_STRINGS else TRUE if tree == "true" else FALSE
    op, parts = tree
    built = [_built(formulas, part) for part in parts]
    match op:
        case "and":
            return formulas.and_(built)
        case "or":
            return formulas.or_(built)
        case "one":
            return formulas.exactly_one(built)
    return formulas.not_(built[0])


def _truth(tree: Tree, truths: dict[str, bool]) -> bool:
    if isinstance(tree, str):
        return truths[tree]
    op, parts = tree
    held = [_truth(part, truths) for part in parts]
    match op:
        case "and":
            return all(held)
        case "or":
            return any(held)
        case "one":
            return sum(held) == 1
    return not held[0]


@given(TREES, st.permutations(ABOUT_STRINGS))
def test_deciding_atoms_one_by_one_is_boolean_logic(tree: Tree, order: list[str]) -> None:
    for bits in range(8):
        truths = {name: bool(bits >> i & 1) for i, name in enumerate(ABOUT_STRINGS)}
        formulas = _formulas()
        left = formulas.specialise(_built(formulas, tree), "string")
        for name in order:
            left = formulas.substitute(left, {formulas.atom(name): TRUE if truths[name] else FALSE})
        assert left == (TRUE if _truth(tree, {**truths, "true": True, "false": False}) else FALSE)
