"""Owns the repository's own tables, which its tests hold sgrun to, as cases: patterns and grammars with their texts.

Where there is a judge (`re`; the `lark` library, with LALR(1) and a contextual lexer), the texts of the tables are
joined by mutations of them, eight each, that it has judged.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from grammar_suites import Case, Instance, Notation
from lark import Lark
from lark.exceptions import LarkError

sys.path.append(str(Path(__file__).parents[1] / "tests" / "grammar"))
import gbnf_grammars
import lark_grammars
from grammar_walks import mutated
from regex_table import BEYOND_PYTHON, ECMA, PYTHON, REFUSED, Row

NUM_MUTATIONS = 8
MORE_CHARS = "a0_ \nA-é"  # beside those of a pattern's own texts
Judge = Callable[[str], bool]

# Construct -> how it is spelled. What comes first wins where two begin at the same character.
CONSTRUCTS = {
    "lookahead `(?=...) (?!...)`": r"\(\?[=!]",
    "lookbehind `(?<=...) (?<!...)`": r"\(\?<[=!]",
    "conditional groups `(?(1)...)`": r"\(\?\(\w+\)",
    "backreferences `\\1 (?P=name)`": r"\(\?P=|\\[1-9]",
    "groups with names": r"\(\?P?<",
    "flags `(?i) (?i:...)`": r"\(\?[a-zA-Z-]+[:)]",
    "atomic groups, possessive repeats": r"\(\?>|(?:[*+?]|\{\d*,?\d*\})\+",
    "groups": r"\((?:\?:)?",
    "properties `\\p{...}`": r"\\[pP](?:\{[^}]*\}|.)",
    "word borders `\\b \\B`": r"\\[bB]",
    "anchors": r"\\[AZz]|[$^]",
    "`\\d \\w \\s` and opposites": r"\\[dDwWsS]",
    "characters by code or name": r"\\[xuUN]\{[^}]*\}|\\[xuUNc0]",
    "escaped characters": r"\\.",
    "sets `[...]`": r"\[\^?\]?(?:\\.|[^\]\\])*\]",
    "lazy repeats": r"(?:[*+?]|\{\d*,?\d*\})\?",
    "counts from 100 on": r"\{(?:\d*,)?\d{3,}\}",
    "counts `{m,n}`": r"\{\d+(?:,\d*)?\}|\{,\d+\}",
    "`* + ?`": r"[*+?]",
    "`.`": r"\.",
    "alternation": r"\|",
    "characters beyond ASCII": r"[^\x00-\x7f]",
}
_TOKEN = re.compile("|".join(f"({spelling})" for spelling in CONSTRUCTS.values()), re.DOTALL)
_IN_SETS = {
    "properties `\\p{...}`",
    "`\\d \\w \\s` and opposites",
    "characters by code or name",
    "characters beyond ASCII",
}


def regex_cases() -> list[Case]:
    """The group of a case, in front of its name, is who decides what its pattern means."""
    draw = random.Random(1)
    cases = []
    for row in [*PYTHON, *REFUSED]:
        reference = re.compile(row.pattern)
        texts = _with_mutations([*row.accepted, *row.rejected], MORE_CHARS, draw)
        cases.append(
            _regex_case("re", row, _judged(texts, lambda text, reference=reference: bool(reference.fullmatch(text))))
        )
    cases += [_regex_case("beyond re", row, _given(row.accepted, row.rejected)) for row in BEYOND_PYTHON]
    for row in ECMA:
        case = _regex_case("in a schema", row, _given(map(_json, row.accepted), map(_json, row.rejected)))
        schema = json.dumps({"type": "string", "pattern": row.pattern})
        cases.append(Case(case.name, case.keywords, schema, case.instances))
    return cases


def constructs(pattern: str) -> set[str]:
    """What a pattern is made of."""
    names = list(CONSTRUCTS)
    found = set()
    for token in _TOKEN.finditer(pattern):
        name = names[(token.lastindex or 0) - 1]
        found.add(name)
        if name == "sets `[...]`":
            found |= constructs(token.group()[1:-1]) & _IN_SETS
    return found


def grammar_cases(notation: Notation) -> list[Case]:
    """Grammars in Lark's notation or GBNF. Those of both are judged alike: by Lark's own reader of the Lark text."""
    module = {"lark": lark_grammars, "gbnf": gbnf_grammars}[notation]
    draw = random.Random(2)
    cases = []
    for name, example in (module.EXAMPLES | module.UNDECIDED).items():
        instances = _given(example.accepted, example.rejected)
        original = lark_grammars.EXAMPLES.get(name)
        if original is not None and name in lark_grammars.FOR_LARK_TOO:
            parser = Lark(original.grammar, parser="lalr", lexer="contextual")
            texts = _with_mutations([*example.accepted, *example.rejected], "", draw)
            instances = _judged(texts, lambda text, parser=parser: _parses(parser, text))
        cases.append(Case(name, (), example.grammar, instances, notation))
    return cases


def _parses(parser: Lark, text: str) -> bool:
    try:
        parser.parse(text)
    except LarkError:
        return False
    return True


def _regex_case(group: str, row: Row, instances: tuple[Instance, ...]) -> Case:
    keywords = tuple(name for name in CONSTRUCTS if name in constructs(row.pattern))
    return Case(f"{group}: {row.pattern}", keywords, row.pattern, instances, "regex")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _with_mutations(texts: Sequence[str], more_chars: str, draw: random.Random) -> list[str]:
    chars = "".join(sorted({*"".join(texts), *more_chars}))
    return list(dict.fromkeys([*texts, *(mutated(text, chars, draw) for text in texts for _ in range(NUM_MUTATIONS))]))


def _judged(texts: Iterable[str], judge: Judge) -> tuple[Instance, ...]:
    return tuple(Instance((text.encode(),), judge(text)) for text in texts)


def _given(accepted: Iterable[str], rejected: Iterable[str]) -> tuple[Instance, ...]:
    verdicts: Mapping[bool, Iterable[str]] = {True: accepted, False: rejected}
    return tuple(Instance((text.encode(),), is_valid) for is_valid, texts in verdicts.items() for text in texts)
