"""Whatever text is given as a constraint ends in an automaton or in an error of ours, in bounded time and memory.

What an automaton then generates is valid for another reader of the constraint. The tests are short;
`python tests/grammar/test_grammar_fuzz.py 600` goes on for ten minutes, with the limits of the compiler.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from test_schema_random import SCHEMAS
from walk_subjects import schema_validator

from sgrun.errors import GrammarError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.limits import CompileLimits
from sgrun.grammar.sample import Sampler
from sgrun.types import ChoicesSpec, GbnfSpec, GrammarSpec, JsonSchemaSpec, LarkSpec, RegexSpec

SMALL = CompileLimits(max_states=2000, max_nfa_states=4000, max_set_elements=40_000)
CPU_LIMIT_S = 10
_META = jsonschema.Draft202012Validator.META_SCHEMA
MEMORY_LIMIT = 4 * 2**30

Valid = Callable[[str], bool]


@dataclass(frozen=True)
class Case:
    """`is_valid` None: no other reader of this constraint is at hand."""

    spec: GrammarSpec
    is_valid: Valid | None = None


def _regex_case(pattern: str) -> Case:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            reference = re.compile(pattern)
        except (re.error, OverflowError, RecursionError):
            return Case(RegexSpec(pattern))
    is_comparable = r"\B" not in pattern and len(pattern) < 100  # \B at the empty text; `re` may take for ever
    return Case(RegexSpec(pattern), (lambda text: bool(reference.fullmatch(text))) if is_comparable else None)


def _schema_case(schema: Any) -> Case:
    """The validator is asked about schemas of its metaschema that stay within themselves."""
    text = json.dumps(schema)
    names_others = any(f'"{word}"' in text for word in ("$schema", "$id", "$anchor", "$dynamicRef"))
    is_schema = isinstance(schema, dict | bool) and jsonschema.Draft202012Validator(_META).is_valid(schema)
    return Case(JsonSchemaSpec(text), schema_validator(schema) if is_schema and not names_others else None)


REGEX_PIECES = [
    *"ab1_ \n.|()[]{}*+?^$\\-,:=!<>&~#/é日ſK", "(?:", "(?=", "(?!", "(?<=", "(?i)", "(?s:", "(?x)", "(?m)", "(?P<n>",
    "(?>", "[^", "[a-z]", r"[\w-]", "[^\\W\\d]", r"\d", r"\w", r"\W", r"\s", r"\b", r"\B", r"\A", r"\Z", r"\p{L}",
    r"\p{^Lu}", r"\1", r"\x41", r"\u00e9", r"\u{1F600}", r"\U0001d11e", r"\N{EURO SIGN}", r"\cJ", r"\0", r"\777",
    "{2}", "{0,3}", "{,2}", "{5,}", "{3,70}", "{200}", "{0,999999999}", "*?", "++", "a{1,3}", "(a|b)", "(?:a?b?)",
    "(?#c)", "[[:alpha:]]", "[a&&b]",
]  # fmt: skip
LARK_PIECES = [
    "start", "a", "A", '"x"', '"x"', '"xy"i', "/[a-z]+/", "/x*/", '"\\ud800"', '"a".."c"', "(a)", '["x"]', "(", ")",
    "|", "|", "*", "+", "?", "~2", "{0,2}", "&", "~A", "-> b", "\nb: ", "\n%ignore ", "\n%import common.WS", "B",
    '%json {"type":"null"}', "f{a}", "\nf{x}: x", "// c\n", "/(?=a)b/", "~ 3..900000000", "<t>", "\\",
]  # fmt: skip
GBNF_PIECES = [
    "root", "a", '"x"', '"x"', '"x\\n"', "[a-z]", "[^x]", ".", "[\\ud7ff-\\uffff]", '"\\U00110000"', "(a)", "(", ")",
    "|", "|", "*", "+", "?", "{2}", "{1,}", "{,2}", "{999999999}", "\nb ::= ", "# x\n", "b", "<t>", "\\", "::=", "\n",
]  # fmt: skip

_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**30) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
_KEYWORDS = [
    "$schema", "$id", "$ref", "$anchor", "$defs", "$dynamicRef", "type", "enum", "const", "allOf", "anyOf", "oneOf",
    "not", "if", "then", "else", "properties", "patternProperties", "additionalProperties", "required", "minProperties",
    "maxProperties", "propertyNames", "dependentRequired", "dependentSchemas", "dependencies", "items", "prefixItems",
    "contains", "minContains", "maxContains", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength",
    "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "unevaluatedItems",
    "unevaluatedProperties",
]  # fmt: skip
_WORDS = st.sampled_from(
    [
        "#",
        "#/$defs/a",
        "object",
        "array",
        "string",
        "number",
        "date-time",
        "email",
        "ipv6",
        "^a+$",
        "(",
        "a{1000}",
        "\\w+",
    ]
)
_FREE_SCHEMAS = st.recursive(
    _JUNK | _WORDS,
    lambda inner: (
        st.dictionaries(st.sampled_from(_KEYWORDS), inner | _WORDS | st.integers(0, 5), max_size=4)
        | st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "^a"]), inner, max_size=2)
    ),
    max_leaves=10,
)


def _texts(pieces: list[str], longest: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=longest).map("".join)


_EDITS = st.tuples(
    st.integers(0, 10**6), st.sampled_from(["", *'{}[]",:019.eE-\\utn', '"type"', "null", "\ud800"]), st.integers(0, 3)
)


def _edited(text_and_edits: tuple[str, list[tuple[int, str, int]]]) -> Case:
    text, edits = text_and_edits
    for at, inserted, num_removed in edits:
        at %= len(text) + 1
        text = text[:at] + inserted + text[at + num_removed :]
    return Case(JsonSchemaSpec(text))


TARGETS: dict[str, st.SearchStrategy[Case]] = {
    "regex": (_texts(REGEX_PIECES, 14) | st.text(max_size=20)).map(_regex_case),
    "schema": SCHEMAS.map(_schema_case),
    "free schema": _FREE_SCHEMAS.map(_schema_case),
    "schema text": st.tuples(SCHEMAS.map(json.dumps), st.lists(_EDITS, max_size=3)).map(_edited),
    "pattern": _texts(REGEX_PIECES, 12).map(
        lambda text: Case(JsonSchemaSpec(json.dumps({"type": "string", "pattern": text, "maxLength": 9})))
    ),
    "lark": _texts([piece + " " for piece in LARK_PIECES], 25).map(
        lambda text: Case(LarkSpec("start: " + text + '\na: "a" start |\nA: "a"~1..2\n'))
    ),
    "gbnf": _texts([piece + " " for piece in GBNF_PIECES], 25).map(
        lambda text: Case(GbnfSpec("root ::= " + text + '\na ::= "a" root |\n'))
    ),
    "any text": st.text(max_size=60).flatmap(
        lambda text: st.sampled_from([Case(spec(text)) for spec in (LarkSpec, GbnfSpec, JsonSchemaSpec)])
    ),
    "choices": st.lists(st.text(max_size=9), max_size=9).map(
        lambda texts: Case(ChoicesSpec((*texts,)), texts.__contains__)
    ),
}


def check(case: Case, limits: CompileLimits) -> str:
    """How it ended; raises if that is no way to end."""
    with cpu_limit(CPU_LIMIT_S):
        try:
            automaton = compile_grammar(case.spec, limits)
        except GrammarError as error:
            assert str(error), "an error says something"
            return type(error).__name__
        assert automaton.num_states > 1
        for text in _sampled(automaton):
            assert automaton.accepts(text.encode())
            is_valid = case.is_valid is None or automaton.checked_afterwards or case.is_valid(text)
            assert is_valid, text
    return "automaton"


def _sampled(automaton: Automaton) -> list[str]:
    sampler = Sampler(automaton, seed=1, soft_len=20)
    return [sampler.text().decode() for _ in range(3)]


@contextmanager
def cpu_limit(limit_s: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise AssertionError(f"longer than {limit_s} s of CPU")

    previous = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


@pytest.mark.parametrize("name", TARGETS)
def test_any_constraint_ends_in_an_automaton_or_an_error_of_ours(name: str) -> None:
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(TARGETS[name])
    def run(case: Case) -> None:
        check(case, SMALL)

    run()


def main(duration_s: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    endings: dict[str, Counter[str]] = {name: Counter() for name in TARGETS}
    longest: dict[str, tuple[float, str]] = dict.fromkeys(TARGETS, (0.0, ""))
    ends_at = time.monotonic() + duration_s
    options = settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    for number, name in ((number, name) for number in count() for name in TARGETS):
        if time.monotonic() > ends_at:
            break

        @seed(number)
        @options
        @given(TARGETS[name], st.just(name))
        def run(case: Case, name: str) -> None:
            start = time.process_time()
            endings[name][check(case, CompileLimits())] += 1
            longest[name] = max(longest[name], (time.process_time() - start, repr(case.spec)))

        run()
    for name, (cpu_s, spec) in longest.items():
        print(f"{name}: {dict(endings[name])}; longest {cpu_s:.2f} s of CPU, {spec[:200]}")
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    main(float(sys.argv[1]))
