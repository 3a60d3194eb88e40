"""The header of a GGUF file: metadata and tensor table, read with every length checked against the file.

The file is untrusted: time and memory stay small whatever its bytes say, and a header that is accepted describes
tensors that lie inside the file. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3,
little-endian).
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeAlias

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from sgrun.errors import ModelNotFoundError, WeightsError

MAX_HEADER_BYTES = 32 << 20
MAX_ITEMS = 1 << 20  # strings, nested arrays and metadata keys, all together
MAX_TENSORS = 1 << 16
MAX_ARRAY_DEPTH = 4
MAX_DIMS = 4

GgufValue: TypeAlias = "int | float | bool | str | array[int] | array[float] | list[GgufValue]"
"""A metadata value. An array of numbers is an `array.array` (of bools: type code "B"), any other array a list."""

_STRING, _ARRAY, _BOOL = 8, 9, 7
# value type -> type code, the same in `struct` (with "<") and `array`
_NUMBER_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "B", 10: "Q", 11: "q", 12: "d"}
_U64 = struct.Struct("<Q")
_MIN_ENTRY_BYTES = 14  # smallest metadata entry: key length, 1-byte key, value type, 1-byte value


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One row of the tensor table. `dims`: fastest-varying first, as in the file. `offset`: bytes from the start of
    the file; `size_bytes` bytes from there belong to the tensor."""

    name: str
    dims: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    metadata: dict[str, GgufValue]
    tensors: tuple[GgufTensor, ...]


def check_gguf_header(path: Path) -> None:
    """Raises WeightsError unless the header is well-formed and all tensors lie inside the file."""
    read_gguf_header(path)


def read_gguf_metadata(path: Path) -> dict[str, GgufValue]:
    """The metadata of the file, after the same checks as `check_gguf_header`."""
    return read_gguf_header(path).metadata


