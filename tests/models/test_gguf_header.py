from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrun.errors import ModelNotFoundError, WeightsError
from sgrun.models.gguf_header import check_gguf_header, read_gguf_header, read_gguf_metadata

U8, I32, F32, BOOL, STRING, ARRAY = 0, 5, 6, 7, 8, 9


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def entry(key: str, value_type: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", value_type) + value


def array_head(item_type: int, length: int) -> bytes:
    return struct.pack("<IQ", item_type, length)


def tensor(name: str, dims: tuple[int, ...], type_: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_, offset)


def header(
    entries: Sequence[bytes],
    tensors: Sequence[bytes] = (),
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    num_tensors, num_entries = counts or (len(tensors), len(entries))
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_entries) + b"".join(entries) + b"".join(tensors)


def with_data(head: bytes, size: int = 64) -> bytes:
    return head + bytes(-len(head) % 32) + bytes(size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        check_gguf_header(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


GOOD = with_data(
    header(
        [
            entry("general.alignment", 4, struct.pack("<I", 32)),
            entry("flag", BOOL, b"\x01"),
            entry("names", ARRAY, array_head(STRING, 2) + string("a") + string("é")),
            entry("nested", ARRAY, array_head(ARRAY, 1) + array_head(I32, 2) + struct.pack("<2i", -1, 7)),
            entry("scores", ARRAY, array_head(F32, 1) + struct.pack("<f", 0.5)),
        ],
        [tensor("w", (4, 2)), tensor("q", (32,), type_=2, offset=32)],
    )
)


def test_good_header_is_read(path: Path) -> None:
    path.write_bytes(GOOD)
    read = read_gguf_header(path)
    flag = read.metadata["flag"]
    assert flag is True
    assert read.metadata["names"] == ["a", "é"]
    assert [list(row) for row in read.metadata["nested"]] == [[-1, 7]]  # type: ignore[union-attr, arg-type]
    assert list(read.metadata["scores"]) == [0.5]  # type: ignore[arg-type]
    start = len(GOOD) - 64
    assert [(t.name, t.dims, t.offset, t.size_bytes) for t in read.tensors] == [
        ("w", (4, 2), start, 32),
        ("q", (32,), start + 32, 18),
    ]


def test_reads_what_the_gguf_library_wrote(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.count", 7)
    writer.add_array("tokenizer.ggml.tokens", ["x", "▁y", "<s>"])
    writer.add_array("tokenizer.ggml.scores", [0.0, -1.5, 2.0])
    writer.add_tensor("t1", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("t2", np.arange(8, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf.GGUFReader(path)
    read = read_gguf_header(path)
    expected = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert {k: v if isinstance(v, (int, str)) else list(v) for k, v in read.metadata.items()} == expected  # type: ignore[arg-type]
    assert [(t.name, t.dims, t.type, t.offset, t.size_bytes) for t in read.tensors] == [
        (t.name, tuple(t.shape), t.tensor_type, t.data_offset, t.n_bytes) for t in reader.tensors
    ]


def test_real_model_is_read_like_the_gguf_library_does_but_fast(smollm2_gguf: Path) -> None:
    best_s = min(_timed(lambda: read_gguf_metadata(smollm2_gguf)) for _ in range(3))
    assert best_s < 0.3
    reader = gguf.GGUFReader(smollm2_gguf)
    metadata = read_gguf_metadata(smollm2_gguf)
    assert list(metadata) == [key for key in reader.fields if not key.startswith("GGUF.")]
    for key in ("llama.block_count", "llama.rope.freq_base", "tokenizer.ggml.merges", "tokenizer.ggml.add_bos_token"):
        assert metadata[key] == reader.fields[key].contents()
    assert [t.offset for t in read_gguf_header(smollm2_gguf).tensors] == [t.data_offset for t in reader.tensors]


def test_missing_file_is_not_found(path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot open"):
        check_gguf_header(path)


def test_every_truncation_is_refused(path: Path) -> None:
    for length in range(len(GOOD) - 64 + 50):  # the last tensor ends 14 bytes before the file does
        refusal(path, GOOD[:length])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "magic"),
        (b"GGML" + bytes(100), "magic"),
        (header([], version=1) + bytes(64), "version is 1"),
        (header([], version=0x03000000) + bytes(64), "version"),
        (header([], counts=(2**63, 0)), "claims 9223372036854775808 tensors"),
        (header([], counts=(0, 2**64 - 1)) + bytes(64), "metadata entries"),
        (header([struct.pack("<Q", 2**63) + b"key" * 9]), "truncated"),
        (header([entry("k", STRING, struct.pack("<Q", 2**64 - 1) + bytes(9))]), "truncated"),
        (header([entry("k", ARRAY, array_head(U8, 2**63))]), "truncated"),
        (header([entry("k", ARRAY, array_head(STRING, 2**61) + bytes(64))]), "items of an array"),
        (header([entry("k", ARRAY, array_head(ARRAY, 1) * 100 + array_head(U8, 0))]), "nested more than 4"),
        (header([entry("k", 13, bytes(8))]), "value type 13"),
        (header([entry("k", ARRAY, array_head(13, 1) + bytes(8))]), "value type 13"),
        (header([entry("k", U8, b"1"), entry("k", U8, b"2")]), "'k' is empty or comes twice"),
        (header([entry("", U8, b"1" + bytes(9))]), "'' is empty or comes twice"),
        (header([entry("k", STRING, struct.pack("<Q", 1) + b"\xff")]), "UTF-8"),
        (header([entry("general.alignment", 4, struct.pack("<I", 0))]), "power of two"),
        (header([entry("general.alignment", 4, struct.pack("<I", 48))]), "power of two"),
        (header([entry("general.alignment", STRING, string("32"))]), "power of two"),
        (with_data(header([], [tensor("w", (4,)), tensor("w", (4,))])), "'w' comes twice"),
        (with_data(header([], [tensor("", (4,))])), "empty name"),
        (with_data(header([], [tensor("w", (2,) * 5)])), "5 dimensions"),
        (with_data(header([], [tensor("w", ())])), "0 dimensions"),
        (with_data(header([], [tensor("w", (4,), type_=99)])), "unknown type 99"),
        (with_data(header([], [tensor("w", (4,), type_=4)])), "unknown type 4"),  # withdrawn from the format
        (with_data(header([], [tensor("w", (33,), type_=2)])), "cannot have the dimensions"),
        (with_data(header([], [tensor("w", (2**62, 2**62, 2**62, 2**62))])), "cannot have the dimensions"),
        (with_data(header([], [tensor("w", (0, 2**63))])), "cannot have the dimensions"),
        (with_data(header([], [tensor("w", (4,), offset=8)])), "not a multiple of 32"),
        (with_data(header([], [tensor("w", (4,), offset=64)])), "past the end of the file"),
        (with_data(header([], [tensor("w", (4,), offset=2**64 - 32)])), "past the end of the file"),
        (with_data(header([], [tensor("w", (17,))])), "past the end of the file"),
    ],
)  # fmt: skip
def test_malformed_header_is_refused(path: Path, content: bytes, words: str) -> None:
    assert words in refusal(path, content)


_MANY = 1_100_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header([entry("k", ARRAY, array_head(STRING, _MANY) + bytes(8 * _MANY))]), "items in all"),
        (header([entry(k, ARRAY, array_head(STRING, _MANY // 2) + bytes(4 * _MANY)) for k in "ab"]), "items in all"),
        (header([entry("k", ARRAY, array_head(STRING, 1_000_000) + string("😀abcdefghijkl") * 1_000_000)]), ""),
        (header([entry("k", ARRAY, array_head(ARRAY, _MANY) + array_head(U8, 0) * _MANY)]), "items in all"),
        (header([entry("k", ARRAY, array_head(U8, 60 << 20) + bytes(60 << 20))]), "header is longer than 33554432"),
        (header([], [tensor(f"{i:06}", (1,)) for i in range(1 << 16)]) + bytes(64), ""),
        (header([], counts=((1 << 16) + 1, 0)), "65537 tensors; allowed: at most 65536"),
    ],
    ids=["many_strings", "twice_strings", "wide_strings", "many_arrays", "long_array", "full_table", "many_tensors"],
)  # fmt: skip
def test_hostile_size_costs_little_time_and_memory(path: Path, content: bytes, words: str) -> None:
    """With `words` it is refused; without, it is within the limits and as large as they allow."""
    path.write_bytes(content)
    if words:
        assert words in refusal(path, content)

    def check() -> None:
        with contextlib.suppress(WeightsError):
            check_gguf_header(path)

    assert _timed(check) < 1.0
    tracemalloc.start()
    check()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 200 << 20


def _timed(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


@settings(max_examples=400, deadline=1000)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    length=st.integers(0, len(GOOD)),
)
def test_mutated_header_is_refused_or_describes_tensors_inside_the_file(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]], length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    content = bytearray(GOOD)
    for position, data in edits:
        content[position : position + len(data)] = data
    path.write_bytes(content[: max(length, len(GOOD) // 2)])
    try:
        read = read_gguf_header(path)
    except WeightsError:
        return
    assert all(t.name and t.offset + t.size_bytes <= path.stat().st_size for t in read.tensors)
