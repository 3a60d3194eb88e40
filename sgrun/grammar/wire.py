"""Specs, automata and errors as bytes, for the socket between the compiler and its worker processes: JSON and raw
arrays, never objects that run code when they are read."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import numpy as np

import sgrun.errors
from sgrun.errors import EngineError, SgrunError
from sgrun.grammar.automaton import Automaton, Unchecked
from sgrun.grammar.limits import CompileLimits
from sgrun.types import (
    ChoicesSpec,
    DfaSpec,
    GbnfSpec,
    GrammarSpec,
    JsonSchemaSpec,
    LarkSpec,
    Part,
    RegexSpec,
    SequenceSpec,
    Trigger,
    TriggeredSpec,
)

READY = b"+"  # a worker's first byte

_SPECS: dict[str, Callable[..., Any]] = {
    spec.__name__: spec
    for spec in (
        RegexSpec,
        JsonSchemaSpec,
        LarkSpec,
        GbnfSpec,
        ChoicesSpec,
        DfaSpec,
        SequenceSpec,
        Part,
        TriggeredSpec,
        Trigger,
    )
}
_ARRAYS = {"byte_classes": np.uint8, "table": np.int32, "sites": np.int32, "counts": np.int32}
_LENGTHS = struct.Struct("<IQ")  # of the JSON, of the arrays after it


def encode_request(spec: GrammarSpec, limits: CompileLimits) -> bytes:
    return _frame({"spec": _spec_values(spec), "limits": asdict(limits)})


def decode_request(header: Any) -> tuple[GrammarSpec, CompileLimits]:
    return _spec(header["spec"]), CompileLimits(**header["limits"])


def _spec_values(value: Any) -> Any:
    """A spec, or a value within one, as JSON has it: an object of a class is its name and its fields."""
    if isinstance(value, tuple):
        return [_spec_values(item) for item in value]
    if is_dataclass(value):
        return {"kind": type(value).__name__} | {f.name: _spec_values(getattr(value, f.name)) for f in fields(value)}
    return value


def _spec(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_spec(item) for item in value)
    if isinstance(value, dict):
        return _SPECS[value.pop("kind")](**{name: _spec(field) for name, field in value.items()})
    return value


def encode_automaton(automaton: Automaton) -> bytes:
    others = {field.name for field in fields(automaton)} - {*_ARRAYS, "start", "checked_afterwards"}
    assert not others, f"{others} would be lost"
    arrays = [getattr(automaton, name) for name in _ARRAYS]
    header = {
        "shapes": [array.shape for array in arrays],
        "start": automaton.start,
        "checked_afterwards": [[unchecked.keyword, unchecked.pointer] for unchecked in automaton.checked_afterwards],
    }
    return _frame(header, b"".join(array.tobytes() for array in arrays))


def encode_error(error: SgrunError) -> bytes:
    return _frame({"error": type(error).__name__, "message": str(error)})


def decode_reply(header: Any, payload: bytearray) -> Automaton:
    """The automaton; raises the error that was sent in its place."""
    if "error" in header:
        error = getattr(sgrun.errors, header["error"], EngineError)
        raise error(header["message"])
    arrays = {}
    offset = 0
    for (name, dtype), shape in zip(_ARRAYS.items(), header["shapes"], strict=True):
        size = int(np.prod(shape))
        arrays[name] = np.frombuffer(payload, dtype, size, offset).reshape(shape)
        offset += arrays[name].nbytes
    unchecked = tuple(Unchecked(keyword, pointer) for keyword, pointer in header["checked_afterwards"])
    return Automaton(**arrays, start=header["start"], checked_afterwards=unchecked)


def receive(connection: socket.socket) -> tuple[Any, bytearray] | None:
    """The next frame: its JSON and its arrays. None if the other side has closed the connection."""
    lengths = receive_bytes(connection, _LENGTHS.size)
    if lengths is None:
        return None
    header_len, payload_len = _LENGTHS.unpack(lengths)
    header, payload = receive_bytes(connection, header_len), receive_bytes(connection, payload_len)
    if header is None or payload is None:
        return None
    return json.loads(header), payload


def receive_bytes(connection: socket.socket, num_bytes: int) -> bytearray | None:
    data = bytearray(num_bytes)
    rest = memoryview(data)
    while rest:
        try:
            received = connection.recv_into(rest)
        except ConnectionResetError:  # closed, with something of ours unread
            return None
        if not received:
            return None
        rest = rest[received:]
    return data


def _frame(header: object, payload: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return _LENGTHS.pack(len(text), len(payload)) + text + payload
