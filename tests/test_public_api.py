"""The public names and their arguments, so that none changes by accident."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import sgrun as sg
from sgrun.lang.program import RUN_ARGUMENTS

SAMPLING = (
    "max_tokens min_tokens n stop stop_token_ids temperature top_p top_k min_p frequency_penalty presence_penalty "
    "repetition_penalty logit_bias seed ignore_eos return_logprob logprob_start_len top_logprobs_num "
    "return_text_in_logprobs"
)

FUNCTIONS = {
    "assistant": "expr",
    "assistant_begin": "",
    "assistant_end": "",
    "function": "func",
    "gen": f"name {SAMPLING} dtype choices choices_method regex json_schema lark gbnf grammar strict",
    "gen_int": "name sampling",
    "gen_string": "name sampling",
    "json_schema_spec": "source strict",
    "select": "name choices temperature choices_method",
    "set_default_backend": "backend",
    "system": "expr",
    "system_begin": "",
    "system_end": "",
    "tool_call": "functions",
    "user": "expr",
    "user_begin": "",
    "user_end": "",
}
OBJECTS = {
    "ChoicesDecision": "decision meta_info",
    "ChoicesSamplingMethod": "requires_unconditional_logprobs",
    "Program": "arun arun_batch bind run run_batch with_options",
    "ProgramState": (
        "acaptures aget aget_meta_info amessages assistant async_sync atext cancel captures copy error fork "
        "get_meta_info get_var messages ret_value set_var sync system text text_async_iter text_iter trace user "
        "var_scope"
    ),
    "ProgramStateGroup": "ajoin join",
    "constrained_decoding": "",
    "greedy_token_selection": "requires_unconditional_logprobs",
    "joint_likelihood": "requires_unconditional_logprobs",
    "token_length_normalized": "requires_unconditional_logprobs",
    "unconditional_likelihood_normalized": "requires_unconditional_logprobs",
}
METHODS = {
    "run": "self args kwargs",
    "arun": "self args kwargs",
    "run_batch": "self batch num_threads progress_bar generator_style on_error options",
    "arun_batch": "self batch progress_bar on_error options",
    "bind": "self arguments",
    "with_options": "self options",
}


def test_all_names_are_known_and_sorted() -> None:
    assert sorted(sg.__all__) == list(sg.__all__)
    assert set(sg.__all__) == {*FUNCTIONS, *OBJECTS, "Engine"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_has_these_arguments(name: str) -> None:
    assert " ".join(inspect.signature(getattr(sg, name)).parameters) == FUNCTIONS[name]


@pytest.mark.parametrize("name", OBJECTS)
def test_object_has_these_members(name: str) -> None:
    members = [member for member in dir(getattr(sg, name)) if not member.startswith("_")]
    assert " ".join(members) == OBJECTS[name]


@pytest.mark.parametrize("name", METHODS)
def test_program_method_has_these_arguments(name: str) -> None:
    assert " ".join(inspect.signature(getattr(sg.Program, name)).parameters) == METHODS[name]


def test_run_arguments() -> None:
    own = {"max_new_tokens", "backend", "stream", "cache_salt", "priority", "chat_template_kwargs"}
    assert {*SAMPLING.split()} - {"max_tokens"} | own == RUN_ARGUMENTS


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        sg.nothing  # noqa: B018


def test_engine_is_loaded_when_asked_for() -> None:
    code = "import sys, sgrun; assert 'torch' not in sys.modules; print(sgrun.Engine.__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Engine", "True"]
