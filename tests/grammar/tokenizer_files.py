"""Real tokenizers of three kinds, without a network: where they are, and what makes files of them that sgrun reads."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from sgrun.grammar.vocabulary import Vocabulary
from sgrun.models.source import default_model_path

_CONTROL, _UNKNOWN = 3, 2  # types of SentencePiece's pieces


def mistral_file(name: str) -> Path:
    """A file out of the mistral-common package."""
    spec = find_spec("mistral_common")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "data" / name


def real_vocabularies(folder: Path) -> dict[str, Vocabulary]:
    """SmolLM2's byte-level BPE of 49,152 tokens, Mistral's byte-level one of 131,072, and Mistral's first, a
    SentencePiece BPE with byte fallback of 32,000, which is written into `folder`."""
    write_sentencepiece(folder)
    paths = {"smollm2": default_model_path(), "tekken": mistral_file("tekken_240911.json"), "sentencepiece": folder}
    return {name: Vocabulary.from_tokenizer(path) for name, path in paths.items()}


def write_sentencepiece(folder: Path) -> None:
    """Mistral's tokenizer.model.v1 as tokenizer.json and tokenizer_config.json."""
    pieces = list(_pieces(mistral_file("tokenizer.model.v1").read_bytes()))
    vocab = {text: token_id for token_id, (text, _, _) in enumerate(pieces)}
    merges = [
        (text[:at], text[at:])
        for text, _, _ in sorted(pieces, key=lambda piece: -piece[1])  # the rank of a merge is the score of its result
        for at in range(1, len(text))
        if text[:at] in vocab and text[at:] in vocab
    ]
    core = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = [text for text, _, kind in pieces if kind in (_CONTROL, _UNKNOWN)]
    core.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')


def _pieces(data: bytes) -> Iterator[tuple[str, float, int]]:
    """The text, score and type of each piece in a SentencePiece model file (sentencepiece_model.proto)."""
    for number, content in _fields(data):
        if number == 1:
            fields = dict(_fields(bytes(content)))
            yield bytes(fields[1]).decode(), struct.unpack("<f", fields[2])[0], int(fields.get(3, 1))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, content) of each field of a message in the wire format of Protocol Buffers."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        yield number, data[at : at + size]
        at += size
