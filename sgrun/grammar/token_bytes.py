"""The bytes that each token of a vocabulary stands for, from how its tokenizer spells bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import tokenizers

from sgrun.errors import UnsupportedModelError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(core: tokenizers.Tokenizer) -> list[bytes | None]:
    """One entry per token id: its bytes in running text, None for special tokens and unused ids.

    Byte-level vocabularies, SentencePiece ("▁" for a space, <0xNN> for single bytes) and WordPiece ("##" continues a
    word, any other token begins one with a space). Raises UnsupportedModelError for others.
    """
    spell = _spelling(core)
    vocab = core.get_vocab(with_added_tokens=True)
    table: list[bytes | None] = [None] * (max(vocab.values(), default=-1) + 1)
    added = core.get_added_tokens_decoder()
    for token, token_id in vocab.items():
        if token_id not in added:
            table[token_id] = spell(token)
        elif not added[token_id].special:
            table[token_id] = token.encode()
    return table


def component(part: object) -> dict[str, Any]:
    """The description of a normalizer, pre-tokenizer, post-processor or decoder, as in tokenizer.json."""
    if part is None:
        return {}
    state: dict[str, Any] = json.loads(part.__getstate__())  # type: ignore[arg-type]  # bytes, where object is declared
    return state


def components(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The description itself, or the members of a Sequence."""
    for key in ("normalizers", "pretokenizers", "decoders"):
        for member in description.get(key, []):
            yield from components(member)
    if description and description["type"] != "Sequence":
        yield description


def _spelling(core: tokenizers.Tokenizer) -> Callable[[str], bytes]:
    decoder = list(components(component(core.decoder)))
    types = {part["type"] for part in decoder}
    splits_bytes = any(part["type"] == "ByteLevel" for part in components(component(core.pre_tokenizer)))
    if "ByteLevel" in types or splits_bytes:
        return _byte_level
    if "WordPiece" in types:
        return lambda token: token[2:].encode() if token.startswith("##") else b" " + token.encode()
    replaces = any(part["type"] == "Replace" and part["pattern"] == {"String": "▁"} for part in decoder)
    if "Metaspace" in types or replaces:
        return _sentencepiece
    raise UnsupportedModelError(
        f"the tokenizer decodes with {sorted(types) or 'nothing'}; allowed: byte-level, SentencePiece and WordPiece"
    )


def _byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF_CHAR[char] for char in token)
    except KeyError:
        return token.encode()


def _sentencepiece(token: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("▁", " ").encode()


def _byte_characters() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 characters stand for themselves, the others, in order, for the
    characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_characters()
