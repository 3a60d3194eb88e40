"""Grammar engines on patterns, grammars and public JSON schemas: who is right, and how fast. Prints tables and, last,
one JSON line.

python benchmarks/grammar.py [--maskbench FILE.jsonl.gz] [--suite FOLDER] [--vocabulary FILE] [--sample N] [--write]

Patterns and grammars are those of the repository's own tests, and always run. FILE.jsonl.gz: schemas of MaskBench.
FOLDER: the tests of the JSON-Schema-Test-Suite (json/tests in the source package of jsonschema). --vocabulary: what
`Vocabulary.from_tokenizer` takes; every --timed-th schema of MaskBench is then walked token by token with masks and
timed. --sample N: every N-th schema only. --write: the figures go to
benchmarks/results/grammar.json, where what did not run stays, and benchmarks/grammar_docs.py makes pages of them. Peers
run if they are installed (the extra `bench`). Times are CPU time of one process.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from grammar_engines import Compiled, NewEngine, Refused, Tokens, accepts, installed, versions
from grammar_judge import (
    CRASHED,
    OVER_LIMIT,
    Job,
    Judgement,
    by_keyword,
    count,
    judge_all,
    percent,
    run,
)
from grammar_suites import DIALECTS, Case, Notation, maskbench, test_suite
from grammar_tables import grammar_cases, regex_cases

from sgrun.grammar.vocabulary import Vocabulary

RESULTS = Path(__file__).parent / "results" / "grammar.json"
MAX_WALK_TOKENS = 600  # of one schema, as published measurements have it

_T = TypeVar("_T")


@dataclass(slots=True)
class Timing:
    """CPU seconds. `disagreements`: tokens where mask and accept differ, texts where tokens and bytes do."""

    compile_s: float = 0.0
    first_mask_s: float = 0.0
    new_masks: list[float] = field(default_factory=list)
    masks: list[float] = field(default_factory=list)  # as a generation asks: some states are new, some are known
    known_masks: list[float] = field(default_factory=list)
    advances: list[float] = field(default_factory=list)
    disagreements: int = 0


def measure(new_engine: NewEngine, tokens: Tokens) -> Job[Timing | None]:
    """Compiles and walks the instances token by token, each token against the mask before it."""
    engine = new_engine(tokens)
    for schema in ('{"type": "string"}', '{"type": "object"}'):
        engine.compile(schema, "json schema").start().mask()  # builds what is built once for a vocabulary

    def measured(case: Case) -> Timing | None:
        timing = Timing()
        try:
            compiled, timing.compile_s = _timed(lambda: engine.compile(case.text, case.notation))
        except Refused:
            return None
        generation = compiled.start()
        timing.first_mask_s = _timed(generation.mask)[1]
        num_tokens = 0
        for instance in case.instances:
            walked = tokens.encode(instance.spellings[-1])
            num_tokens += len(walked)
            if num_tokens > MAX_WALK_TOKENS:
                break
            is_taken = _walk(compiled, walked, timing)
            as_bytes = [tokens.encode(bytes([byte]))[0] for byte in instance.spellings[-1]]
            timing.disagreements += is_taken != accepts(compiled, as_bytes)
        return timing

    return measured


def _walk(compiled: Compiled, walked: Sequence[int], timing: Timing) -> bool:
    generation = compiled.start()
    for token_id in walked:
        is_new, mask_s = _timed(generation.mask)
        timing.masks.append(mask_s)
        if is_new:
            timing.new_masks.append(mask_s)
        timing.known_masks.append(_timed(generation.mask)[1])
        is_allowed = generation.allows(token_id)
        is_accepted, advance_s = _timed(lambda token_id=token_id: generation.accept(token_id))  # type: ignore[misc]
        timing.disagreements += is_allowed != is_accepted
        if not is_accepted:
            return False
        timing.advances.append(advance_s)
    return generation.is_accepting()


def _timed(action: Callable[[], _T]) -> tuple[_T, float]:
    started = time.process_time()
    result = action()
    return result, time.process_time() - started


def quantiles(values: Sequence[float], scale: float) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    named = {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "max": max(values)}
    return {name: round(value * scale, 3) for name, value in named.items()}


def show(name: str, figures: dict[str, Any]) -> None:
    print(f"{name:<22}" + "; ".join(f"{key} {value}" for key, value in figures.items()), flush=True)


def regex_figures(limit_s: float) -> dict[str, Any]:
    cases = regex_cases()
    print(f"\nRegular expressions, {len(cases)} patterns")
    groups = [case.name.partition(":")[0] for case in cases]
    figures: dict[str, Any] = {}
    for name, new_engine in installed(variants=False).items():
        judgements = judge_all(name, new_engine, cases, limit_s)
        show(name, {**count(judgements), "right %": percent(count(judgements))})
        of_group: dict[str, list[Judgement]] = {}
        for group, judgement in zip(groups, judgements, strict=True):
            of_group.setdefault(group, []).append(judgement)
        figures[name] = {
            "counts": count(judgements),
            "groups": {group: count(of_group[group]) for group in of_group},
            "constructs": by_keyword(cases, judgements),
        }
    return figures


def grammar_figures(notation: Notation, limit_s: float) -> dict[str, Any]:
    cases = grammar_cases(notation)
    print(f"\nGrammars in {notation}, {len(cases)}")
    figures: dict[str, Any] = {}
    for name, new_engine in installed(variants=False).items():
        judgements = judge_all(name, new_engine, cases, limit_s)
        show(name, {**count(judgements), "right %": percent(count(judgements))})
        figures[name] = {
            "counts": count(judgements),
            "grammars": {
                case.name: {
                    "verdict": judgement.verdict,
                    "texts": len(case.instances),
                    "wrong": judgement.num_wrong,
                    "reason": judgement.reason,
                }
                for case, judgement in zip(cases, judgements, strict=True)
            },
        }
    return figures


def maskbench_figures(cases: Sequence[Case], limit_s: float) -> dict[str, Any]:
    print(f"\nMaskBench, {len(cases)} schemas")
    figures: dict[str, Any] = {}
    for name, new_engine in installed().items():
        judgements = judge_all(name, new_engine, cases, limit_s)
        times = [judgement.compile_s for judgement in judgements if judgement.compile_s is not None]
        counts = count(judgements)
        show(name, {**counts, "right %": percent(counts)})
        figures[name] = {"counts": counts, "keywords": by_keyword(cases, judgements)}
        if name == "sgrun":
            compiled = [judgement for judgement in judgements if judgement.compile_s is not None]
            figures[name]["compile_ms"] = quantiles(times, 1e3)
            figures[name]["states"] = quantiles([judgement.num_states for judgement in compiled], 1)
            figures[name]["bytes"] = quantiles([judgement.size_bytes for judgement in compiled], 1)
            show("", {key: figures[name][key] for key in ("compile_ms", "states", "bytes")})
    return figures


def speed_figures(cases: Sequence[Case], tokens: Tokens, limit_s: float) -> dict[str, Any]:
    print(f"\nSpeed, {len(cases)} schemas, {len(tokens.data)} tokens, CPU time")
    figures: dict[str, Any] = {}
    for name, new_engine in installed().items():

        def new_job(new_engine: NewEngine = new_engine) -> Job[Timing | None]:
            return measure(new_engine, tokens)

        found = run(new_job, cases, limit_s)
        timings = [one for one in found if isinstance(one, Timing)]
        figures[name] = {
            "refused": found.count(None),
            OVER_LIMIT: found.count(OVER_LIMIT),
            CRASHED: found.count(CRASHED),
            "compile_ms": quantiles([timing.compile_s for timing in timings], 1e3),
            "first_mask_us": quantiles([timing.first_mask_s for timing in timings], 1e6),
            "mask_us": quantiles([value for timing in timings for value in timing.masks], 1e6),
            "new_mask_us": quantiles([value for timing in timings for value in timing.new_masks], 1e6),
            "known_mask_us": quantiles([value for timing in timings for value in timing.known_masks], 1e6),
            "advance_us": quantiles([value for timing in timings for value in timing.advances], 1e6),
            "tokens": sum(len(timing.masks) for timing in timings),
            "disagreements": sum(timing.disagreements for timing in timings),
        }
        print(name)
        for key, value in figures[name].items():
            print(f"  {key:<16}{value}", flush=True)
    return figures


def suite_figures(folder: Path, draft: str, every: int, limit_s: float) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    cases = test_suite(folder, draft)[::every]
    for name, new_engine in installed().items():
        print(f"\nJSON-Schema-Test-Suite, {draft}, {name}")
        judgements = judge_all(name, new_engine, cases, limit_s)
        keywords = by_keyword(cases, judgements)
        figures[name] = {"required": {}, "optional": {}, "keywords": keywords}
        for kind in ("required", "optional"):
            of_kind = [
                judgement
                for case, judgement in zip(cases, judgements, strict=True)
                if case.name.startswith("optional/") == (kind == "optional")
            ]
            figures[name][kind] = count(of_kind)
            show(kind, {"groups": len(of_kind), **figures[name][kind], "right %": percent(figures[name][kind])})
        if name == "sgrun":
            for keyword, counts in keywords.items():
                print(f"  {keyword:<40}{counts}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maskbench", type=Path)
    parser.add_argument("--suite", type=Path)
    parser.add_argument("--vocabulary", type=Path)
    parser.add_argument("--sample", type=int, default=1, metavar="N")
    parser.add_argument("--timed", type=int, default=10, metavar="N")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds a schema (default: 20)")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "regex": regex_figures(options.limit),
        "lark": grammar_figures("lark", options.limit),
        "gbnf": grammar_figures("gbnf", options.limit),
    }
    measured = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": versions(),
        "sample": options.sample,
        "limit_s": options.limit,
    }
    if options.maskbench:
        cases = maskbench(options.maskbench)[:: options.sample]
        result["maskbench"] = maskbench_figures(cases, options.limit)
        if options.vocabulary:
            vocabulary = Vocabulary.from_tokenizer(options.vocabulary)
            tokens = Tokens(
                [vocabulary.token(token_id) or None for token_id in range(vocabulary.size)],
                min(vocabulary.end_token_ids),
            )
            measured["vocabulary"] = vocabulary.size
            result["speed"] = speed_figures(cases[:: options.timed], tokens, options.limit)
    if options.suite:
        result["suite"] = {
            draft: suite_figures(options.suite, draft, options.sample, options.limit) for draft in DIALECTS
        }
    result["measured"] = dict.fromkeys(result, measured)
    if options.write:
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))
        RESULTS.write_text(json.dumps(merged(kept, result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({"benchmark": "grammar", **result}))


def merged(kept: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Sections that did not run stay as they are, with the circumstances under which they ran."""
    return {**kept, **result, "measured": {**kept["measured"], **result["measured"]}}


if __name__ == "__main__":
    main()
