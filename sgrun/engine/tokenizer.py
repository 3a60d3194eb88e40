"""Text to token ids and back to bytes, exactly as the model's own tokenizer does it; safe to use from many threads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from sgrun.errors import InvalidParameterError
from sgrun.grammar.token_bytes import component, components, token_bytes
from sgrun.models.tokenizer_files import TokenizerFiles, read_tokenizer
from sgrun.types import ChatFormat, Segment


class Tokenizer:
    """The tokenizer of one model. Nothing changes after construction.

    `token_bytes[id]`: the bytes of a token in running text, None for special tokens. `vocab_size`: its length; the
    model may have more logits than that, whose ids stand for nothing. `special_ids`: tokens that stand for no text.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        core = files.core
        core.no_truncation()
        core.no_padding()
        core.encode_special_tokens = True  # text is text: special tokens are found by `_SpecialTokens` alone
        added = core.get_added_tokens_decoder()
        special = {token_id: token for token_id, token in added.items() if token.special}
        self._specials = _SpecialTokens(special)
        self._prefix = _prefix_scheme(core)
        self._core = core
        self._core_without_prefix = core if self._prefix == "never" else _without_prefix(core)
        self._adds_bos = files.adds_bos
        self.token_bytes = token_bytes(core)
        self.vocab_size = len(self.token_bytes)
        self.special_ids = frozenset(special)
        self.bos_token_id: int | None = core.token_to_id(files.bos_token) if files.bos_token is not None else None
        self.eos_token_ids = files.eos_token_ids
        self.chat_format: ChatFormat | None = None
        if files.chat_template is not None:
            self.chat_format = ChatFormat(files.chat_template, files.bos_token or "", files.eos_token or "")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """The tokenizer of the model at `path`: a folder in Hugging Face layout or a .gguf file.

        Raises ModelNotFoundError if its files are missing, UnsupportedModelError for a kind that is not run,
        WeightsError for a damaged GGUF file.
        """
        return cls(read_tokenizer(path))

    def encode(self, segments: Sequence[Segment], *, at_start: bool) -> list[int]:
        """Token ids of the segments' texts, joined: a border between segments does not show.

        The text of special tokens stands for them in segments with `special`, and is spelled out in others; added
        tokens that the model does not mark as special are ordinary vocabulary everywhere. `at_start`: nothing comes
        before. Then the begin token goes first, if this tokenizer uses one, no segment is from a template, and the
        text does not begin with it already; and only then does the text get the space that some tokenizers put before
        it. Text without characters has no tokens. Raises InvalidParameterError if a text is not valid Unicode.
        """
        text = "".join(_checked(segment.text) for segment in segments)
        if not text:
            return []
        ids: list[int] = []
        position = 0
        for start, end, token_id in self._specials.find(segments, text):
            ids += self._encode_plain(text[position:start], at_start=at_start, position=position)
            ids.append(token_id)
            position = end
        ids += self._encode_plain(text[position:], at_start=at_start, position=position)
        if at_start and self._adds_bos and not any(segment.template for segment in segments):
            assert self.bos_token_id is not None
            if ids[:1] != [self.bos_token_id]:
                ids.insert(0, self.bos_token_id)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Token ids of ordinary text that continues a sequence: no special tokens, no begin token."""
        return self.encode([Segment(text)], at_start=False)

    def _encode_plain(self, text: str, *, at_start: bool, position: int) -> list[int]:
        """`position` in the text given to `encode`: beyond 0 a special token lies before."""
        if not text:
            return []
        has_prefix = at_start if position == 0 else self._prefix == "always"
        core = self._core if has_prefix else self._core_without_prefix
        return core.encode(text, add_special_tokens=False).ids


class _SpecialTokens:
    """Finds special tokens in text, with the matching of the tokenizer library itself."""

    def __init__(self, special: dict[int, AddedToken]) -> None:
        self._tokens = {token.content: (token_id, token.lstrip, token.rstrip) for token_id, token in special.items()}
        # a tokenizer that knows special tokens and nothing else; their stripping is done in the joint text
        self._finder = tokenizers.Tokenizer(models.BPE())
        plain = [
            AddedToken(token.content, single_word=token.single_word, normalized=False) for token in special.values()
        ]
        self._finder.add_special_tokens(plain)

    def find(self, segments: Sequence[Segment], text: str) -> Iterator[tuple[int, int, int]]:
        """(start, end, token id) of each special token in `text`, the segments' texts joined; in order.

        A token must lie in segments with `special`, though it may span several; the white space that some tokens
        swallow may lie anywhere, and two may swallow the same."""
        for run_start, run_end in _special_runs(segments):
            found = self._finder.encode(text[run_start:run_end], add_special_tokens=False)
            for token, (start, end) in zip(found.tokens, found.offsets, strict=True):
                token_id, strips_left, strips_right = self._tokens[token]
                start, end = run_start + start, run_start + end
                while strips_left and start > 0 and text[start - 1].isspace():
                    start -= 1
                while strips_right and end < len(text) and text[end].isspace():
                    end += 1
                yield start, end, token_id


def _special_runs(segments: Sequence[Segment]) -> Iterator[tuple[int, int]]:
    """Ranges of the joint text that are covered by neighbouring segments with `special`."""
    start = end = 0
    for segment in segments:
        end += len(segment.text)
        if not segment.special and segment.text:
            if start < end - len(segment.text):
                yield start, end - len(segment.text)
            start = end
    if start < end:
        yield start, end


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise InvalidParameterError(f"text is {type(text).__name__}; allowed: str")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidParameterError(
            f"text has the lone surrogate {text[error.start]!r} at index {error.start}, which has no bytes;"
            ' decode the input with errors="replace"'
        ) from error
    return text


def _prefix_scheme(core: tokenizers.Tokenizer) -> str:
    """Where the tokenizer puts a space before the text: "never", "first" (of a text only), or "always" (also after
    each special token)."""
    schemes = {_prefix_of(part) for part in _text_components(core)}
    return "always" if "always" in schemes else "first" if "first" in schemes else "never"


def _prefix_of(part: dict[str, Any]) -> str:
    match part["type"]:
        case "Prepend":
            return "always"
        case "Metaspace":
            return str(part["prepend_scheme"])
        case "ByteLevel":
            return "always" if part["add_prefix_space"] else "never"
    return "never"


def _text_components(core: tokenizers.Tokenizer) -> Iterator[dict[str, Any]]:
    yield from components(component(core.normalizer))
    yield from components(component(core.pre_tokenizer))


def _without_prefix(core: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy that puts no space before the text."""
    description = json.loads(core.to_str())
    for part in [*components(description["normalizer"] or {}), *components(description["pre_tokenizer"] or {})]:
        match part["type"]:
            case "Prepend":
                part["prepend"] = ""
            case "Metaspace":
                part["prepend_scheme"] = "never"
            case "ByteLevel":
                part["add_prefix_space"] = False
    copy = tokenizers.Tokenizer.from_str(json.dumps(description))
    copy.encode_special_tokens = True
    return copy
