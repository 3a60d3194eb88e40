from __future__ import annotations

import json
import random
import unicodedata
from array import array
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
import regex
import tokenizers
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from sgrun.errors import UnsupportedModelError, WeightsError
from sgrun.models.gguf_header import GgufValue, read_gguf_metadata
from sgrun.models.gguf_tokenizer import build_tokenizer, gguf_token

TEXTS = [
    "Hello world, it's 2024: 1234567 and 3.14!",
    "def f(x):\n    return x  **  2\t# note\n\n\n\n        deep\r\n",
    "naïve café — “quotes” … Ünïcödé, ñ, ß, İ, ǆ",
    "日本語の文章です。한국어 텍스트. Русский текст, العربية ١٢٣, हिन्दी १२",
    "👩‍👩‍👧‍👦 emoji 🏳️‍🌈 and ½ ² ⅷ Ⅻ",
    "   leading and trailing   ",
    "don't DON'T we'll I've I'VE he's",
    "e\u0301 combining, \u00a0nbsp, \u200bzero width, \u3000ideographic",
    "http://example.org/a?b=c&d=%20#frag foo_bar-baz $x = {'a': [1, 2]};",
    "\x00\x01\x7f tabs\t\tand\x0b\x0c",
    "<|im_start|>user\nhi<|im_end|>\n",
]


def varied_texts(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    pieces = [piece for text in TEXTS for piece in (text, *text.split(" "), *text)]
    pieces += [chr(generator.randrange(0x20, 0x2FFF)) for _ in range(300)] + [" ", "\n", "  ", "\n\n", "7", "42"]
    return ["".join(generator.choices(pieces, k=generator.randrange(1, 12))) for _ in range(count)]


def dense_texts(count: int) -> list[str]:
    """Few letters, so that which neighbours are joined first matters."""
    generator = random.Random(6)
    return ["".join(generator.choices("abc ", k=20)) for _ in range(count)]


def byte_level_metadata(pre: str = "smollm", **changes: GgufValue) -> dict[str, GgufValue]:
    """A tiny byte-level vocabulary in the words of GGUF."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=450, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    core.train_from_iterator(TEXTS * 3, trainer)
    model = json.loads(core.to_str())["model"]
    tokens = [*model["vocab"], "<tool>"]
    metadata: dict[str, GgufValue] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": array("i", [3, 3, *[1] * (len(tokens) - 3), 4]),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
    }
    return metadata | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}


def sentencepiece_metadata(**changes: GgufValue) -> dict[str, GgufValue]:
    """A tiny SentencePiece vocabulary: specials, the 256 bytes, then pieces with scores."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.train_from_iterator([*TEXTS[:2], *dense_texts(200)], trainers.BpeTrainer(vocab_size=300, show_progress=False))
    pieces = sorted(core.get_vocab())
    scores = [-float(i) for i in range(len(pieces))]
    random.Random(5).shuffle(scores)  # neither in the order of the ids nor in that in which a trainer made them
    fixed = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    metadata: dict[str, GgufValue] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*fixed, *pieces],
        "tokenizer.ggml.token_type": array("i", [2, 3, 3, *[6] * 256, *[1] * len(pieces)]),
        "tokenizer.ggml.scores": array("f", [0.0] * len(fixed) + scores),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return metadata | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}


GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "gpt-2": GPT2_PATTERN,
    "default": GPT2_PATTERN,
    "llama-bpe": LLAMA3_PATTERN,
    "qwen2": LLAMA3_PATTERN.replace("{1,3}", ""),
}


def split_reference(text: str, pre: str) -> list[str]:
    if pre == "smollm":
        runs = [list(run) if is_number else ["".join(run)] for is_number, run in groupby(text, _is_numeric)]
        return [word for part in chain(*runs) for word in regex.findall(GPT2_PATTERN, part)]
    return list(regex.findall(PATTERNS[pre], unicodedata.normalize("NFC", text) if pre == "qwen2" else text))


def _is_numeric(char: str) -> bool:
    return unicodedata.category(char).startswith("N")


