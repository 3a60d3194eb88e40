from __future__ import annotations

import json
import re
import time

import pytest
from lark_grammars import S_EXPRESSIONS

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.sample import Sampler
from sgrun.types import JsonSchemaSpec, LarkSpec, RegexSpec


def _schema(schema: object) -> Automaton:
    return compile_grammar(JsonSchemaSpec(json.dumps(schema), whitespace="compact"))


def _completion(automaton: Automaton, begun: str) -> str:
    cursor = automaton.walker.advance(automaton.walker.start, begun.encode())
    assert cursor is not None
    rest = Sampler(automaton, seed=0).completion(cursor)
    assert rest is not None
    return rest.decode()


def test_texts_are_accepted_and_of_about_the_length_asked_for() -> None:
    automaton = _schema({"type": "array", "items": {"type": "integer", "minimum": 0}})
    for soft_len in (0, 10, 200):
        texts = [Sampler(automaton, seed, soft_len).text() for seed in range(40)]
        assert all(automaton.accepts(text) for text in texts)
        assert max(map(len, texts)) <= soft_len + 2
        assert len(set(texts)) > min(soft_len, 20)


def test_same_seed_draws_the_same() -> None:
    automaton = compile_grammar(RegexSpec(r"\w+( \w+)*"))
    assert [Sampler(automaton, 3).text() for _ in range(2)] == [Sampler(automaton, 3).text()] * 2


def test_comment_that_only_the_end_of_its_line_closes_is_left() -> None:
    automaton = compile_grammar(LarkSpec(S_EXPRESSIONS.grammar))
    for begun, rest in (("(0.l;ab", r"\n\s*\)"), ("(a . ; x", r"\n\s*[^\s()]+\s*\)"), ("(((;", r"\n\s*\)\s*\)\s*\)")):
        assert re.fullmatch(rest, _completion(automaton, begun)), begun


@pytest.mark.parametrize(
    ("begun", "rest"),
    [("[[", '""],""]'), ('[["a"', '],""]'), ('[["a"],"b"', "]"), ('[["a"],"b"]', "")],
)
def test_completion_is_short(begun: str, rest: str) -> None:
    strings = {"type": "string", "pattern": "^[ab]?$"}
    pair = {"prefixItems": [{"type": "array", "items": strings, "minItems": 1}, strings], "items": False, "minItems": 2}
    assert _completion(_schema({"type": "array", **pair}), begun) == rest


def test_completion_meets_what_is_counted() -> None:
    assert len(_completion(compile_grammar(RegexSpec("[a-z]{3000,}x")), "ab")) == 2999
    items = {"type": "array", "minItems": 300, "items": {"type": "string", "minLength": 3, "maxLength": 900}}
    automaton = _schema(items)
    began = time.process_time()
    assert len(json.loads("[" + _completion(automaton, "["))) == 300
    assert time.process_time() - began < 2


def test_text_that_runs_out_of_frames_is_drawn_anew() -> None:
    pair = {"type": "array", "prefixItems": [{"$ref": "#"}, {"$ref": "#"}], "minItems": 2}
    automaton = _schema({"anyOf": [{"const": 1}, pair]})
    cursor = automaton.walker.advance(automaton.walker.start, b"[" * 64)
    assert cursor is not None and Sampler(automaton, seed=0).completion(cursor) is None
    assert all(automaton.accepts(Sampler(automaton, seed, soft_len=400).text()) for seed in range(5))
