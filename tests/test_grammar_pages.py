"""The pages with figures of grammar engines are what benchmarks/grammar_docs.py writes from the committed results.

Where a table of tests/grammar has changed, `python benchmarks/grammar.py --write && python benchmarks/grammar_docs.py`
measures it anew in half a minute, with the peers of the extra `bench`.
"""

from __future__ import annotations

import json
from typing import Any

import gbnf_grammars
import lark_grammars
import pytest
from grammar import RESULTS, merged
from grammar_docs import BEGIN, END, pages, with_figures
from grammar_judge import RIGHT
from grammar_tables import CONSTRUCTS, constructs, grammar_cases, regex_cases
from regex_table import BEYOND_PYTHON, ECMA, PYTHON, REFUSED

DIGITS = "`\\d \\w \\s` and opposites"


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_pages_show_the_committed_figures(result: dict[str, Any]) -> None:
    for path, text in pages(result).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run benchmarks/grammar_docs.py"


def test_a_page_keeps_what_stands_around_its_figures() -> None:
    page = f"above\n{BEGIN}\nold\n\n{END}below\n"
    assert with_figures(page, "new\n") == f"above\n{BEGIN}\nnew\n\n{END}below\n"


def test_sections_that_did_not_run_stay() -> None:
    kept = {"regex": 1, "maskbench": 2, "measured": {"regex": "old", "maskbench": "old"}}
    new = merged(kept, {"regex": 3, "measured": {"regex": "new"}})
    assert new == {"regex": 3, "maskbench": 2, "measured": {"regex": "new", "maskbench": "old"}}


def test_the_figures_are_of_the_tables_as_they_are(result: dict[str, Any]) -> None:
    groups = {name: sum(counts.values()) for name, counts in result["regex"]["sgrun"]["groups"].items()}
    assert groups == {
        "re": len(PYTHON) + len(REFUSED),
        "beyond re": len(BEYOND_PYTHON),
        "in a schema": len(ECMA),
    }
    for notation, module in {"lark": lark_grammars, "gbnf": gbnf_grammars}.items():
        assert list(result[notation]["sgrun"]["grammars"]) == [*module.EXAMPLES, *module.UNDECIDED]


def test_sgrun_is_right_in_the_figures_where_the_tests_hold_it_to_be(result: dict[str, Any]) -> None:
    assert result["regex"]["sgrun"]["counts"] == {
        RIGHT: len(PYTHON) + len(BEYOND_PYTHON) + len(ECMA),
        "refused": len(REFUSED),
    }
    for notation, module in {"lark": lark_grammars, "gbnf": gbnf_grammars}.items():
        verdicts = {name: one["verdict"] for name, one in result[notation]["sgrun"]["grammars"].items()}
        assert verdicts == {
            **dict.fromkeys(module.EXAMPLES, RIGHT),
            **dict.fromkeys(module.UNDECIDED, "refused"),
        }


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"abc", set()),
        (r"[(?<=](?<=b)", {"sets `[...]`", "lookbehind `(?<=...) (?<!...)`"}),
        (r"\(\.\[", {"escaped characters"}),
        (r"[]\d\u00e9]+?", {"sets `[...]`", DIGITS, "characters by code or name", "lazy repeats"}),
        (r"^[^]$", {"sets `[...]`", "anchors"}),
        (r"a[]|b", {"sets `[...]`", "alternation"}),
        (r"(?P<a>x)(?P=a)\1", {"groups with names", "backreferences `\\1 (?P=name)`"}),
        (
            r"(a{2,3})?+b{1,500}",
            {"groups", "counts `{m,n}`", "counts from 100 on", "atomic groups, possessive repeats"},
        ),
        (r"\u{1F600}\p{Lu}é", {"characters by code or name", "properties `\\p{...}`", "characters beyond ASCII"}),
        (r"(?i:^a.*)", {"flags `(?i) (?i:...)`", "anchors", "`.`", "`* + ?`"}),
        (r"\b(?!x)", {"word borders `\\b \\B`", "lookahead `(?=...) (?!...)`"}),
        (r"(a)?(?(1)b)", {"groups", "`* + ?`", "conditional groups `(?(1)...)`"}),
    ],
)
def test_constructs_of_a_pattern_are_told(pattern: str, expected: set[str]) -> None:
    assert constructs(pattern) == expected


def test_every_construct_occurs_in_the_table() -> None:
    assert {name for case in regex_cases() for name in case.keywords} == set(CONSTRUCTS)


def test_texts_have_mutations_on_both_sides_where_there_is_a_judge() -> None:
    by_re = [case for case in regex_cases() if case.name.startswith("re: ")]
    valid = [instance.is_valid for case in by_re for instance in case.instances]
    assert len(valid) > 10 * len(by_re)
    assert 0.1 < sum(valid) / len(valid) < 0.9
    for case in grammar_cases("gbnf"):
        is_judged = case.name in lark_grammars.FOR_LARK_TOO
        assert (len(case.instances) > 60) == is_judged