def byte_level_reference(text: str, metadata: dict[str, Any]) -> list[str]:
    """Byte pair encoding by the book: in each word, join the pair of lowest rank until none is left."""
    tokens = set(metadata["tokenizer.ggml.tokens"])
    ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    result = []
    for word in split_reference(text, metadata["tokenizer.ggml.pre"]):
        parts = [SPELLING[byte] for byte in word.encode() if SPELLING[byte] in tokens]
        if metadata["tokenizer.ggml.pre"] == "llama-bpe" and "".join(parts) in tokens:
            parts = ["".join(parts)]
        result += join_lowest(parts, ranks)
    return result


def join_lowest(parts: list[str], ranks: dict[Any, int]) -> list[str]:
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not found:
            return parts
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


SPELLING = bytes_to_unicode()  # byte to character


@pytest.mark.parametrize("pre", ["smollm", *PATTERNS])
def test_byte_level_schemes_equal_bpe_by_the_book(pre: str) -> None:
    metadata = byte_level_metadata(pre)
    core = build_tokenizer(metadata)
    for text in [*TEXTS[:-1], *varied_texts(300, seed=1)]:
        text = text.replace("<", "")
        assert core.encode(text, add_special_tokens=False).tokens == byte_level_reference(text, metadata), text


def test_smollm2_equals_bpe_by_the_book(smollm2_gguf: Path) -> None:
    metadata = read_gguf_metadata(smollm2_gguf)
    core = build_tokenizer(metadata)
    for text in [*TEXTS[:-1], *varied_texts(30, seed=2)]:
        text = text.replace("<", "")
        assert core.encode(text).tokens == byte_level_reference(text, metadata), text


def test_smollm2_equals_transformers_where_no_digits_are(smollm2_gguf: Path) -> None:
    """With digits transformers differs: its conversion drops that SmolLM2 takes each digit for a word of its own."""
    core = build_tokenizer(read_gguf_metadata(smollm2_gguf))
    reference = AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    for text in [*TEXTS, *varied_texts(500, seed=3)]:
        text = "".join(char for char in text if not _is_numeric(char))
        assert core.encode(text).ids == reference.encode(text), text


def test_smollm2_splits_digits_and_keeps_spaces_before_them_together(smollm2_gguf: Path) -> None:
    core = build_tokenizer(read_gguf_metadata(smollm2_gguf))
    assert core.encode("x  2024").tokens == ["x", "ĠĠ", "2", "0", "2", "4"]


def test_llama3_takes_a_word_that_is_a_token_whole_although_no_merges_lead_there() -> None:
    metadata = byte_level_metadata("llama-bpe")
    metadata["tokenizer.ggml.tokens"] += ["Ġzqzq"]  # type: ignore[operator]
    metadata["tokenizer.ggml.token_type"] += array("i", [1])  # type: ignore[operator]
    core = build_tokenizer(metadata)
    assert core.encode("a zqzq", add_special_tokens=False).tokens == byte_level_reference("a zqzq", metadata)
    assert core.encode("a zqzq").tokens[-1] == "Ġzqzq"


def test_unused_tokens_are_special() -> None:
    metadata = byte_level_metadata()
    metadata["tokenizer.ggml.tokens"] += ["[PAD7]"]  # type: ignore[operator]
    metadata["tokenizer.ggml.token_type"] += array("i", [5])  # type: ignore[operator]
    assert build_tokenizer(metadata).get_added_tokens_decoder()[len(metadata["tokenizer.ggml.tokens"]) - 1].special  # type: ignore[arg-type]


def test_sentencepiece_merges_never_spell_a_control_token() -> None:
    metadata = sentencepiece_metadata()
    metadata["tokenizer.ggml.tokens"] += ["<", "s>"]  # type: ignore[operator]
    metadata["tokenizer.ggml.token_type"] += array("i", [1, 1])  # type: ignore[operator]
    metadata["tokenizer.ggml.scores"] += array("f", [-1.0, -1.0])  # type: ignore[operator]
    core = build_tokenizer(metadata)
    core.encode_special_tokens = True
    assert "<s>" not in core.encode("<s>", add_special_tokens=False).tokens


