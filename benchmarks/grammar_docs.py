"""Writes what docs/ says of support in percent: docs/json_schema.md, and what stands between two markers in
docs/regular_expressions.md and docs/grammars.md, from benchmarks/results/grammar.json, which benchmarks/grammar.py
--write leaves.

python benchmarks/grammar_docs.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grammar import RESULTS
from grammar_judge import AFTERWARDS, CRASHED, OVER_LIMIT, REFUSED, RIGHT, VERDICTS, percent
from grammar_tables import CONSTRUCTS

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->\n"
DRAFTS = {"draft2020-12": "2020-12", "draft7": "draft 7"}

INTRO = """\
# JSON Schema: what is supported

<!-- written by benchmarks/grammar_docs.py; change it there -->

Every keyword is enforced by the automaton, or listed in `checked_afterwards`, or the schema is refused with the JSON
pointer of what stands in the way. `sgrun check-schema FILE` says which of these for a schema of yours.

The figures count schemas (MaskBench) and groups (JSON-Schema-Test-Suite) by what the automaton alone does with all
their instances, written compactly with keys as given or in schema order:

- *right*: all valid ones are taken, all invalid ones refused;
- *refused*: a typed error instead of a constraint;
- *checked afterwards*: an invalid one is taken, and what it violates may be listed as unchecked;
- *silently wrong*: an invalid one is taken, and nothing is listed;
- *rejects a valid*: a valid one is not taken, though no invalid one is;
- *over the limit*, *crashed*: {limit} and what ended the process.

"""

NOTES = """\
Right by choice, though counted as not right:

- Nothing is fetched: references out of the schema, other meta-schemas among them, are refused (`refRemote`).
- A schema that nothing satisfies is refused (`InvalidGrammarError`): there is no text to generate.
- Dialects other than the drafts are refused, also where the standard allows to pass over what they add (`vocabulary`).

`format` is enforced, as users of constraints expect, but not in the groups of the required file `format`, which hold it
to be an annotation, as the drafts have it by default: sgrun compiles these with `formats=False`. The other engines have
no such option.
"""

SPEED = """
## Speed and size

CPU time of one process, {size:,} tokens, p50 / p90 / p99. *mask*: as a generation asks for it, at every token.
*disagreements*: tokens that the mask and the step see differently, texts that tokens and bytes do.

"""

REGULAR_VERDICTS = [verdict for verdict in VERDICTS if verdict != AFTERWARDS]
GROUPS = {
    "re": "that `re` reads, and judges",
    "beyond re": "in spellings of Rust and ECMAScript that `re` refuses",
    "in a schema": "as `pattern` of a JSON schema, by ECMA-262",
}
REGEX = """\
{num_patterns} patterns as people write them, of `tests/grammar/regex_table.py`, each with texts that match and texts
that do not; where `re` reads the pattern, also eight mutations of each text, judged by `re.fullmatch`. A pattern is
*right* if all texts that match are taken and no others, *silently wrong* if another is taken, *rejects a valid* if one
is missing. Lookbehind, backreferences, conditional groups and atomic ones of variable length are there because they
exist, not in proportion to their use: no pattern in the MaskBench schemas of [json_schema.md](json_schema.md) has one.
The other engines document other dialects (Rust's; a part of ECMAScript's), so that what they refuse or read differently
need be no defect of theirs.

"""

NOTATIONS = {"lark": "Lark", "gbnf": "GBNF"}
GRAMMARS = """\
The grammars are those of `tests/grammar/lark_grammars.py` and `tests/grammar/gbnf_grammars.py`, with their texts. Where
Lark's own reader (LALR, contextual lexer) takes the grammar or its translation, eight mutations of each text join them,
judged by that reader. A grammar is *right* if all its texts are taken and no others, *silently wrong* if another is
taken, *rejects a valid* if one is missing. The last two of each table are there because sgrun refuses them: no bounded
lookahead decides between their rules.

llguidance and xgrammar are given the same Lark text, which is not quite their dialect: they take ignored text between
terminals only, and a keyword that looks like a name may be a name; neither reads priorities and templates. llguidance
reads GBNF through its own converter to Lark.

"""


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def verdicts(counts: dict[str, dict[str, int]], shown: Sequence[str] = VERDICTS) -> str:
    """For each engine the share that is right, then how many came out in each other way."""
    others = [verdict for verdict in shown if verdict != RIGHT]
    rows = [[name, f"{percent(of)}%", *(of.get(verdict, 0) for verdict in others)] for name, of in counts.items()]
    return table(["", RIGHT, *others], rows)


def totals(result: dict[str, Any]) -> str:
    figures = result["maskbench"]
    num_schemas = sum(figures["sgrun"]["counts"].values())
    parts = [
        f"## MaskBench: {num_schemas:,} schemas of real use\n\n",
        verdicts({name: figures[name]["counts"] for name in figures}),
    ]
    for draft, title in DRAFTS.items():
        for kind in ("required", "optional"):
            suite = result["suite"][draft]
            num_groups = sum(suite["sgrun"][kind].values())
            parts.append(f"\n## JSON-Schema-Test-Suite, {title}, {kind}: {num_groups} groups\n\n")
            parts.append(verdicts({name: suite[name][kind] for name in suite}))
    return "".join(parts)


def keywords(result: dict[str, Any]) -> str:
    """Keyword by keyword, for sgrun: a suite's file or a feature of MaskBench, and how many it has."""
    sources = [result["suite"][draft]["sgrun"]["keywords"] for draft in DRAFTS]
    sources.append(result["maskbench"]["sgrun"]["keywords"])
    names = sorted({name for source in sources[:2] for name in source}, key=lambda name: ("/" in name, name))
    names = [
        name for name in names if "/" not in name or any(set(source.get(name, {})) - {RIGHT} for source in sources)
    ]
    rows = [[f"`{name}`", *(_share(source.get(name)) for source in sources)] for name in names]
    return (
        "\n## Keyword by keyword\n\nOf the optional files, formats among them, those that are not all right.\n\n"
        + table(["keyword", *DRAFTS.values(), "MaskBench"], rows)
    )


