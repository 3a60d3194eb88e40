"""Owns variables: how a name is read once the operations behind it are done, and what is known about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from sgrun.errors import SgrunError
from sgrun.lang.captures import captured
from sgrun.lang.checks import check_text
from sgrun.lang.choices import Decider
from sgrun.lang.op import Op, add_place
from sgrun.lang.transcript import Part, text_of
from sgrun.lang.values import TypedValue
from sgrun.types import Completion, GrammarSpec, JsonSchemaSpec, OpStats, SequenceSpec, TokenLogprob, TriggeredSpec


@dataclass(frozen=True, slots=True)
class Variable:
    """`read`, `meta_info` and `captures` wait and raise the error of what they wait for; `op` is what generates the
    value; `captures` is None where the constraint has no pieces."""

    read: Callable[[], Any]
    meta_info: Callable[[], Any]
    op: Op | None = None
    captures: Callable[[], Any] | None = None


def assigned(value: object) -> Variable:
    return Variable(lambda: value, lambda: None)


def scoped(parts: list[Part]) -> Variable:
    return Variable(lambda: text_of(parts), lambda: None)


def gathered(variables: Sequence[Variable | None]) -> Variable:
    """One value per branch; None for a branch without it."""
    captures = [None if variable is None else variable.captures for variable in variables]
    return Variable(
        lambda: [None if variable is None else variable.read() for variable in variables],
        lambda: [None if variable is None else variable.meta_info() for variable in variables],
        captures=(lambda: [each and each() for each in captures]) if any(captures) else None,
    )


def selected(op: Op, decider: Decider) -> Variable:
    def meta_info() -> dict[str, Any]:
        return {**_counts(op.scores().stats), **decider.meta_info}

    return Variable(op.text, meta_info, op)


def generated(
    op: Op, grammar: GrammarSpec | None, typed: TypedValue | None, *, is_list: bool, with_token_text: bool
) -> Variable:
    """`is_list`: the value is the list of all samples, not the only one. A value is made when it is first read."""

    @cache
    def of_samples(value: Callable[[str], Any]) -> Any:
        values = [_placed(op, value, completion.text) for completion in op.generation().completions]
        return values if is_list else values[0]

    def read(text: str) -> object:
        if isinstance(grammar, JsonSchemaSpec) and not grammar.strict:
            check_text(grammar, text)
        return text if typed is None else typed.value(text)

    def meta_info() -> Any:
        result = op.generation()
        infos = [_completion_info(each, result.stats, with_token_text) for each in result.completions]
        return infos if is_list else infos[0]

    captures = None
    if isinstance(grammar, SequenceSpec | TriggeredSpec):
        captures = partial(of_samples, partial(captured, grammar))
    return Variable(partial(of_samples, read), meta_info, op, captures)


def output_token_logprobs(logprobs: Sequence[TokenLogprob], with_token_text: bool = True) -> list[list[Any]]:
    """`[logprob, token_id, text]` per token; text is None if not wanted."""
    return [[token.logprob, token.token_id, token.text if with_token_text else None] for token in logprobs]


def _placed(op: Op, value: Callable[[str], Any], text: str) -> Any:
    try:
        return value(text)
    except SgrunError as error:
        add_place(error, op.program, op.line)
        raise


def _counts(stats: OpStats) -> dict[str, Any]:
    return {"prompt_tokens": stats.prompt_tokens, "cached_tokens": stats.cached_tokens}


def _completion_info(completion: Completion, stats: OpStats, with_token_text: bool) -> dict[str, Any]:
    finish: dict[str, Any] = {"type": completion.finish_reason}
    if completion.stop_reason is not None:
        finish["matched"] = completion.stop_reason
    return {
        **_counts(stats),
        "text": completion.text,
        "completion_tokens": completion.completion_tokens,
        "finish_reason": finish,
        "output_token_logprobs": output_token_logprobs(completion.logprobs, with_token_text),
        "output_top_logprobs": [output_token_logprobs(token.top, with_token_text) for token in completion.logprobs],
    }
