"""sgrun: programs that interleave Python with a language model, on an engine made for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sgrun.lang.choices import (
    ChoicesDecision,
    ChoicesSamplingMethod,
    constrained_decoding,
    greedy_token_selection,
    joint_likelihood,
    token_length_normalized,
    unconditional_likelihood_normalized,
)
from sgrun.lang.default import set_default_backend
from sgrun.lang.expr import (
    assistant,
    assistant_begin,
    assistant_end,
    gen,
    gen_int,
    gen_string,
    select,
    system,
    system_begin,
    system_end,
    user,
    user_begin,
    user_end,
)
from sgrun.lang.group import ProgramStateGroup
from sgrun.lang.program import Program, function
from sgrun.lang.schema import json_schema_spec
from sgrun.lang.state import ProgramState
from sgrun.python_types import tool_call

if TYPE_CHECKING:
    from sgrun.engine.client import Engine

__all__ = [
    "ChoicesDecision",
    "ChoicesSamplingMethod",
    "Engine",
    "Program",
    "ProgramState",
    "ProgramStateGroup",
    "assistant",
    "assistant_begin",
    "assistant_end",
    "constrained_decoding",
    "function",
    "gen",
    "gen_int",
    "gen_string",
    "greedy_token_selection",
    "joint_likelihood",
    "json_schema_spec",
    "select",
    "set_default_backend",
    "system",
    "system_begin",
    "system_end",
    "token_length_normalized",
    "tool_call",
    "unconditional_likelihood_normalized",
    "user",
    "user_begin",
    "user_end",
]


def __getattr__(name: str) -> Any:
    """Loads the engine, and with it torch, only when it is asked for."""
    if name == "Engine":
        from sgrun.engine.client import Engine

        return Engine
    raise AttributeError(f"module 'sgrun' has no attribute {name!r}")
