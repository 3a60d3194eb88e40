"""The command line: `sgrun check-schema FILE`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sgrun import grammar
from sgrun.errors import GrammarError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.sample import Sampler
from sgrun.grammar.schema.report import assertions

FAILED, MISUSED = 1, 2  # exit status


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    return check_schema(options.file, options.whitespace, options.samples, options.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sgrun", description="Structured generation: tools for the command line.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check-schema",
        help="what becomes of a JSON schema as a constraint",
        description="Compiles a JSON schema, and says which keywords are enforced, which are to be checked afterwards "
        "and which are refused, how large the tables are, and what texts the constraint allows. The exit status is 0 "
        "if everything is enforced or listed, 1 if the schema is refused.",
    )
    check.add_argument("file", type=Path, metavar="FILE", help="JSON text of the schema; - for standard input")
    check.add_argument("--whitespace", choices=["compact", "space", "free"], default="space", help="default: space")
    check.add_argument("--samples", type=int, default=3, metavar="N", help="texts to draw (default: 3)")
    check.add_argument("--seed", type=int, default=0, metavar="N", help="of the samples (default: 0)")
    return parser


def check_schema(file: Path, whitespace: str, num_samples: int, seed: int) -> int:
    """Prints the report; returns the exit status."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"sgrun: {file} cannot be read: {error}", file=sys.stderr)
        return MISUSED
    grammar.compile(regex="-")  # starts the compile process, whose start is not the schema's time
    start = time.perf_counter()
    try:
        automaton = grammar.compile(json_schema=text, whitespace=whitespace)
    except GrammarError as error:
        print(f"refused: {error}")
        return FAILED
    compile_s = time.perf_counter() - start
    _print_keywords(json.loads(text), automaton)
    print(f"compiled in {compile_s * 1e3:.1f} ms")
    print(f"tables: {_size(automaton)}")
    sampler = Sampler(automaton, seed)
    for _ in range(num_samples):
        print(f"sample: {sampler.text().decode()}")
    return 0


def _print_keywords(schema: object, automaton: Automaton) -> None:
    later = {(unchecked.keyword, unchecked.pointer) for unchecked in automaton.checked_afterwards}
    enforced = [(keyword, pointer) for keyword, pointer in assertions(schema) if (keyword, pointer) not in later]
    counts = Counter(keyword for keyword, _ in enforced)
    for keyword, count in counts.items():
        pointers = [pointer for name, pointer in enforced if name == keyword]
        print(f"enforced: {keyword} ({count}): {_shortened(pointers)}")
    for keyword, pointer in sorted(later):
        print(f"checked afterwards: {keyword}: {pointer}")


def _shortened(pointers: list[str], limit: int = 5) -> str:
    shown = ", ".join(pointers[:limit])
    return shown if len(pointers) <= limit else f"{shown} and {len(pointers) - limit} more"


def _size(automaton: Automaton) -> str:
    return (
        f"{automaton.num_states} states x {automaton.num_classes} byte classes, {len(automaton.sites)} call sites, "
        f"{len(automaton.counts)} counts; {automaton.size_bytes:,} bytes"
    )
