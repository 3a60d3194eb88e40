"""Specs are checked when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from sgrun.errors import InvalidParameterError
from sgrun.types import (
    ChoicesSpec,
    DfaSpec,
    GbnfSpec,
    JsonSchemaSpec,
    LarkSpec,
    Part,
    RegexSpec,
    SequenceSpec,
    Trigger,
    TriggeredSpec,
)

A = RegexSpec("a")
BYTES = (0,) * 97 + (1,) + (0,) * 158  # class 1 is the letter a


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (RegexSpec, (3,), "pattern is 3; allowed: a string"),
        (JsonSchemaSpec, ({},), "schema is {}; allowed: a string"),
        (LarkSpec, (b"",), "grammar is b''; allowed: a string"),
        (LarkSpec, ("", None), "start is None; allowed: a string"),
        (GbnfSpec, (None,), "grammar is None; allowed: a string"),
        (ChoicesSpec, ("ab",), "choices is 'ab'; allowed: a tuple of strings"),
        (ChoicesSpec, (("a", 1),), "choices holds 1; allowed: strings"),
        (SequenceSpec, (["a"],), "parts is .*; allowed: a tuple of strings and Parts"),
        (SequenceSpec, (("a", A),), "parts holds RegexSpec.*; allowed: strings and Parts"),
        (Part, (3, A), "name is 3; allowed: a string"),
        (Part, ("a", "b"), "spec is 'b'; allowed: a value of RegexSpec, JsonSchemaSpec, .*, TriggeredSpec"),
        (Trigger, (b"a", A), "begin is b'a'; allowed: a string"),
        (Trigger, ("a", RegexSpec), "spec is .*; allowed: a value of"),
        (Trigger, ("a", A, None), "end is None; allowed: a string"),
        (TriggeredSpec, (A,), "triggers is .*; allowed: a tuple of Triggers"),
        (TriggeredSpec, ((A,),), "triggers holds .*; allowed: Triggers"),
        (DfaSpec, (BYTES[1:], ((0, 0), (0, 1)), (1,)), "have 255 bytes, 2 classes and 2 states; allowed: 256 bytes"),
        (
            DfaSpec,
            ((*BYTES[1:], 256), ((0,) * 257,) * 2, ()),
            "257 classes .*; allowed: .* from 0 to 255",
        ),
        (DfaSpec, (BYTES, ((0, 0),), ()), "1 states; allowed"),
        (DfaSpec, (BYTES, ((0, 0), (1,)), (1,)), "allowed: .* an entry for each class in each row"),
        (DfaSpec, (BYTES, ((0, 0), (2, 1)), (1,)), "a state is outside of 0 to 1"),
        (DfaSpec, (BYTES, ((0, 1), (0, 1)), (1,)), "the dead state 0 is left"),
        (DfaSpec, (BYTES, ((0, 0), (0, 1)), (0,)), "the dead state 0 is left"),
    ],
)
def test_wrong_fields_are_refused(kind: Any, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        kind(*arguments)


def test_right_fields_are_taken() -> None:
    assert DfaSpec(BYTES, ((0, 0), (0, 1)), (1,)) == DfaSpec(BYTES, ((0, 0), (0, 1)), (1,))
    assert TriggeredSpec((Trigger("a", SequenceSpec(("b", Part("x", A)))),)).triggers[0].end == ""
