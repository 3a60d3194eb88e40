"""Finds the pieces of a composed constraint in a finished text: the same spans for the same text, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sgrun.errors import InvalidParameterError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.walk import Cursor
from sgrun.types import GrammarSpec, SequenceSpec, TriggeredSpec

Compile = Callable[[GrammarSpec], Automaton]
Span = tuple[int, int]  # bytes [start, end)


@dataclass(frozen=True, slots=True)
class TriggeredSpan:
    """What the trigger of this number bound, without its `begin` and `end`."""

    trigger: int
    span: Span


def sequence_captures(spec: SequenceSpec, data: bytes, compile_spec: Compile) -> dict[str, Span]:
    """Where each named part of a sequence lies in `data`; earlier parts are as long as the rest allows.

    Raises InvalidParameterError if `data` is no text of the sequence.
    """
    automata = [None if isinstance(part, str) else compile_spec(part.spec) for part in spec.parts]
    waiting: list[tuple[int, list[int]]] = [(0, [0])]  # before part i: where it may begin, the best first
    chosen: list[int] = []
    known: dict[tuple[int, int], list[int]] = {}
    failed: set[tuple[int, int]] = set()
    while waiting:
        number, ends = waiting[-1]
        del chosen[number:]
        if not ends:
            waiting.pop()
            continue
        at = ends.pop(0)
        if (number, at) in failed:
            continue
        failed.add((number, at))  # unless the rest fits, in which case it is not asked again
        chosen.append(at)
        if number == len(spec.parts):
            if at == len(data):
                break
            continue
        part, automaton = spec.parts[number], automata[number]
        if isinstance(part, str):
            text = part.encode()
            after = [at + len(text)] if data.startswith(text, at) else []
        else:
            assert automaton is not None
            after = known.setdefault((number, at), _ends(automaton, data, at)[::-1])
        waiting.append((number + 1, list(after)))
    if not waiting:
        raise InvalidParameterError(f"the text {data[:80]!r} is none of the sequence, so it has no captures")
    return {
        part.name: (chosen[number], chosen[number + 1])
        for number, part in enumerate(spec.parts)
        if not isinstance(part, str)
    }


def triggered_spans(spec: TriggeredSpec, data: bytes, compile_spec: Compile) -> list[TriggeredSpan]:
    """What triggers bound in `data`, in order. Raises InvalidParameterError if `data` is no text of the spec."""
    automata = [compile_spec(trigger.spec) for trigger in spec.triggers]
    begins = [trigger.begin.encode() for trigger in spec.triggers]
    spans: list[TriggeredSpan] = []
    at = 0
    while True:
        found = [(data.find(begin, at) + len(begin), i) for i, begin in enumerate(begins) if begin in data[at:]]
        if not found:
            return spans
        start, number = min(found)
        ends = _ends(automata[number], data, start)
        closing = spec.triggers[number].end.encode()
        if not ends or not data.startswith(closing, ends[-1]):
            raise InvalidParameterError(
                f"behind the trigger {spec.triggers[number].begin!r} at byte {start}, the text is not what it binds"
            )
        spans.append(TriggeredSpan(number, (start, ends[-1])))
        at = ends[-1] + len(closing)


def _ends(automaton: Automaton, data: bytes, start: int) -> list[int]:
    """The positions up to which a text from `start` is complete, in order."""
    walker = automaton.walker
    cursor: Cursor | None = walker.start
    ends: list[int] = []
    at = start
    while cursor is not None:
        if walker.is_accepting(cursor):
            ends.append(at)
        if at == len(data):
            break
        cursor = walker.advance(cursor, data[at : at + 1])
        at += 1
    return ends