def test_control_tokens_are_special_and_user_defined_ones_are_not() -> None:
    core = build_tokenizer(byte_level_metadata())
    added = core.get_added_tokens_decoder()
    assert {token.content: token.special for token in added.values()} == {"<s>": True, "</s>": True, "<tool>": False}
    assert core.encode("a<s><tool>").tokens[-2:] == ["<s>", "<tool>"]


@pytest.mark.parametrize(
    ("metadata", "first"),
    [
        (byte_level_metadata(), "a"),
        (byte_level_metadata(add_bos_token=True), "<s>"),
        (byte_level_metadata("llama-bpe"), "<s>"),
        (byte_level_metadata("llama-bpe", add_bos_token=False), "a"),
        (sentencepiece_metadata(), "<s>"),
        (sentencepiece_metadata(add_bos_token=False, add_space_prefix=False), "a"),
    ],
)  # fmt: skip
def test_begin_token_follows_the_file_then_the_family(metadata: dict[str, GgufValue], first: str) -> None:
    assert build_tokenizer(metadata).encode("a").tokens[0] == first


def sentencepiece_reference(text: str, metadata: dict[str, Any]) -> list[str]:
    """Of neighbours, join those whose union scores highest, the leftmost of equals; what is left over is bytes."""
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    rows = zip(tokens, metadata["tokenizer.ggml.scores"], types, strict=True)
    scores = {token: score for token, score, type_ in rows if type_ == 1}
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        unions = [
            (-scores[left + right], i) for i, (left, right) in enumerate(pairwise(parts)) if left + right in scores
        ]
        if not unions:
            break
        _, i = min(unions)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [
        token for part in parts for token in ([part] if part in scores else [f"<0x{b:02X}>" for b in part.encode()])
    ]


def test_sentencepiece_equals_its_definition_and_decodes_back() -> None:
    metadata = sentencepiece_metadata()
    core = build_tokenizer(metadata)
    for text in [*TEXTS[:-1], *varied_texts(300, seed=4), *dense_texts(100)]:
        text = text.replace("<", "")
        encoding = core.encode(text, add_special_tokens=False)
        assert encoding.tokens == sentencepiece_reference(text, metadata) if text else encoding.tokens == []
        assert core.decode(encoding.ids) == text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "t5"}, "'t5'; allowed: 'gpt2' and 'llama'"),
        ({"pre": "deepseek-llm"}, "'deepseek-llm'; allowed: 'default'"),
    ],
)
def test_unknown_kinds_are_unsupported_by_name(changes: dict[str, GgufValue], words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        build_tokenizer(byte_level_metadata() | {f"tokenizer.ggml.{key}": value for key, value in changes.items()})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": array("i", [1])}, "no list of strings tokenizer.ggml.tokens"),
        ({"tokens": ["a", "b", "a"], "token_type": array("i", [1, 1, 1])}, "3 tokens, but only 2 different"),
        ({"token_type": array("i", [1])}, "numbers tokenizer.ggml.token_type"),
        ({"token_type": "x"}, "numbers tokenizer.ggml.token_type"),
        ({"merges": ["a zzzz"]}, "lacks a part of its merge 'a zzzz'"),
        ({"merges": ["ab"]}, "lacks a part of its merge 'ab'"),
        ({"bos_token_id": 10**6, "add_bos_token": True}, "bos_token_id is 1000000"),
    ],
)  # fmt: skip
def test_contradicting_metadata_is_refused(changes: dict[str, GgufValue], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        build_tokenizer(byte_level_metadata(**changes))


def test_begin_token_without_an_id_is_refused() -> None:
    metadata = byte_level_metadata(add_bos_token=True)
    del metadata["tokenizer.ggml.bos_token_id"]
    with pytest.raises(WeightsError, match="names none"):
        build_tokenizer(metadata)


def test_named_token_is_found_by_its_key() -> None:
    assert gguf_token(sentencepiece_metadata(), "eos_token_id") == "</s>"
    assert gguf_token(sentencepiece_metadata(), "eot_token_id") is None