def _share(counts: dict[str, int] | None) -> str:
    if counts is None:
        return ""
    others = [f"{count} {verdict}" for verdict, count in counts.items() if verdict != RIGHT]
    return f"{percent(counts):g}% of {sum(counts.values())}" + (f" ({', '.join(others)})" if others else "")


def speed(result: dict[str, Any]) -> str:
    """Of the engines' walks over the same instances: p50 / p90 / p99."""
    columns = {
        "compile, ms": "compile_ms",
        "first mask, us": "first_mask_us",
        "mask, us": "mask_us",
        "mask of a new state": "new_mask_us",
        "mask once more": "known_mask_us",
        "advance, us": "advance_us",
    }
    rows = [
        [name, *(_quantiles(figures[key]) for key in columns.values()), figures["disagreements"]]
        for name, figures in result["speed"].items()
    ]
    sizes = result["maskbench"]["sgrun"]
    return (
        SPEED.format(size=result["measured"]["speed"]["vocabulary"])
        + table(["", *columns, "disagreements"], rows)
        + f"\nsgrun over all of MaskBench: compile {_quantiles(sizes['compile_ms'])} ms, "
        f"{_quantiles(sizes['states'])} states, {_quantiles(sizes['bytes'])} bytes of tables.\n"
    )


def _quantiles(values: dict[str, float]) -> str:
    return " / ".join(f"{values[name]:,.1f}".removesuffix(".0") for name in ("p50", "p90", "p99"))


def json_schema_page(result: dict[str, Any]) -> str:
    intro = INTRO.format(limit=f"{result['measured']['maskbench']['limit_s']:g} s a schema")
    return (
        intro + totals(result) + "\n" + NOTES + keywords(result) + speed(result) + "\n" + measured(result, "maskbench")
    )


def measured(result: dict[str, Any], section: str) -> str:
    circumstances = result["measured"][section]
    versions = ", ".join(f"{name} {version}" for name, version in circumstances["versions"].items())
    return f"Measured on {circumstances['date']} with Python {circumstances['python']}, {versions}.\n"


def regex_figures(result: dict[str, Any]) -> str:
    engines = result["regex"]
    counts = {name: engines[name]["counts"] for name in engines}
    parts = {GROUPS[group]: group for group in engines["sgrun"]["groups"]}
    return (
        REGEX.format(num_patterns=sum(counts["sgrun"].values()))
        + verdicts(counts, REGULAR_VERDICTS)
        + "\n"
        + _support("patterns", engines, "groups", parts)
        + "\n"
        + _support("patterns with", engines, "constructs", {name: name for name in CONSTRUCTS})
        + "\n"
        + measured(result, "regex")
    )


def _support(title: str, engines: dict[str, Any], key: str, rows: dict[str, str]) -> str:
    """For each row, how many there are and which share of them each engine has right; the most frequent first."""
    lines = []
    for shown, name in rows.items():
        counts = [figures[key][name] for figures in engines.values()]
        lines.append([shown, sum(counts[0].values()), *(f"{percent(of_engine):g}%" for of_engine in counts)])
    return table([title, "number", *engines], sorted(lines, key=lambda line: line[1], reverse=True))


def grammars_figures(result: dict[str, Any]) -> str:
    parts = [GRAMMARS]
    for notation, title in NOTATIONS.items():
        engines = result[notation]
        num_grammars = sum(engines["sgrun"]["counts"].values())
        grammars = {name: engines[name]["grammars"] for name in engines}
        rows = [
            [name, figures["texts"], *(_texts_right(grammars[engine][name]) for engine in engines)]
            for name, figures in grammars["sgrun"].items()
        ]
        parts += [
            f"### {title}: {num_grammars} grammars\n\n",
            verdicts({name: engines[name]["counts"] for name in engines}, REGULAR_VERDICTS),
            "\nOf the texts of each grammar, those that are judged rightly:\n\n",
            table(["grammar", "texts", *engines], rows),
            "\n",
        ]
    return "".join(parts) + measured(result, "lark")


def _texts_right(figures: dict[str, Any]) -> str:
    if figures["verdict"] in (REFUSED, OVER_LIMIT, CRASHED):
        return str(figures["verdict"])
    return f"{100 * (1 - figures['wrong'] / figures['texts']):.3g}%"


def with_figures(text: str, figures: str) -> str:
    """The text of a page with these figures between its markers."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{figures}\n{END}{rest.partition(END)[2]}"


def pages(result: dict[str, Any]) -> dict[Path, str]:
    """The texts that the pages should have."""
    found = {DOCS / "json_schema.md": json_schema_page(result)}
    for name, figures in {"regular_expressions.md": regex_figures, "grammars.md": grammars_figures}.items():
        found[DOCS / name] = with_figures((DOCS / name).read_text(encoding="utf-8"), figures(result))
    return found


if __name__ == "__main__":
    for path, text in pages(json.loads(RESULTS.read_text(encoding="utf-8"))).items():
        path.write_text(text, encoding="utf-8")
