"""Owns chat templates: what text a model's own Jinja template puts before and after the content of a role.

A program opens a role, adds content that is partly unknown yet, and closes it. So the template is rendered with a
placeholder for every content, and the text between the placeholders is cut out. The concatenation of openings,
contents and closings then is the template's own rendering of the conversation, with one exception: an assistant turn
stands in the sequence as it was opened and generated, where a template may rewrite earlier ones (drop their thinking).
Contents are taken as written, where a template may trim them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from sgrun.errors import ChatTemplateError
from sgrun.types import ChatFormat

if TYPE_CHECKING:
    from jinja2 import Template

Roles = tuple[str, ...]


class ChatRenderer:
    """Openings and closings of roles under one chat template. `arguments` go to the template by name."""

    def __init__(self, chat_format: ChatFormat, arguments: Mapping[str, object]) -> None:
        self._template = _compile(chat_format.template)
        self._arguments = {
            "bos_token": chat_format.bos_token,
            "eos_token": chat_format.eos_token,
            "tools": None,
            "documents": None,
            **arguments,
        }
        self._known_gaps: dict[Roles, tuple[str, ...]] = {}
        self._known_openings: dict[Roles, str] = {}

    def opening(self, roles: Roles) -> str:
        """The text that opens the last of `roles` after the others have been closed. Raises ChatTemplateError."""
        if roles not in self._known_openings:
            self._known_openings[roles] = self._opening(roles)
        return self._known_openings[roles]

    def closing(self, roles: Roles) -> str:
        """The text that closes the last of `roles`. Raises ChatTemplateError."""
        gaps = self._gaps(roles)
        return gaps[-1] if len(gaps) == len(roles) + 1 else ""

    def _opening(self, roles: Roles) -> str:
        earlier, gaps = roles[:-1], self._gaps(roles)
        if not earlier:
            return gaps[0]
        closed = self.closing(earlier)
        gap = gaps[len(earlier)]
        same_before = all(
            role == "assistant" or before == now
            for role, before, now in zip(earlier, self._gaps(earlier), gaps, strict=False)
        )
        if not same_before or not gap.startswith(closed):
            raise ChatTemplateError(
                f"the chat template renders the roles {list(earlier)} differently once {roles[-1]!r} follows; "
                "a program only appends, so such a template cannot be used with roles: write its markers as text"
            )
        if roles[-1] == "assistant":
            return self._generation_prompt(earlier) or gap[len(closed) :]
        return gap[len(closed) :]

    def _generation_prompt(self, roles: Roles) -> str:
        """What the template adds when the assistant is to answer `roles`; empty if it adds nothing."""
        messages = _messages(roles)
        without = self._render(messages, add_generation_prompt=False)
        prompted = self._render(messages, add_generation_prompt=True)
        if not prompted.startswith(without):
            raise ChatTemplateError("the chat template changes earlier text when it adds the generation prompt")
        return prompted[len(without) :]

    def _gaps(self, roles: Roles) -> tuple[str, ...]:
        """The texts before, between and after the contents of `roles`; the last is left out where it is unknown."""
        if roles not in self._known_gaps:
            self._known_gaps[roles] = self._find_gaps(roles)
        return self._known_gaps[roles]

    def _find_gaps(self, roles: Roles) -> tuple[str, ...]:
        if roles[-1] != "system":
            return self._cut(roles)
        try:
            return self._cut(roles)
        except ChatTemplateError:  # many templates show a system message only as part of the user's that follows
            return self._cut((*roles, "user"))[: len(roles)]

    def _cut(self, roles: Roles) -> tuple[str, ...]:
        rest = self._render(_messages(roles), add_generation_prompt=False)
        gaps = []
        for index, role in enumerate(roles):
            gap, found, rest = rest.partition(_placeholder(index))
            if not found or _PLACEHOLDER in gap:
                raise ChatTemplateError(
                    f"the chat template leaves out or moves the {role!r} message in the conversation {list(roles)}; "
                    "allowed: conversations whose messages it renders once each and in order"
                )
            gaps.append(gap)
        if _PLACEHOLDER in rest:
            raise ChatTemplateError(f"the chat template renders a message of the conversation {list(roles)} twice")
        return (*gaps, rest)

    def _render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            return self._template.render(
                messages=messages, add_generation_prompt=add_generation_prompt, **self._arguments
            )
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ChatTemplateError(
                f"the chat template failed on the roles {[message['role'] for message in messages]}: {error}"
            ) from error


_PLACEHOLDER = "sgrunCONTENT"


def _placeholder(index: int) -> str:
    return f"{_PLACEHOLDER}{index}END"


def _messages(roles: Roles) -> list[dict[str, str]]:
    return [{"role": role, "content": _placeholder(index)} for index, role in enumerate(roles)]


def _compile(source: str) -> Template:
    """The template in the sandbox and with the helpers that the Hub's templates are written for."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationBlock(Extension):
        """`{% generation %}` marks the assistant's text for training; here it is transparent."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance's attribute

        def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationBlock]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise ChatTemplateError(f"the chat template is not valid Jinja: {error}") from error
