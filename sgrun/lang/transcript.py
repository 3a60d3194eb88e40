"""Owns the text of one branch: constant and generated parts in order, messages, and what has not been sent yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from sgrun.errors import ProgramError
from sgrun.lang.chat import ChatRenderer
from sgrun.lang.op import Line, Op
from sgrun.types import Segment

Part = str | Op


@dataclass(slots=True)
class Message:
    role: str
    content: list[Part] = field(default_factory=list)


class Transcript:
    """Constant text waits in `pending`, so that adjacent pieces are tokenised together, once."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.messages: list[Message] = []
        self.open_role: str | None = None
        self._pending: list[Segment] = []
        self._pending_line: Line | None = None
        self._blank_opening = ""  # white space that stands before an assistant's literal text, not before generated

    def copy(self) -> Transcript:
        """The same text for a fork. Nothing may be pending."""
        assert not self._pending
        other = Transcript()
        other.parts = list(self.parts)
        other.messages = [Message(message.role, list(message.content)) for message in self.messages]
        other.open_role = self.open_role
        other._blank_opening = self._blank_opening
        return other

    def add_text(self, text: str, line: Line) -> None:
        """Constant text. Outside roles it is a raw prompt, in which special tokens may be written as text."""
        if text:
            self._add_marker(self._blank_opening, line)
            self._blank_opening = ""
            self._add_pending(Segment(text, special=self.open_role is None), line)
            self._add_part(text)

    def add_op(self, op: Op) -> None:
        self._blank_opening = ""
        self._add_part(op)

    def take_pending(self) -> tuple[list[Segment], Line] | None:
        """What is to be sent before the next operation, and where it began."""
        if self._pending_line is None:
            return None
        taken = self._pending, self._pending_line
        self._pending, self._pending_line = [], None
        return taken

    def begin_role(self, role: str, chat: ChatRenderer, line: Line) -> None:
        if self.open_role is not None:
            raise ProgramError(f"role {role!r} was opened inside role {self.open_role!r}; close that one first")
        opening = chat.opening((*self._roles(), role))
        if role == "assistant" and opening.isspace():
            self._blank_opening = opening
        else:
            self._add_marker(opening, line)
        self.messages.append(Message(role))
        self.open_role = role

    def end_role(self, role: str, chat: ChatRenderer, line: Line) -> None:
        if self.open_role != role:
            raise ProgramError(f"role {role!r} was closed, but the open role is {self.open_role!r}")
        self.open_role = None
        self._blank_opening = ""
        self._add_marker(chat.closing(self._roles()), line)

    def _roles(self) -> tuple[str, ...]:
        return tuple(message.role for message in self.messages)

    def _add_marker(self, text: str, line: Line) -> None:
        """Text of the chat template: a part of the text, but of no message."""
        if text:
            self._add_pending(Segment(text, special=True, template=True), line)
            self.parts.append(text)

    def _add_part(self, part: Part) -> None:
        if self.open_role is not None:
            self.messages[-1].content.append(part)
        self.parts.append(part)

    def _add_pending(self, segment: Segment, line: Line) -> None:
        self._pending_line = self._pending_line or line
        last = self._pending[-1] if self._pending else None
        if last is not None and (last.special, last.template) == (segment.special, segment.template):
            self._pending[-1] = Segment(last.text + segment.text, segment.special, segment.template)
        else:
            self._pending.append(segment)


def text_of(parts: list[Part]) -> str:
    """The text of `parts`, waiting for what is still generated. Raises the first error among them."""
    return "".join(part if isinstance(part, str) else part.text() for part in parts)
