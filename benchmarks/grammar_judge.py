"""Owns the judgement of grammar engines: case by case, in processes that are killed over the limit, and counted."""

from __future__ import annotations

import collections
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from grammar_engines import BYTES, Compiled, NewEngine, Refused, accepts
from grammar_suites import Case, Instance

RIGHT, REFUSED, AFTERWARDS, SILENT = "right", "refused", "checked afterwards", "silently wrong"
REJECTS, OVER_LIMIT, CRASHED = "rejects a valid", "over the limit", "crashed"
VERDICTS = (RIGHT, REFUSED, AFTERWARDS, SILENT, REJECTS, OVER_LIMIT, CRASHED)

_T = TypeVar("_T")
Job = Callable[[Case], _T]


@dataclass(frozen=True, slots=True)
class Judgement:
    """`num_wrong`: instances that are taken though invalid, or not though valid."""

    verdict: str
    num_wrong: int = 0
    reason: str = ""
    compile_s: float | None = None
    num_states: int = 0
    size_bytes: int = 0


def judge(new_engine: NewEngine) -> Job[Judgement]:
    """Bytes as tokens: "right" takes every valid instance and no invalid one."""
    engine = new_engine(BYTES)

    def judged(case: Case) -> Judgement:
        started = time.process_time()
        try:
            compiled = engine.compile(case.text, case.notation, formats=case.formats)
        except Refused as error:
            return Judgement(REFUSED, reason=str(error))
        compile_s = time.process_time() - started
        wrong = [instance for instance in case.instances if _is_taken(compiled, instance) != instance.is_valid]
        reason = "; ".join(instance.spellings[0][:100].decode() for instance in wrong[:3])
        return Judgement(
            _verdict(compiled, wrong), len(wrong), reason, compile_s, compiled.num_states, compiled.size_bytes
        )

    return judged


def _verdict(compiled: Compiled, wrong: Sequence[Instance]) -> str:
    if all(instance.is_valid for instance in wrong):
        return REJECTS if wrong else RIGHT
    return AFTERWARDS if compiled.checked_afterwards else SILENT


def _is_taken(compiled: Compiled, instance: Instance) -> bool:
    return any(accepts(compiled, list(spelling)) for spelling in instance.spellings)


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


def percent(counts: dict[str, int]) -> float:
    return round(100 * counts.get(RIGHT, 0) / max(1, sum(counts.values())), 1)
