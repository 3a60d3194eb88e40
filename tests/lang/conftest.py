"""The scripted backend that tests of the language share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sgrun as sg
from sgrun.lang.scripted import ScriptedBackend
from sgrun.types import ChatFormat

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def chat_format() -> ChatFormat:
    return ChatFormat(CHATML)


@pytest.fixture
def backend(chat_format: ChatFormat) -> Iterator[ScriptedBackend]:
    """Answers every generation with the number of generations so far: " 1", " 2", ..."""
    count = iter(range(1, 10**6))
    with ScriptedBackend(lambda prompt, params: f" {next(count)}", chat_format=chat_format) as scripted:
        sg.set_default_backend(scripted)
        yield scripted
        sg.set_default_backend(None)
