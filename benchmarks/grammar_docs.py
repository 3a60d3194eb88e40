"""Writes docs/json_schema.md from benchmarks/results/grammar.json, which benchmarks/grammar.py --write leaves.

python benchmarks/grammar_docs.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grammar import RESULTS, RIGHT, VERDICTS, percent

PAGE = Path(__file__).parents[1] / "docs" / "json_schema.md"
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


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def verdicts(counts: dict[str, int]) -> list[object]:
    """The share that is right, then how many came out in each other way."""
    return [f"{percent(counts)}%", *(counts.get(verdict, 0) for verdict in VERDICTS if verdict != RIGHT)]


def totals(result: dict[str, Any]) -> str:
    head = ["", RIGHT, *(verdict for verdict in VERDICTS if verdict != RIGHT)]
    figures = result["maskbench"]
    num_schemas = sum(figures["sgrun"]["counts"].values())
    parts = [
        f"## MaskBench: {num_schemas:,} schemas of real use\n\n",
        table(head, [[name, *verdicts(figures[name]["counts"])] for name in figures]),
    ]
    for draft, title in DRAFTS.items():
        for kind in ("required", "optional"):
            suite = result["suite"][draft]
            num_groups = sum(suite["sgrun"][kind].values())
            parts.append(f"\n## JSON-Schema-Test-Suite, {title}, {kind}: {num_groups} groups\n\n")
            parts.append(table(head, [[name, *verdicts(suite[name][kind])] for name in suite]))
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
        SPEED.format(size=result["vocabulary"])
        + table(["", *columns, "disagreements"], rows)
        + f"\nsgrun over all of MaskBench: compile {_quantiles(sizes['compile_ms'])} ms, "
        f"{_quantiles(sizes['states'])} states, {_quantiles(sizes['bytes'])} bytes of tables.\n"
    )


def _quantiles(values: dict[str, float]) -> str:
    return " / ".join(f"{values[name]:,.1f}".removesuffix(".0") for name in ("p50", "p90", "p99"))


def page(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    measured = f"\nMeasured on {result['date']} with Python {result['python']}, {versions}.\n"
    intro = INTRO.format(limit=f"{result['limit_s']:g} s a schema")
    return intro + totals(result) + "\n" + NOTES + keywords(result) + speed(result) + measured


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
