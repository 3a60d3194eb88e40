"""Owns what a program reads of the pieces of a composed constraint: the parts of a sequence, what triggers bound.

The pieces are found in the finished text by the automata of their own constraints, compiled when they are first read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sgrun.errors import InvalidParameterError, ProgramError
from sgrun.lang.checks import check_text, read_json
from sgrun.lang.waiting import wait
from sgrun.types import GrammarSpec, JsonSchemaSpec, Part, SequenceSpec, TriggeredSpec

if TYPE_CHECKING:
    from sgrun.grammar.automaton import Automaton


@dataclass(frozen=True, slots=True)
class Captured:
    """What the trigger that begins with `trigger` bound, without its `begin` and `end`."""

    trigger: str
    value: Any


def captured(spec: GrammarSpec, text: str) -> Any:
    """The pieces of `text`: of a sequence a dict from name to value, of a triggered text a list of Captured.

    The value of a piece under a JSON schema is what its JSON says, of a sequence or triggered text again its pieces, of
    any other its text. Raises ProgramError for a text that was cut short, CheckFailedError, and what compiling raises.
    """
    match spec:
        case SequenceSpec() | TriggeredSpec():
            return _pieces(spec, text.encode())
        case JsonSchemaSpec():
            if not spec.strict:
                check_text(spec, text)
            return read_json(text)
        case _:
            return text


def _pieces(spec: SequenceSpec | TriggeredSpec, data: bytes) -> Any:
    from sgrun.grammar.captures import sequence_captures, triggered_spans  # loads NumPy

    try:
        if isinstance(spec, SequenceSpec):
            spans = sequence_captures(spec, data, _compile)
            parts = [part for part in spec.parts if isinstance(part, Part)]
            return {part.name: captured(part.spec, data[slice(*spans[part.name])].decode()) for part in parts}
        found = [(spec.triggers[each.trigger], each.span) for each in triggered_spans(spec, data, _compile)]
        return [Captured(trigger.begin, captured(trigger.spec, data[slice(*span)].decode())) for trigger, span in found]
    except InvalidParameterError as error:
        raise ProgramError(
            f"the generated text is not all of its constraint ({error}); raise max_tokens or remove stop strings"
        ) from error


def _compile(spec: GrammarSpec) -> Automaton:
    from sgrun.grammar.api import submit

    compiled = submit(spec)
    wait(compiled)
    return compiled.result()
