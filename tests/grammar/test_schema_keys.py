"""The direct layout of property names against the general string procedure, walk by walk."""

from __future__ import annotations

import json
import random

import pytest

from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.procedure import Edge, Move, Overlay, Procedure, Return
from sgrun.grammar.scalars import string_procedure
from sgrun.grammar.schema.keys import can_lay_out, listed_procedure, names_procedure
from sgrun.grammar.strings import TextEquals


def edge_of(procedure: Procedure | Overlay, state: int, byte: int) -> Edge | None:
    if isinstance(procedure, Procedure):
        index = procedure.table[state, byte]
        return procedure.edges[index] if index else None
    under, cells = procedure.rows[state]
    for columns, edge in cells:
        if byte in columns:
            return edge
    return None if under is None else edge_of(procedure.base, under, byte)


def label_of(procedure: Procedure | Overlay, text: bytes) -> int | None:
    """What a walk returns; None if it is refused or does not end with the text."""
    state = 0
    current = procedure
    for place, byte in enumerate(text):
        edge = edge_of(current, state, byte)
        if isinstance(current, Overlay) and all(byte not in columns for columns, _ in current.rows[state][1]):
            current = current.base
        if isinstance(edge, Return):
            return edge.label if place == len(text) - 1 else None
        if not isinstance(edge, Move):
            return None
        state = edge.target
    return None


NAMES = [["a"], ["name", "names", "nam"], ["a/b", "a", 'q"x', "back\\slash", ""], ["x" * 30, "x" * 29 + "y"], []]


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_labels_are_those_of_the_general_procedure(names: list[str]) -> None:
    def number(truths: tuple[bool, ...]) -> int:
        return truths.index(True) + 1 if True in truths else 0

    direct = names_procedure(names)
    general = string_procedure([TextEquals(name) for name in names], number, Budget(CompileLimits()))
    rng = random.Random(0)
    pieces = ["a", "n", "ame", "x" * 29, "/", '"', "\\", "é", "😀", "\n", "\x01", "y", "s", "b"]
    texts = [*names, *("".join(rng.choices(pieces, k=rng.randint(0, 4))) for _ in range(400))]
    texts += [name + piece for name in names for piece in pieces] + [name[:-1] + "é" for name in names]
    for text in texts:
        for ascii_ in (True, False):
            spelled = json.dumps(text, ensure_ascii=ascii_).encode()
            assert label_of(direct, spelled) == label_of(general, spelled) is not None, spelled


def test_a_name_is_not_hidden_behind_escapes() -> None:
    direct = names_procedure(["ab", "a/"])
    assert label_of(direct, rb'"a\u0062"') is None
    assert label_of(direct, rb'"\u0061b"') is None
    assert label_of(direct, rb'"a\/"') == 2
    assert label_of(direct, rb'"zz\u0062"') == 0
    assert label_of(direct, rb'"a\u00e9"') == 0
    assert label_of(direct, rb'"a\ud83d\ude00"') == 0
    assert label_of(direct, rb'"a\ud83d"') is None


def test_names_with_other_than_printable_ascii_are_left_to_the_general_procedure() -> None:
    assert can_lay_out(["a", "~ !"]) and not can_lay_out(["é"]) and not can_lay_out(["\n"])


@pytest.mark.parametrize("texts", [*NAMES[:-1], ["", "/"], ["~", "\\", '"']], ids=str)
def test_listed_texts_are_those_of_the_general_procedure(texts: list[str]) -> None:
    direct = listed_procedure(texts, 1)
    general = string_procedure(
        [TextEquals(text) for text in texts], lambda truths: 1 if any(truths) else None, Budget(CompileLimits())
    )
    spelled = [json.dumps(text) for text in [*texts, *(text + "x" for text in texts), *(text[:-1] for text in texts)]]
    spelled += [text.replace("/", "\\/") for text in spelled] + ['"\\u0061"', '"a\\u0062"', '"\\n"', '"é"', '"\\/\\/"']
    assert {label_of(direct, text.encode()) for text in spelled} == {1, None}
    for text in spelled:
        assert label_of(direct, text.encode()) == label_of(general, text.encode()), text
