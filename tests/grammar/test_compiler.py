from __future__ import annotations

import gc
import json
import time
from contextlib import suppress

import pytest

from sgrun.errors import GrammarError, GrammarTooLargeError
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.limits import CompileLimits
from sgrun.types import ChoicesSpec, GrammarSpec, JsonSchemaSpec, RegexSpec


def _nested(depth: int) -> str:
    return '{"type":"array","items":' * depth + '{"type":"null"}' + "}" * depth


_DOUBLING = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(60)} | {"a60": {"type": "null"}}

_HARD = '{"type":"string","pattern":"(.*a.{13})?","maxLength":99}'
_LONG = {"type": "string", "pattern": "a" * 100_000}
_NAMES = [f"n{i}" for i in range(12_000)]

HOSTILE: list[GrammarSpec] = [
    RegexSpec("(.*a.{18}|b)"),
    RegexSpec("((a{0,50}){0,50}){0,50}"),
    RegexSpec(r"\w{0,2000}"),
    RegexSpec("(" * 30_000 + "a" + ")" * 30_000),
    RegexSpec("(" * 30_000),
    RegexSpec("(?:){0,1000000000}"),
    RegexSpec("a{0,99999999999}"),
    RegexSpec("(a?){0,3000}"),
    RegexSpec("(.{0,300}x){0,20}"),
    RegexSpec("(?:a|b|ab){0,400}c"),
    RegexSpec(r"(\w|\d|\s|[a-z]|.){0,3000}"),
    RegexSpec(r"[\w.]{0,1000}@\w{0,1000}"),
    RegexSpec("|".join(f"{i * 7919 % 100_003:x}" for i in range(20_000))),
    RegexSpec("a" * 2_000_000),
    RegexSpec("a|" * 200_000),
    RegexSpec("".join(rf"[\w{chr(0x4E00 + i)}]" for i in range(20_000))),
    RegexSpec("".join(f"[{chr(0x100 + i)}-{chr(0x5000 + i)}]" for i in range(5_000))),
    RegexSpec("(?i)" + "".join(chr(0x4E00 + i) for i in range(20_000))),
    RegexSpec("(?i)" + "a-z" * 20_000),
    RegexSpec("[" + "".join(chr(c) for c in range(0x4E00, 0x9E00, 2)) + "]{0,20000}"),
    ChoicesSpec(tuple(chr(0x4E00 + i) + chr(0x9000 - i) for i in range(10_000))),
    ChoicesSpec(tuple(f"choice number {i}" for i in range(20_000))),
    JsonSchemaSpec(_nested(300)),
    JsonSchemaSpec(_nested(30_000)),
    JsonSchemaSpec('{"type":"string","maxLength":100000}'),
    JsonSchemaSpec('{"type":"array","items":{"type":"integer"},"maxItems":1000000000}'),
    JsonSchemaSpec('{"type":"string","pattern":"(a|b)*a(a|b){16}"}'),
    JsonSchemaSpec('{"type":"string","pattern":"a.{30}b.{30}c","maxLength":300}'),
    JsonSchemaSpec(json.dumps({"$defs": _DOUBLING, "$ref": "#/$defs/a0"})),
    JsonSchemaSpec(json.dumps({"enum": ["[" * 500]}).replace('"', "").replace("enum", '"enum"') + "]" * 500),
    JsonSchemaSpec(json.dumps({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(400)}})),
    JsonSchemaSpec('{"const":' + "9" * 10_000 + "}"),
    JsonSchemaSpec(json.dumps({"$defs": _DOUBLING | {"a60": None}, "$ref": "#/$defs/a48"}).replace("null", _HARD)),
    JsonSchemaSpec(json.dumps({"$defs": {"p": _LONG}, "anyOf": [{"$ref": "#/$defs/p"}] * 1_000})),
    JsonSchemaSpec(json.dumps({"$defs": {"p": {"enum": [0] * 50_000}}, "anyOf": [{"$ref": "#/$defs/p"}] * 1_000})),
    JsonSchemaSpec(json.dumps({"type": "object", "properties": dict.fromkeys(_NAMES, False), "required": _NAMES})),
]


@pytest.mark.parametrize("spec", HOSTILE, ids=lambda spec: repr(spec)[:60])
def test_hostile_input_ends_soon_in_a_result_or_a_typed_error(spec: GrammarSpec) -> None:
    start = time.process_time()
    try:
        compile_grammar(spec)
    except GrammarError as error:
        assert len(str(error)) < 600
    assert time.process_time() - start < 4  # twice the target: the machine that runs this is shared


@pytest.mark.parametrize(
    "limit", ["max_source_len", "max_nesting", "max_nfa_states", "max_states", "max_set_elements", "max_work_bytes"]
)
def test_each_limit_is_named_when_it_is_met(limit: str) -> None:
    spec = RegexSpec("(?:(?:é|ab){3}|[^x])y?")
    compile_grammar(spec)
    with pytest.raises(GrammarTooLargeError, match=f"{limit} is 1 "):
        compile_grammar(spec, CompileLimits(**{limit: 1}))


def test_table_bytes_are_bounded() -> None:
    spec = RegexSpec("[ab]{100}")
    size = compile_grammar(spec).table.nbytes
    compile_grammar(spec, CompileLimits(max_table_bytes=size))
    with pytest.raises(GrammarTooLargeError, match="max_table_bytes"):
        compile_grammar(spec, CompileLimits(max_table_bytes=size - 1))


@pytest.mark.parametrize("spec", [RegexSpec("a"), RegexSpec("(")], ids=["compiled", "refused"])
def test_garbage_is_collected_as_before_after_a_compile(spec: GrammarSpec) -> None:
    assert gc.isenabled()
    with suppress(GrammarError):
        compile_grammar(spec)
    assert gc.isenabled()
    gc.disable()
    with suppress(GrammarError):
        compile_grammar(spec)
    assert not gc.isenabled()
    gc.enable()
