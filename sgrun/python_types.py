"""Owns Python types as constraints: their JSON schemas, the values that their texts stand for, and calls of functions.

Pydantic does the work. It is loaded when a type is first given, and needed for nothing else.
"""

from __future__ import annotations

import functools
import inspect
import json
import operator
import sys
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sgrun.errors import CheckFailedError, InvalidGrammarError, InvalidParameterError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_ALLOWED = "JSON text, a dict, a boolean, or a Python type or function that Pydantic reads"


def json_schema(source: object) -> dict[str, Any] | bool:
    """The JSON schema of a Python type, or of a function's parameters; a dict or a boolean is one already.

    Types: what Pydantic reads, such as its models, dataclasses, TypedDict, NamedTuple, Enum, Literal, unions, list[T],
    dict[str, T], tuple[...], Annotated[T, ...], int, str, date. Raises InvalidParameterError for anything else.
    """
    if isinstance(source, dict | bool):
        return source
    schema: dict[str, Any] = _with_pydantic(source, lambda: _adapter(source).json_schema())
    return schema


def schema_text(schema: dict[str, Any] | bool) -> str:
    """The schema as JSON text, its properties in their order. Raises InvalidGrammarError if it cannot be written so."""
    try:
        return json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidGrammarError(f"the JSON schema holds what JSON cannot express: {error}") from error
    except RecursionError as error:
        raise InvalidGrammarError("the JSON schema is nested too deeply to be read") from error


def value_reader(python_type: object) -> Callable[[str], object]:
    """Turns JSON text into a value of the type; a function's parameters become the dict of its arguments.

    The reader raises ValueError for a text that is not all of a JSON text, and CheckFailedError for one that the type
    refuses. Raises InvalidParameterError like `json_schema`.
    """
    adapter = _with_pydantic(python_type, lambda: _adapter(python_type))

    def read(text: str) -> object:
        from pydantic import ValidationError

        try:
            return adapter.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "json_invalid":
                json.loads(text)  # raises for a text cut short; Pydantic refuses lone surrogates too
            place = ".".join(map(str, first["loc"])) or "the value"
            raise CheckFailedError(
                f"the text {text[:200]!r} is no {_name(python_type)}: at {place}: {first['msg']}"
            ) from error

    return read


def tool_call(*functions: Callable[..., object]) -> Any:
    """The type of a call of one of `functions`, for `json_schema=` and `dtype=`: a dict with the keys `name`, which is
    that of the function, and `arguments`, by name. Raises InvalidParameterError."""
    if not functions:
        raise InvalidParameterError("tool_call got no function; give at least one")
    return _with_pydantic(functions, lambda: functools.reduce(operator.or_, map(_call_type, functions)))


def _with_pydantic(source: object, work: Callable[[], Any]) -> Any:
    try:
        from pydantic.errors import PydanticUserError
    except ModuleNotFoundError as error:
        raise InvalidParameterError(
            f"the type or schema is {source!r}; allowed: {_ALLOWED}, which is not installed: pip install 'sgrun[types]'"
        ) from error
    try:
        return work()
    except (PydanticUserError, NameError, TypeError, ImportError, AttributeError, RecursionError) as error:
        # Names of annotations, an extra of Pydantic that a type needs, instances of dataclasses, and a TypedDict that
        # holds itself end so.
        reason = str(error).partition("\n")[0]
        raise InvalidParameterError(f"the type or schema is {source!r}; allowed: {_ALLOWED}: {reason}") from error


def _adapter(source: object) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    # Pydantic takes a function too, and calls it when it reads a text.
    is_function = inspect.isroutine(source) or isinstance(source, functools.partial)
    form: Any = _arguments_type(source) if is_function else _readable(source)
    return TypeAdapter(form)


def _call_type(function: Callable[..., object]) -> Any:
    name = function.__name__
    return _record(f"call of {name}", {"name": typing.Literal[name], "arguments": _arguments_type(function)})


def _arguments_type(function: Any) -> Any:
    """A dict of arguments, so that parameters may have any name; one with a default may be left out."""
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"the parameter {parameter} of {function.__name__} cannot be given by name")
        hint = _readable(hints.get(name, Any))
        fields[name] = hint if parameter.default is parameter.empty else typing.NotRequired[hint]
    return _record(function.__name__, fields, inspect.getdoc(function))


def _record(name: str, fields: dict[str, Any], doc: str | None = None) -> Any:
    record = _typed_dict(name, fields, doc)
    record.__pydantic_config__ = {"extra": "forbid"}
    return record


def _readable(form: Any) -> Any:
    """The type with each TypedDict of `typing` as one of `typing_extensions`: Pydantic takes no other before 3.12."""
    if typing.is_typeddict(form) and sys.version_info < (3, 12):
        hints = typing.get_type_hints(form, include_extras=True)
        fields = {name: _field(hint, name in form.__required_keys__) for name, hint in hints.items()}
        return _typed_dict(form.__name__, fields, form.__doc__)
    arguments = typing.get_args(form)
    readable = tuple(map(_readable, arguments))
    if readable == arguments:
        return form
    origin: Any = typing.get_origin(form)
    return functools.reduce(operator.or_, readable) if origin is types.UnionType else origin[readable]


def _field(hint: Any, is_required: bool) -> Any:
    if typing.get_origin(hint) in (typing.Required, typing.NotRequired):
        is_required = typing.get_origin(hint) is typing.Required
        (hint,) = typing.get_args(hint)
    return _readable(hint) if is_required else typing.NotRequired[_readable(hint)]


def _typed_dict(name: str, fields: dict[str, Any], doc: str | None) -> Any:
    import typing_extensions

    make: Any = typing_extensions.TypedDict
    record = make(name, fields)
    record.__doc__ = doc
    return record


def _name(python_type: object) -> str:
    return getattr(python_type, "__name__", None) or repr(python_type)
