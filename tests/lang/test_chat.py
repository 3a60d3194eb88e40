"""Chat markers against the template's own rendering of the whole conversation."""

from __future__ import annotations

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sgrun.errors import ChatTemplateError
from sgrun.lang.chat import ChatRenderer
from sgrun.types import ChatFormat

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADERS = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set lead = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set lead = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + (lead if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
THINKING = (
    "{%- set ns = namespace(last_user=-1) %}"
    "{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last_user = loop.index0 %}{% endif %}{%- endfor %}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' and loop.index0 > ns.last_user %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{{- m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n' + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
PHI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
TRAINING = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '</s>' }}{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}"
    "{% if loop.index > 90 %}{% break %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
EXACT = {
    "chatml": CHATML,
    "default system": DEFAULT_SYSTEM,
    "headers": HEADERS,
    "brackets": BRACKETS,
    "no system": NO_SYSTEM,
    "zephyr": ZEPHYR,
    "phi": PHI,
    "training": TRAINING,
}
TURNS = [
    [("system", "You know it."), ("user", "Who?"), ("assistant", "Me."), ("user", "And?"), ("assistant", "You.")],
    [("user", "Who?"), ("assistant", "Me."), ("user", "Why?")],
    [("system", "Be kind."), ("user", "Hi")],
]


def reference(template: str, turns: list[tuple[str, str]], *, prompt: bool = False) -> str:
    """The whole conversation rendered at once, without anything of sgrun.lang.chat."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_template_error
    source = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    messages = [{"role": role, "content": content} for role, content in turns]
    return environment.from_string(source).render(
        messages=messages, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"
    )


def raise_template_error(message: str) -> None:
    raise jinja2.TemplateError(message)


def renderer(template: str, **arguments: object) -> ChatRenderer:
    return ChatRenderer(ChatFormat(template, "<s>", "</s>"), arguments)


def piecewise(chat: ChatRenderer, turns: list[tuple[str, str]]) -> str:
    roles: tuple[str, ...] = ()
    text = ""
    for role, content in turns:
        roles = (*roles, role)
        text += chat.opening(roles) + content + chat.closing(roles)
    return text


@pytest.mark.parametrize("turns", TURNS, ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_literal_conversation_equals_the_full_rendering(name: str, turns: list[tuple[str, str]]) -> None:
    if name == "no system":
        turns = [turn for turn in turns if turn[0] != "system"]
    assert piecewise(renderer(EXACT[name]), turns) == reference(EXACT[name], turns)


@pytest.mark.parametrize("template", [*EXACT.values(), THINKING])
def test_text_up_to_an_answer_equals_the_rendering_with_generation_prompt(template: str) -> None:
    turns = [("user", "Who?"), ("assistant", "Me."), ("user", "And?")]
    chat = renderer(template)
    opened = piecewise(chat, turns) + chat.opening(("user", "assistant", "user", "assistant"))
    expected = reference(template, turns, prompt=True)
    assert opened == expected or (template is BRACKETS and opened == expected + " ")


def test_default_system_prompt_stands_in_the_first_marker() -> None:
    assert renderer(DEFAULT_SYSTEM).opening(("user",)).startswith("<|im_start|>system\nBe brief.")


def test_template_arguments_reach_the_template() -> None:
    roles = ("user", "assistant")
    assert renderer(THINKING).opening(roles) == "<|im_start|>assistant\n"
    assert renderer(THINKING, enable_thinking=False).opening(roles).endswith("<think>\n\n</think>\n\n")


def test_system_message_shown_only_within_the_user_message() -> None:
    chat = renderer(BRACKETS)
    assert chat.opening(("system",)) == "<s>[INST] "
    assert chat.closing(("system",)) == ""
    assert chat.opening(("system", "user")) == "\n\n"


def test_what_the_template_raises_is_a_chat_template_error() -> None:
    with pytest.raises(ChatTemplateError, match="System role not supported"):
        renderer(NO_SYSTEM).opening(("system",))


def test_template_that_moves_a_message_is_refused() -> None:
    last_user_gets_system = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' }}"
        "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{{ m.content + '[/]' }}"
        "{% elif m.role == 'assistant' %}{{ m.content + '</s>' }}{% endif %}{% endfor %}"
    )
    chat = renderer(last_user_gets_system)
    assert chat.opening(("system", "user")) == ""
    with pytest.raises(ChatTemplateError, match="leaves out or moves"):
        chat.opening(("system", "user", "assistant", "user"))


def test_template_that_rewrites_what_was_sent_is_refused() -> None:
    counts = "{{ messages | length }}{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}"
    chat = renderer(counts)
    assert chat.opening(("user",)) == "1<user>"
    with pytest.raises(ChatTemplateError, match="only appends"):
        chat.opening(("user", "user"))


def test_closing_that_changes_with_what_follows_is_refused() -> None:
    last_only = "{% for m in messages %}{{ m.role + m.content }}{% if loop.last %}{{ '</s>' }}{% endif %}{% endfor %}"
    with pytest.raises(ChatTemplateError, match="only appends"):
        renderer(last_only).opening(("user", "user"))


def test_message_rendered_twice_is_refused() -> None:
    with pytest.raises(ChatTemplateError, match="twice"):
        renderer("{% for m in messages %}{{ m.content }}{% endfor %}{{ messages[0].content }}").closing(("user",))


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[7].role.name }}",
        "{{ 1 / 0 }}",
        "{{ messages[0]['content'] + 1 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
    ],
)
def test_failing_or_forbidden_template_is_a_chat_template_error(template: str) -> None:
    with pytest.raises(ChatTemplateError):
        renderer(template).opening(("user",))


def test_malformed_template_is_refused_when_it_is_loaded() -> None:
    with pytest.raises(ChatTemplateError, match="not valid Jinja"):
        renderer("{% for %}")


def test_hub_helpers_are_there() -> None:
    template = "{{ {'a': '<é>'} | tojson }} {{ strftime_now('%Y') }} {% for m in messages %}{{ m.content }}{% endfor %}"
    assert renderer(template).opening(("user",)).startswith('{"a": "<é>"} 20')


def test_ten_messages_keep_their_places() -> None:
    turns = [("user" if number % 2 == 0 else "assistant", f"m{number}") for number in range(13)]
    assert piecewise(renderer(CHATML), turns) == reference(CHATML, turns)
