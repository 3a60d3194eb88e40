"""Owns the expressions that a program appends to its state: text, generations, selections and roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Unpack

from sgrun.errors import InvalidParameterError, ProgramError
from sgrun.lang.choices import ChoicesSamplingMethod, ConstrainedDecoding, token_length_normalized
from sgrun.lang.sampling import SamplingArguments, check_sampling
from sgrun.lang.schema import json_schema_spec
from sgrun.lang.values import TypedValue, typed_value
from sgrun.types import ChoicesSpec, GbnfSpec, GrammarSpec, LarkSpec, RegexSpec, check_spec


class Expr:
    """Something to append to a state with `s += ...`; expressions and strings combine with `+`."""

    def __add__(self, other: Expr | str) -> Concat:
        return Concat((*_parts(self), *_parts(other)))

    def __radd__(self, other: str) -> Concat:
        return Concat((*_parts(other), *_parts(self)))

    def __str__(self) -> NoReturn:
        raise ProgramError(
            f"{self!r} was turned into text, for example inside an f-string, so it would never run; "
            "write s += 'text before' + gen('x') + 'text after'"
        )

    def __format__(self, format_spec: str) -> NoReturn:
        str(self)
        raise AssertionError


@dataclass(frozen=True)
class Concat(Expr):
    parts: tuple[Expr | str, ...]


@dataclass(frozen=True)
class Gen(Expr):
    name: str | None
    sampling: SamplingArguments = field(default_factory=SamplingArguments)
    grammar: GrammarSpec | None = None
    typed: TypedValue | None = None


@dataclass(frozen=True)
class Select(Expr):
    name: str | None
    choices: tuple[str, ...]
    method: ChoicesSamplingMethod


@dataclass(frozen=True)
class RoleBegin(Expr):
    role: str


@dataclass(frozen=True)
class RoleEnd(Expr):
    role: str


def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: Sequence[int] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    repetition_penalty: float | None = None,
    logit_bias: Mapping[int, float] | None = None,
    seed: int | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
    dtype: object = None,
    choices: Sequence[str] | None = None,
    choices_method: ChoicesSamplingMethod | ConstrainedDecoding | None = None,
    regex: str | None = None,
    json_schema: object = None,
    lark: str | None = None,
    gbnf: str | None = None,
    grammar: GrammarSpec | None = None,
    strict: bool = True,
) -> Expr:
    """A generation by the model, stored as `s[name]`. None inherits from the run.

    `n` > 1: the variable is a list of n samples, the text goes on with the first. A matched stop string is cut off.

    One of these constrains the text: `regex`, `json_schema` (JSON text, a dict, a boolean, or a Python type or function
    that Pydantic reads), `lark` and `gbnf` (grammar texts), `grammar` (any spec of `sgrun.types`), `choices`, which are
    scored unless `choices_method` is `constrained_decoding`, and `dtype`, which makes `s[name]` a value of that type:
    int, float, bool, str (or their names) are written bare, any other type as JSON.

    `strict`: a schema with keywords that cannot be enforced is refused; False: reading `s[name]` checks the text, and
    raises CheckFailedError. Raises InvalidParameterError, InvalidGrammarError.
    """
    sampling: SamplingArguments = {
        "max_tokens": max_tokens,
        "min_tokens": min_tokens,
        "n": n,
        "stop": stop,
        "stop_token_ids": stop_token_ids,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "repetition_penalty": repetition_penalty,
        "logit_bias": logit_bias,
        "seed": seed,
        "ignore_eos": ignore_eos,
        "return_logprob": return_logprob,
        "logprob_start_len": logprob_start_len,
        "top_logprobs_num": top_logprobs_num,
        "return_text_in_logprobs": return_text_in_logprobs,
    }
    check_name(name)
    check_sampling(sampling)
    constraints = {
        "dtype": dtype,
        "choices": choices,
        "regex": regex,
        "json_schema": json_schema,
        "lark": lark,
        "gbnf": gbnf,
        "grammar": grammar,
    }
    given = [key for key, value in constraints.items() if value is not None]
    if len(given) > 1:
        raise InvalidParameterError(f"gen got {' and '.join(given)}; allowed: one of them, since each constrains alone")
    if not strict and given not in (["json_schema"], ["dtype"]):
        raise InvalidParameterError(
            f"gen got strict=False with {given or 'nothing'}; allowed: with json_schema or dtype"
        )
    if choices is not None:
        return _choose(name, choices, choices_method or token_length_normalized, sampling)
    if choices_method is not None:
        raise InvalidParameterError("gen got choices_method without choices; pass the choices too")
    if dtype is not None:
        typed = typed_value(dtype, strict=strict)
        return Gen(name, sampling, typed.grammar, typed)
    if json_schema is not None:
        return Gen(name, sampling, json_schema_spec(json_schema, strict=strict))
    if grammar is not None:
        check_spec("grammar", grammar)
        return Gen(name, sampling, grammar)
    texts = ((regex, RegexSpec), (lark, LarkSpec), (gbnf, GbnfSpec))
    return Gen(name, sampling, next((spec(text) for text, spec in texts if text is not None), None))


def gen_int(name: str | None = None, **sampling: Unpack[SamplingArguments]) -> Expr:
    """A generation that is an integer; `s[name]` is an int."""
    return gen(name, dtype=int, **sampling)


def gen_string(name: str | None = None, **sampling: Unpack[SamplingArguments]) -> Expr:
    """A generation that is a double-quoted string; `s[name]` is what stands between the quotes."""
    return gen(name, dtype=str, **sampling)


def select(
    name: str | None = None,
    choices: Sequence[str] | None = None,
    temperature: float = 0.0,
    choices_method: ChoicesSamplingMethod | ConstrainedDecoding = token_length_normalized,
) -> Expr:
    """One of `choices`, picked by `choices_method` and stored as `s[name]`. Raises InvalidParameterError."""
    return gen(name, temperature=temperature, choices=() if choices is None else choices, choices_method=choices_method)


def system(expr: Expr | str | None = None) -> Expr:
    """A system message with `expr` as its content."""
    return _role("system", expr)


def user(expr: Expr | str | None = None) -> Expr:
    """A user message with `expr` as its content."""
    return _role("user", expr)


def assistant(expr: Expr | str | None = None) -> Expr:
    """An assistant message with `expr` as its content."""
    return _role("assistant", expr)


def system_begin() -> Expr:
    """Opens a system message."""
    return RoleBegin("system")


def system_end() -> Expr:
    """Closes the system message."""
    return RoleEnd("system")


def user_begin() -> Expr:
    """Opens a user message."""
    return RoleBegin("user")


def user_end() -> Expr:
    """Closes the user message."""
    return RoleEnd("user")


def assistant_begin() -> Expr:
    """Opens an assistant message."""
    return RoleBegin("assistant")


def assistant_end() -> Expr:
    """Closes the assistant message."""
    return RoleEnd("assistant")


def check_name(name: object) -> None:
    if name is not None and not isinstance(name, str):
        raise InvalidParameterError(f"the name of a variable is {name!r}; allowed: a string or None")


def _parts(expr: Expr | str) -> tuple[Expr | str, ...]:
    if isinstance(expr, Concat):
        return expr.parts
    if isinstance(expr, (Expr, str)):
        return (expr,)
    raise ProgramError(
        f"cannot append {expr!r}; allowed: strings and expressions such as gen(), so use str() on values"
    )


def _role(role: str, expr: Expr | str | None) -> Expr:
    return Concat((RoleBegin(role), *(() if expr is None else _parts(expr)), RoleEnd(role)))


def _choose(
    name: str | None,
    choices: Sequence[str],
    method: ChoicesSamplingMethod | ConstrainedDecoding,
    sampling: SamplingArguments,
) -> Expr:
    if isinstance(choices, str) or not choices or not all(isinstance(choice, str) and choice for choice in choices):
        raise InvalidParameterError(f"choices is {choices!r}; allowed: a list of at least one non-empty string")
    if len(set(choices)) < len(choices):
        raise InvalidParameterError(f"choices {list(choices)} holds the same text twice")
    if isinstance(method, ConstrainedDecoding):
        return Gen(name, sampling, ChoicesSpec(tuple(choices)))
    if sampling["temperature"]:
        raise InvalidParameterError(
            f"temperature is {sampling['temperature']} but choices are scored, not sampled; "
            "use choices_method=constrained_decoding to sample one of them"
        )
    unused = [key for key, value in sampling.items() if value is not None and key != "temperature"]
    if unused:
        raise InvalidParameterError(
            f"gen got choices and {', '.join(unused)}, which scoring does not use; "
            "leave it out or use choices_method=constrained_decoding"
        )
    return Select(name, tuple(choices), method)
