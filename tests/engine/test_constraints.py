"""Every kind of constraint, stated as a program states it, holds in the engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

import sgrun as sg
from sgrun import grammar
from sgrun.errors import CheckFailedError, InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.outlines_index import outlines_spec
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.types import (
    ChoicesSpec,
    GbnfSpec,
    GrammarSpec,
    JsonSchemaSpec,
    LarkSpec,
    Part,
    RegexSpec,
    SequenceSpec,
    Trigger,
    TriggeredSpec,
)


@dataclass
class Move:
    piece: Literal["rook", "pawn"]
    to: tuple[Literal["a", "b"], Literal[1, 2]]


MOVE = sg.json_schema_spec(Move)
NESTED = SequenceSpec(("<", Part("moves", LarkSpec('start: "x" start | "."')), "> ", Part("move", MOVE)))


@sg.function
def sampled(s: sg.ProgramState, arguments: dict[str, Any]) -> None:
    s += "text" + sg.gen("x", temperature=1.0, max_tokens=64, **arguments)


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [
        ({"regex": "[a-f]{3,9}"}, RegexSpec("[a-f]{3,9}")),
        ({"lark": 'start: "a" start "b" | "c"'}, LarkSpec('start: "a" start "b" | "c"')),
        ({"gbnf": 'root ::= "(" root ")" | [0-9]'}, GbnfSpec('root ::= "(" root ")" | [0-9]')),
        ({"json_schema": Move}, MOVE),
        ({"dtype": Move}, MOVE),
        ({"grammar": NESTED}, NESTED),
        ({"grammar": ChoicesSpec(("yes", "no"))}, ChoicesSpec(("yes", "no"))),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_sampled_texts_are_of_the_constraint(
    tiny_engine: sg.Engine, arguments: dict[str, Any], spec: GrammarSpec
) -> None:
    automaton = grammar.compile(spec=spec)
    states = sampled.run_batch([{"arguments": arguments}] * 2, backend=tiny_engine, seed=3)
    for state in states:
        text = state.text().removeprefix("text")
        assert automaton.walker.advance(automaton.walker.start, text.encode()) is not None
        assert automaton.accepts(text.encode()) or state.get_meta_info("x")["finish_reason"]["type"] == "length"
    assert any(automaton.accepts(state.text().removeprefix("text").encode()) for state in states)


def test_typed_values_and_pieces_come_out_of_sampled_texts(tiny_engine: sg.Engine) -> None:
    move = sampled.run({"dtype": Move}, backend=tiny_engine, seed=1)["x"]
    assert isinstance(move, Move) and move.to[1] in (1, 2)
    pieces = sampled.run({"grammar": NESTED}, backend=tiny_engine, seed=1).captures("x")
    assert pieces["moves"].strip("x") == "." and set(pieces["move"]) == {"piece", "to"}


def test_free_text_is_bound_after_every_trigger(tiny_engine: sg.Engine) -> None:
    spec = TriggeredSpec((Trigger("e", RegexSpec("[0-9]{2}"), "!"),))
    automaton = grammar.compile(spec=spec)
    states = sampled.run_batch([{"arguments": {"grammar": spec}}] * 6, backend=tiny_engine, seed=5)
    texts = [state["x"] for state in states]
    assert all(automaton.walker.advance(automaton.walker.start, text.encode()) is not None for text in texts)
    found = [state.captures("x") for state, text in zip(states, texts, strict=True) if automaton.accepts(text.encode())]
    assert sum(map(len, found)) > 0
    assert all(piece.trigger == "e" and piece.value.isdigit() for pieces in found for piece in pieces)


class AfterA:
    """The index of a[bc]* over the tokens of a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        tokens = {vocabulary.token(token): token for token in range(vocabulary.size)}
        self.first, self.more = tokens[b"a"], [tokens[b"b"], tokens[b"c"]]

    def get_initial_state(self) -> int:
        return 5

    def get_transitions(self) -> dict[int, dict[int, int]]:
        return {5: {self.first: 9}, 9: dict.fromkeys(self.more, 9)}

    def is_final_state(self, state: int) -> bool:
        return state == 9


def test_an_index_of_outlines_constrains_a_program(tiny_engine: sg.Engine, tiny_model: Path) -> None:
    vocabulary = Vocabulary.from_tokenizer(tiny_model)
    spec = outlines_spec(AfterA(vocabulary), vocabulary)
    text = sampled.run({"grammar": spec}, backend=tiny_engine, seed=1)["x"]
    assert text[0] == "a" and set(text[1:]) <= {"b", "c"}


def test_what_is_not_enforced_is_refused_or_checked_as_the_program_says(tiny_engine: sg.Engine) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 12, "maxItems": 12, "uniqueItems": True}
    with pytest.raises(UnsupportedGrammarError, match="uniqueItems"):
        sampled.run({"json_schema": schema}, backend=tiny_engine)["x"]
    same = schema | {"items": {"enum": list(range(12))}}
    with pytest.raises(CheckFailedError, match="#/uniqueItems"):
        sampled.run({"json_schema": same, "strict": False}, backend=tiny_engine, seed=1)["x"]


def test_faults_of_a_grammar_surface_where_the_value_is_read(tiny_engine: sg.Engine) -> None:
    for arguments in ({"lark": "start: missing"}, {"gbnf": "root ::= missing"}, {"grammar": JsonSchemaSpec("{")}):
        with pytest.raises(InvalidGrammarError):
            sampled.run(arguments, backend=tiny_engine)["x"]
