from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import BaseModel

from sgrun import grammar
from sgrun.errors import GrammarTooLargeError, InvalidGrammarError, InvalidParameterError, UnsupportedGrammarError
from sgrun.types import Part, RegexSpec, SequenceSpec, Trigger, TriggeredSpec


class Point(BaseModel):
    x: int


def move(x: int, y: int = 0) -> None: ...


POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}


def test_each_kind_of_constraint_compiles() -> None:
    assert grammar.compile(regex="a+").accepts(b"aa")
    assert grammar.compile(choices=["yes", "no"]).accepts(b"no")
    assert grammar.compile(lark='start: "a" start "b" | "c"').accepts(b"aacbb")
    assert grammar.compile(gbnf='root ::= "a" root "b" | "c"').accepts(b"aacbb")
    assert grammar.compile(spec=SequenceSpec(("a", Part("x", RegexSpec("b+"))))).accepts(b"abb")
    assert grammar.compile(spec=TriggeredSpec((Trigger("<", RegexSpec("b"), ">"),))).accepts(b"a <b> c")
    assert grammar.compile(lark='start: "x"\nother: "y"', start="other").accepts(b"y")
    for schema in (POINT, '{"type":"object"}', Point, dict[str, int], move, True):
        automaton = grammar.compile(json_schema=schema)
        assert automaton.accepts(b'{"x": 1}') and not automaton.accepts(b'{"x": 1')


def test_white_space_is_as_asked_for() -> None:
    texts = {"compact": b'{"x":1}', "space": b'{"x": 1}', "free": b'{\n"x" :1 }'}
    for option, allowed in (("compact", 1), ("space", 2), ("free", 3)):
        automaton = grammar.compile(json_schema=POINT, whitespace=option)
        assert [automaton.accepts(text) for text in texts.values()] == [True] * allowed + [False] * (3 - allowed)


def test_what_is_not_enforced_is_listed_and_refused_when_strict() -> None:
    schema = {"type": "array", "uniqueItems": True}
    (unchecked,) = grammar.compile(json_schema=schema).checked_afterwards
    assert (unchecked.keyword, unchecked.pointer) == ("uniqueItems", "#/uniqueItems")
    with pytest.raises(UnsupportedGrammarError, match="#/uniqueItems"):
        grammar.compile(json_schema=schema, strict=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "given are none; allowed: exactly one of"),
        ({"regex": "a", "choices": ["a"]}, r"given are \['regex', 'choices'\]"),
        ({"json_schema": {}, "whitespac": "free"}, "did you mean 'whitespace'"),
        ({"json_schema": {}, "start": "a"}, "'start' is no option of json_schema"),
        ({"regex": "a", "strict": True}, "'strict' is no option of regex; allowed: none"),
        ({"json_schema": {}, "whitespace": "some"}, "whitespace is 'some'; allowed"),
        ({"json_schema": {}, "strict": 1}, "strict is 1; allowed"),
        ({"json_schema": [1]}, r"type or schema is \[1\]; allowed"),
        ({"regex": b"a"}, "pattern is b'a'; allowed: a string"),
        ({"gbnf": 3}, "grammar is 3; allowed: a string"),
        ({"spec": "a"}, "spec is 'a'; allowed: a value of RegexSpec, "),
        ({"spec": RegexSpec("a"), "start": "b"}, "'start' is no option of spec; allowed: none"),
        ({"choices": "ab"}, "choices is the string 'ab'"),
        ({"choices": ["a", 1]}, "choices holds 1; allowed: strings"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_allowed(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        grammar.compile(**arguments)  # type: ignore[arg-type]


def test_faults_of_the_constraint_are_typed() -> None:
    with pytest.raises(InvalidGrammarError):
        grammar.compile(regex="a(")
    with pytest.raises(InvalidGrammarError, match="cannot express"):
        grammar.compile(json_schema={"const": {1, 2}})
    with pytest.raises(GrammarTooLargeError):
        grammar.compile(regex="(.*a.{40}|b)")


def test_compiling_goes_on_in_a_forked_process() -> None:
    grammar.compile(regex="a")
    code = "import os; from sgrun import grammar; grammar.compile(regex='a'); pid = os.fork(); " \
        "print(grammar.compile(regex='b').accepts(b'b'), flush=True); pid and os.waitpid(pid, 0)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.stdout.split() == ["True", "True"], done.stderr
