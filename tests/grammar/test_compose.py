from __future__ import annotations

import pytest
from grammar_walks import accepts

from sgrun.errors import GrammarError, InvalidGrammarError, InvalidParameterError, UnsupportedGrammarError
from sgrun.grammar.automaton import Unchecked
from sgrun.grammar.captures import TriggeredSpan, sequence_captures, triggered_spans
from sgrun.grammar.compiler import compile_grammar
from sgrun.types import (
    ChoicesSpec,
    DfaSpec,
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

COUNT = JsonSchemaSpec(
    '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}'
)
SUM = LarkSpec('start: start "+" term | term\nterm: /[0-9]+/ | "(" start ")"')
CALLS = TriggeredSpec(
    (
        Trigger("<tool_call>", COUNT, "</tool_call>"),
        Trigger("<calc>", SUM, "</calc>"),
        Trigger("#", RegexSpec("[0-9]{2}")),
    )
)
LETTER = SequenceSpec(
    (
        "Name: ",
        Part("name", RegexSpec("[^;]*")),
        "; ",
        Part("count", COUNT),
        Part("mood", ChoicesSpec(("!", "?!"))),
        Part("sum", GbnfSpec('root ::= "(" root ")" | [0-9]+')),
    )
)


def test_free_text_is_bound_behind_triggers() -> None:
    automaton = compile_grammar(CALLS)
    for text in (
        "",
        "hé < <tool_cal",
        '<tool_call>{"a":1}</tool_call> and <calc>1+(2+3)</calc>#12',
        '<<tool_call>{"a": 12}</tool_call>',
        "#12#34",
        "</calc>",
    ):
        assert accepts(automaton, text), text
    for text in (
        "<tool_call>",
        '<tool_call>{"b":1}</tool_call>',
        '<tool_call>{"a":1}',
        "a #1",
        "#123#",
        "<calc>1+</calc>",
        "<calc>1</tool_call>",
        b"\xff",
    ):
        assert not accepts(automaton, text), text


def test_triggers_that_share_a_beginning_or_overlap_themselves_are_found() -> None:
    spec = TriggeredSpec(
        (Trigger("<a>", RegexSpec("x")), Trigger("<ab>", RegexSpec("y")), Trigger("aab", RegexSpec("z")))
    )
    automaton = compile_grammar(spec)
    for text in ("<a>x<ab>y", "aaabz", "<<ab>y", "<aaabz"):
        assert accepts(automaton, text), text
    for text in ("<a>y", "<ab>x", "aaab", "<aaab>"):
        assert not accepts(automaton, text), text


def test_what_triggers_bound_is_found_again() -> None:
    data = 'x <tool_call>{"a":1}</tool_call>é#12<calc>1+2</calc>'.encode()
    spans = triggered_spans(CALLS, data, compile_grammar)
    assert [(span.trigger, data[slice(*span.span)]) for span in spans] == [(0, b'{"a":1}'), (2, b"12"), (1, b"1+2")]
    assert triggered_spans(CALLS, b"none", compile_grammar) == []
    assert spans[0] == TriggeredSpan(0, (13, 20))
    with pytest.raises(InvalidParameterError, match="'#' at byte 1"):
        triggered_spans(CALLS, b"#1", compile_grammar)


def test_sequences_take_one_part_after_the_other() -> None:
    automaton = compile_grammar(LETTER)
    assert accepts(automaton, 'Name: Zoë; {"a": 1}?!((12))')
    assert accepts(automaton, 'Name: ; {"a":1}!1')
    for text in ('Name: a; {"a":1}?1', 'Name: a; {"a":1}!', "Name: a; !1", 'Name: a{"a":1}!1', 'Name: a; {"a":1}!((1)'):
        assert not accepts(automaton, text), text


def test_parts_of_sequences_are_found_again() -> None:
    data = 'Name: Zoë; {"a": 1}?!((12))'.encode()
    spans = sequence_captures(LETTER, data, compile_grammar)
    assert {name: data[slice(*span)].decode() for name, span in spans.items()} == {
        "name": "Zoë",
        "count": '{"a": 1}',
        "mood": "?!",
        "sum": "((12))",
    }
    with pytest.raises(InvalidParameterError, match="none of the sequence"):
        sequence_captures(LETTER, b"Name: ", compile_grammar)


def test_ready_made_automata_are_constraints_and_parts() -> None:
    classes = (0,) * 97 + (1,) + (0,) * 158  # class 1 is the letter a; state 2 leads nowhere
    spec = DfaSpec(classes, ((0, 0), (2, 3), (2, 2), (0, 1)), (1,))
    automaton = compile_grammar(spec)
    assert [accepts(automaton, "a" * count) for count in range(5)] == [True, False, True, False, True]
    assert automaton.num_states == 3
    spec = DfaSpec(classes, ((0, 0), (0, 2), (0, 1)), (1,))
    parts = SequenceSpec(("(", Part("even", spec), ")"))
    assert accepts(compile_grammar(parts), "(aa)") and not accepts(compile_grammar(parts), "(a)")
    assert sequence_captures(parts, b"(aa)", compile_grammar) == {"even": (1, 3)}


def test_earlier_parts_are_as_long_as_the_rest_allows() -> None:
    spec = SequenceSpec((Part("head", RegexSpec("[ab]*")), "b", Part("tail", RegexSpec("[ab]*")), ""))
    assert accepts(compile_grammar(spec), "abab")
    assert sequence_captures(spec, b"abab", compile_grammar) == {"head": (0, 3), "tail": (4, 4)}
    assert not accepts(compile_grammar(spec), "aa")


def test_captures_of_many_parts_are_found_or_missed_without_trying_every_way() -> None:
    spec = SequenceSpec((*(Part(f"p{number}", RegexSpec("a*")) for number in range(30)), "b"))
    assert sequence_captures(spec, b"aaaab", compile_grammar)["p0"] == (0, 4)
    with pytest.raises(InvalidParameterError):
        sequence_captures(spec, b"a" * 60, compile_grammar)


def test_sequences_and_triggers_nest() -> None:
    inner = SequenceSpec(("(", Part("a", COUNT), ")"))
    automaton = compile_grammar(TriggeredSpec((Trigger("@", inner),)))
    assert accepts(automaton, 'x @({"a":1}) y @({"a":2})')
    assert not accepts(automaton, 'x @({"a":1}')
    whole = SequenceSpec(("> ", Part("rest", TriggeredSpec((Trigger("@", inner),)))))
    assert accepts(compile_grammar(whole), '> x @({"a":1})')


def test_what_a_schema_leaves_to_a_check_is_listed_unless_it_is_strict() -> None:
    schema = '{"type": "array", "uniqueItems": true}'
    lenient = SequenceSpec(("x", Part("a", JsonSchemaSpec(schema, strict=False))))
    assert compile_grammar(lenient).checked_afterwards == (Unchecked("uniqueItems", "#/uniqueItems"),)
    for spec in (
        SequenceSpec(("x", Part("a", JsonSchemaSpec(schema, strict=True)))),
        LarkSpec(f"start: %json {schema}"),
    ):
        with pytest.raises(UnsupportedGrammarError, match="uniqueItems"):
            compile_grammar(spec)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (TriggeredSpec((Trigger("", COUNT),)), InvalidGrammarError, "trigger '' is empty"),
        (TriggeredSpec((Trigger("ab", COUNT), Trigger("b", COUNT))), InvalidGrammarError, "'ab' is empty or holds"),
        (
            TriggeredSpec((Trigger("a", COUNT), Trigger("a", RegexSpec("x")))),
            InvalidGrammarError,
            "holds the trigger 'a'",
        ),
        (TriggeredSpec((Trigger("x", SUM),)), UnsupportedGrammarError, "trigger 'x': .*may go on"),
        (TriggeredSpec((Trigger("x", RegexSpec("(")),)), InvalidGrammarError, "trigger 'x': .*malformed"),
        (SequenceSpec((Part("a", COUNT), Part("a", COUNT))), InvalidGrammarError, "'a'; names are used once"),
        (SequenceSpec((Part("a", CALLS), "x")), UnsupportedGrammarError, "part 'a': .*no end of its own"),
        (SequenceSpec((Part("a", RegexSpec(".*")), Part("b", COUNT))), UnsupportedGrammarError, "may begin different"),
        (SequenceSpec((Part("a", JsonSchemaSpec('{"type": 1}')),)), InvalidGrammarError, "part 'a'"),
    ],
)
def test_errors_name_the_part(spec: GrammarSpec, error: type[GrammarError], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        compile_grammar(spec)
