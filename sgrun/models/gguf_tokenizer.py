"""A `tokenizers.Tokenizer` from the metadata of a GGUF file: the vocabulary is in the file, how text is split is not,
so each splitting scheme is one of a known few or refused."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import cast

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, processors
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

from sgrun.errors import UnsupportedModelError, WeightsError
from sgrun.models.gguf_header import GgufValue

# tokenizer.ggml.token_type
_NORMAL, _USER_DEFINED = 1, 4
_SPECIAL_TYPES = (2, 3, 5)  # unknown, control, unused

# The published splitting pattern of Llama 3 and, with digits one by one, of Qwen 2.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer(metadata: Mapping[str, GgufValue]) -> tokenizers.Tokenizer:
    """The tokenizer that `metadata` (from `read_gguf_metadata`) describes: control tokens are special, and where the
    file asks for a begin token the post-processor puts it first.

    Raises UnsupportedModelError for a kind of tokenizer that is not known here, WeightsError for metadata that
    contradicts itself.
    """
    kind = metadata.get("tokenizer.ggml.model")
    tokens = _strings(metadata, "tokens")
    types = _numbers(metadata, "token_type", len(tokens))
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) < len(tokens):
        raise WeightsError(f"the GGUF vocabulary has {len(tokens)} tokens, but only {len(vocab)} different ones")
    if kind == "gpt2":
        tokenizer, begins = _byte_level_bpe(metadata, vocab)
    elif kind == "llama":
        tokenizer, begins = _sentencepiece_bpe(metadata, tokens, types)
    else:
        raise UnsupportedModelError(f"tokenizer.ggml.model is {kind!r}; allowed: 'gpt2' and 'llama'")
    added = [
        AddedToken(token, special=type_ in _SPECIAL_TYPES, normalized=False)
        for token, type_ in zip(tokens, types, strict=True)
        if type_ in _SPECIAL_TYPES or type_ == _USER_DEFINED
    ]
    tokenizer.add_tokens(added)
    if metadata.get("tokenizer.ggml.add_bos_token", begins):
        bos = gguf_token(metadata, "bos_token_id")
        if bos is None:
            raise WeightsError("the GGUF file asks for a begin token (add_bos_token) and names none (bos_token_id)")
        begin = {"id": "bos", "ids": [vocab[bos]], "tokens": [bos]}
        tokenizer.post_processor = processors.TemplateProcessing(["bos", "$A"], special_tokens=[begin])
    return tokenizer


def gguf_token(metadata: Mapping[str, GgufValue], key: str) -> str | None:
    """The text of the token whose id stands under tokenizer.ggml.`key`, None where nothing does."""
    token_id = metadata.get(f"tokenizer.ggml.{key}")
    if token_id is None:
        return None
    tokens = _strings(metadata, "tokens")
    if not isinstance(token_id, int) or not 0 <= token_id < len(tokens):
        raise WeightsError(f"tokenizer.ggml.{key} is {token_id!r}; allowed: an id from 0 to {len(tokens) - 1}")
    return tokens[token_id]


def _byte_level_bpe(metadata: Mapping[str, GgufValue], vocab: dict[str, int]) -> tuple[tokenizers.Tokenizer, bool]:
    """The tokenizer, and whether its family begins texts with a token by default."""
    scheme = metadata.get("tokenizer.ggml.pre")
    merges = []
    for merge in _strings(metadata, "merges"):
        left, _, right = merge.partition(" ")
        if left not in vocab or right not in vocab or left + right not in vocab:
            raise WeightsError(f"the GGUF vocabulary lacks a part of its merge {merge!r}")
        merges.append((left, right))
    is_llama3 = scheme in ("llama-bpe", "llama3", "llama-v3")
    # ignore_merges: a piece that is a token as a whole is that token, whether or not merges lead there
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=is_llama3))
    if scheme in ("default", "gpt-2"):
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    elif scheme == "smollm":
        tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    elif is_llama3:
        tokenizer.pre_tokenizer = _split(_PATTERN % 3)
    elif scheme == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = _split(_PATTERN % 1)
    else:
        raise UnsupportedModelError(
            f"tokenizer.ggml.pre is {scheme!r}; allowed: 'default', 'gpt-2', 'smollm', 'llama-bpe', 'llama3',"
            " 'llama-v3', 'qwen2'; the same model as a folder in Hugging Face layout brings its tokenizer.json"
        )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, is_llama3


def _split(pattern: str) -> Sequence:
    split = Split(Regex(pattern), behavior="isolated")
    return Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])


def _sentencepiece_bpe(
    metadata: Mapping[str, GgufValue], tokens: list[str], types: list[int] | list[float]
) -> tuple[tokenizers.Tokenizer, bool]:
    """SentencePiece's BPE has scores where others have merges: of two neighbours it joins those whose union scores
    highest, so every way to split a token in two becomes a merge, ranked by the token's score."""
    scores = _numbers(metadata, "scores", len(tokens))
    vocab = {token: i for i, token in enumerate(tokens)}
    normal = {token for token, type_ in zip(tokens, types, strict=True) if type_ == _NORMAL}
    merges = []
    for token in sorted(normal, key=lambda token: (-scores[vocab[token]], vocab[token])):
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in splits if normal.issuperset(pair)]
        merges += sorted(pairs, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    unknown = gguf_token(metadata, "unknown_token_id")
    bpe = models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(bpe)
    spaces = normalizers.Replace(" ", "▁")
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    else:
        tokenizer.normalizer = spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer, True


def _strings(metadata: Mapping[str, GgufValue], key: str) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise WeightsError(f"the GGUF file has no list of strings tokenizer.ggml.{key}")
    return cast(list[str], value)


def _numbers(metadata: Mapping[str, GgufValue], key: str, length: int) -> list[int] | list[float]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, array) or len(value) != length:
        raise WeightsError(f"the GGUF file has no list of {length} numbers tokenizer.ggml.{key}, one a token")
    return value.tolist()