def read_gguf_header(path: Path) -> GgufHeader:
    """Metadata and tensor table. Raises ModelNotFoundError if the file cannot be opened, WeightsError if the header
    is damaged, truncated, or over a limit of this module."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ModelNotFoundError(f"cannot open {path}: {error.strerror}; give a readable GGUF file") from error
    with file:
        return _HeaderReader(file, path).read()


class _HeaderReader:
    """Reads forward through the header; `position` never passes `end`, the most that a header may take up."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.file_bytes = file.seek(0, 2)
        self.end = min(self.file_bytes, MAX_HEADER_BYTES)
        self.position = file.seek(0)
        self.num_items = 0

    def read(self) -> GgufHeader:
        if self.file_bytes < 4 or self.take(4) != b"GGUF":
            self.fail("it does not begin with the GGUF magic")
        version = self.number("I")
        if version not in (2, 3):
            self.fail(f"its version is {version}; allowed: 2 and 3, little-endian")
        num_tensors, num_entries = int(self.number("Q")), int(self.number("Q"))
        self.count_items(num_entries, _MIN_ENTRY_BYTES, "metadata entries")
        if num_tensors > MAX_TENSORS:
            self.fail(f"it claims {num_tensors} tensors; allowed: at most {MAX_TENSORS}")
        metadata: dict[str, GgufValue] = {}
        for _ in range(num_entries):
            key = self.string()
            if not key or key in metadata:
                self.fail(f"metadata key {key!r} is empty or comes twice")
            metadata[key] = self.value(int(self.number("I")), depth=0)
        return GgufHeader(metadata, self.tensors(num_tensors, self.alignment(metadata)))

    def alignment(self, metadata: dict[str, GgufValue]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
            self.fail(f"general.alignment is {_shown(alignment)}; allowed: a power of two up to 2^20")
        return alignment

    def tensors(self, num_tensors: int, alignment: int) -> tuple[GgufTensor, ...]:
        """The tensor table, which ends where the (aligned) tensor data begins."""
        table = [self.tensor(alignment) for _ in range(num_tensors)]
        data_start = -(-self.position // alignment) * alignment
        placed: dict[str, GgufTensor] = {}
        for tensor in table:
            if tensor.name in placed:
                self.fail(f"tensor name {_shown(tensor.name)} comes twice")
            offset = data_start + tensor.offset
            if offset + tensor.size_bytes > self.file_bytes:
                self.fail(
                    f"tensor {_shown(tensor.name)} ends at byte {offset + tensor.size_bytes}, past the end of the file"
                    f" ({self.file_bytes} bytes); it may be an incomplete download"
                )
            placed[tensor.name] = GgufTensor(tensor.name, tensor.dims, tensor.type, offset, tensor.size_bytes)
        return tuple(placed.values())

    def tensor(self, alignment: int) -> GgufTensor:
        """One row of the table, its offset still relative to the tensor data."""
        name = self.string()
        if not name:
            self.fail("a tensor has an empty name")
        num_dims = int(self.number("I"))
        if not 1 <= num_dims <= MAX_DIMS:
            self.fail(f"tensor {_shown(name)} has {num_dims} dimensions; allowed: 1 to {MAX_DIMS}")
        dims = struct.unpack(f"<{num_dims}Q", self.take(8 * num_dims))
        type_code = int(self.number("I"))
        try:
            block_len, block_bytes = GGML_QUANT_SIZES[type_ := GGMLQuantizationType(type_code)]
        except (KeyError, ValueError):
            self.fail(f"tensor {_shown(name)} has the unknown type {type_code}")
        num_elements = 1
        for dim in dims:
            num_elements *= dim
        if dims[0] % block_len or not 0 < num_elements // block_len * block_bytes <= self.file_bytes:
            self.fail(f"tensor {_shown(name)} of type {type_.name} cannot have the dimensions {dims} in this file")
        offset = int(self.number("Q"))
        if offset % alignment:
            self.fail(f"tensor {_shown(name)} has the offset {offset}, not a multiple of {alignment}")
        return GgufTensor(name, dims, type_, offset, num_elements // block_len * block_bytes)

    def value(self, value_type: int, depth: int) -> GgufValue:
        if value_type == _STRING:
            return self.string()
        if value_type == _ARRAY:
            return self.read_array(depth + 1)
        if value_type not in _NUMBER_CODES:
            self.fail(f"unknown metadata value type {value_type}")
        number = self.number(_NUMBER_CODES[value_type])
        return bool(number) if value_type == _BOOL else number

    def read_array(self, depth: int) -> GgufValue:
        if depth > MAX_ARRAY_DEPTH:
            self.fail(f"metadata arrays are nested more than {MAX_ARRAY_DEPTH} deep")
        item_type, length = int(self.number("I")), int(self.number("Q"))
        if item_type in _NUMBER_CODES:
            code = _NUMBER_CODES[item_type]
            return array(code, self.take(length * struct.calcsize("<" + code)))
        if item_type not in (_STRING, _ARRAY):
            self.fail(f"unknown metadata value type {item_type}")
        self.count_items(length, 8 if item_type == _STRING else 12, "items of an array")
        return [self.value(item_type, depth) for _ in range(length)]

    def string(self) -> str:
        (length,) = _U64.unpack(self.take(8))
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            self.fail(f"a string is not UTF-8 ({error})")

    def number(self, code: str) -> int | float:
        value: int | float = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def take(self, length: int) -> bytes:
        if length > self.end - self.position:
            if self.end == MAX_HEADER_BYTES:
                self.fail(f"its header is longer than {MAX_HEADER_BYTES} bytes")
            self.fail(f"it is truncated: {length} bytes wanted, {self.end - self.position} left")
        self.position += length
        data = self.file.read(length)
        if len(data) < length:
            self.fail("it became shorter while it was read")
        return data

    def count_items(self, count: int, min_bytes: int, what: str) -> None:
        """Refuses a count before anything is made from it."""
        self.num_items += count
        if count * min_bytes > self.end - self.position or self.num_items > MAX_ITEMS:
            self.fail(f"it claims {count} {what}: more than the file holds, or than {MAX_ITEMS} items in all")

    def fail(self, problem: str) -> NoReturn:
        raise WeightsError(f"{self.path} is not a usable GGUF file, near byte {self.position}: {problem}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
