"""Grammar engines on public JSON schemas: who is right, and how fast. Prints tables and, last, one JSON line.

python benchmarks/grammar.py [--maskbench FILE.jsonl.gz] [--suite FOLDER] [--vocabulary FILE] [--sample N] [--write]

FILE.jsonl.gz: schemas of MaskBench. FOLDER: the tests of the JSON-Schema-Test-Suite (json/tests in the source package
of jsonschema). --vocabulary: what `Vocabulary.from_tokenizer` takes; every --timed-th schema of MaskBench is then
walked token by token with masks and timed. --sample N: every N-th schema only. --write: the figures go to
benchmarks/results/grammar.json, which benchmarks/grammar_docs.py makes a page of. Peers run if they are installed
(the extra `bench`). Times are CPU time of one process.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from grammar_engines import BYTES, Compiled, NewEngine, Refused, Tokens, accepts, installed, versions
from grammar_suites import DIALECTS, Case, Instance, maskbench, test_suite

from sgrun.grammar.vocabulary import Vocabulary

RESULTS = Path(__file__).parent / "results" / "grammar.json"
MAX_WALK_TOKENS = 600  # of one schema, as published measurements have it
RIGHT, REFUSED, AFTERWARDS, SILENT = "right", "refused", "checked afterwards", "silently wrong"
REJECTS, OVER_LIMIT, CRASHED = "rejects a valid", "over the limit", "crashed"
VERDICTS = (RIGHT, REFUSED, AFTERWARDS, SILENT, REJECTS, OVER_LIMIT, CRASHED)

_T = TypeVar("_T")
Job = Callable[[Case], _T]


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: str
    reason: str = ""
    compile_s: float | None = None
    num_states: int = 0
    size_bytes: int = 0


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


def judge(new_engine: NewEngine) -> Job[Judgement]:
    """Bytes as tokens: "right" takes every valid instance and no invalid one."""
    engine = new_engine(BYTES)

    def judged(case: Case) -> Judgement:
        started = time.process_time()
        try:
            compiled = engine.compile(case.schema, formats=case.formats)
        except Refused as error:
            return Judgement(REFUSED, str(error))
        compile_s = time.process_time() - started
        verdict, reason = _verdict(compiled, case)
        return Judgement(verdict, reason, compile_s, compiled.num_states, compiled.size_bytes)

    return judged


def _verdict(compiled: Compiled, case: Case) -> tuple[str, str]:
    wrong = [instance for instance in case.instances if _is_taken(compiled, instance) != instance.is_valid]
    reason = "; ".join(instance.spellings[0][:100].decode() for instance in wrong[:3])
    if all(instance.is_valid for instance in wrong):
        return (REJECTS if wrong else RIGHT), reason
    return (AFTERWARDS if compiled.checked_afterwards else SILENT), reason


def _is_taken(compiled: Compiled, instance: Instance) -> bool:
    return any(accepts(compiled, list(spelling)) for spelling in instance.spellings)


def measure(new_engine: NewEngine, tokens: Tokens) -> Job[Timing | None]:
    """Compiles and walks the instances token by token, each token against the mask before it."""
    engine = new_engine(tokens)
    for schema in ('{"type": "string"}', '{"type": "object"}'):
        engine.compile(schema).start().mask()  # builds what is built once for a vocabulary

    def measured(case: Case) -> Timing | None:
        timing = Timing()
        try:
            compiled, timing.compile_s = _timed(lambda: engine.compile(case.schema))
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


def run(new_job: Callable[[], Job[_T]], cases: Sequence[Case], limit_s: float) -> list[_T | str]:
    """The results of a job in a process of its own, which is killed and replaced where a case takes over the limit.

    Holds OVER_LIMIT or CRASHED where there is no result.
    """
    results: list[_T | str] = []
    context = multiprocessing.get_context("fork")
    while len(results) < len(cases):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, new_job, cases[len(results) :]))
        process.start()
        sender.close()
        try:
            receiver.recv()  # the engine stands
            while len(results) < len(cases):
                if not receiver.poll(limit_s):
                    results.append(OVER_LIMIT)
                    break
                results.append(receiver.recv())
        except EOFError:
            results.append(CRASHED)
        process.kill()
        process.join()
    return results


def _work(sender: Connection, new_job: Callable[[], Job[Any]], cases: Sequence[Case]) -> None:
    job = new_job()
    sender.send(None)
    for case in cases:
        sender.send(job(case))


def judge_all(name: str, new_engine: NewEngine, cases: Sequence[Case], limit_s: float) -> list[Judgement]:
    """One judgement a case; prints what is not right where the engine is sgrun."""
    found = run(lambda: judge(new_engine), cases, limit_s)
    judgements = [Judgement(one) if isinstance(one, str) else one for one in found]
    if name == "sgrun":
        for case, judgement in zip(cases, judgements, strict=True):
            if judgement.verdict != RIGHT:
                print(f"  {judgement.verdict}: {case.name}: {judgement.reason[:160]}")
    return judgements


def count(judgements: Sequence[Judgement]) -> dict[str, int]:
    counts = collections.Counter(judgement.verdict for judgement in judgements)
    return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}


def by_keyword(cases: Sequence[Case], judgements: Sequence[Judgement]) -> dict[str, dict[str, int]]:
    """Keyword -> how many of its cases came out how."""
    found: dict[str, list[Judgement]] = {}
    for case, judgement in zip(cases, judgements, strict=True):
        for keyword in case.keywords:
            found.setdefault(keyword, []).append(judgement)
    return {keyword: count(found[keyword]) for keyword in sorted(found)}


def quantiles(values: Sequence[float], scale: float) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    named = {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "max": max(values)}
    return {name: round(value * scale, 3) for name, value in named.items()}


def show(name: str, figures: dict[str, Any]) -> None:
    print(f"{name:<22}" + "; ".join(f"{key} {value}" for key, value in figures.items()), flush=True)


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


def percent(counts: dict[str, int]) -> float:
    return round(100 * counts.get(RIGHT, 0) / max(1, sum(counts.values())), 1)


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
        "benchmark": "grammar",
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
            result["vocabulary"] = vocabulary.size
            result["speed"] = speed_figures(cases[:: options.timed], tokens, options.limit)
    if options.suite:
        result["suite"] = {
            draft: suite_figures(options.suite, draft, options.sample, options.limit) for draft in DIALECTS
        }
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
