"""Tokens of one generation to text as they come: whole characters only, and nothing that a stop string may cut off."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Text of the tokens pushed so far, up to the first stop string.

    Bytes that are not UTF-8 become U+FFFD; so does, at the end, a character that is still incomplete. Special tokens
    (None in `token_bytes`) and ids past the table have no text. Stop strings are looked for in the text, wherever
    token borders lie. With the first token that completes any, the generation is over: `matched` is the completed one
    that begins first, of several that begin there the one listed first, and the text ends just before it. A push costs
    time proportional to the token's length and the number of stop strings.
    """

    def __init__(self, token_bytes: Sequence[bytes | None], stop: tuple[str, ...] = ()) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = [_StopString(text) for text in stop]
        self._decoded: list[str] = []
        self._decoded_len = 0  # characters
        self._held = ""  # decoded text that is not final yet
        self._final: list[str] = []
        # (tokens, characters) where tokens end at the end of a character
        self._borders = [(0, 0)]
        self._num_tokens = 0
        self.matched: str | None = None
        self._cut_len = 0

    @property
    def text(self) -> str:
        """All text returned by `push` and `flush`."""
        return "".join(self._final)

    @property
    def kept_tokens(self) -> int:
        """How many of the pushed tokens lie wholly before the cut; all of them if no stop string matched."""
        return self._num_tokens if self.matched is None else self._border_before_cut()[0]

    @property
    def tail_text(self) -> str:
        """The text between the end of the kept tokens and the cut; "" if no stop string matched."""
        if self.matched is None:
            return ""
        return "".join(self._decoded)[self._border_before_cut()[1] : self._cut_len]

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that became final. Not to be called after a match."""
        assert self.matched is None, f"token {token_id} pushed after the stop string {self.matched!r}"
        data = self._token_bytes[token_id] if token_id < len(self._token_bytes) else None
        self._num_tokens += 1
        final = self._advance(self._decoder.decode(data)) if data else ""
        if self._stops and not self._decoder.getstate()[0]:
            self._borders.append((self._num_tokens, self._decoded_len))
        return final

    def flush(self) -> str:
        """Ends the generation; returns the rest of the text, which may still complete a stop string with U+FFFD."""
        if self.matched is not None:
            return ""
        final = self._advance(self._decoder.decode(b"", final=True))
        return final if self.matched is not None else final + self._release(len(self._held))

    def _advance(self, text: str) -> str:
        """Takes decoded text; returns what became final."""
        if not self._stops:  # nothing is held back, and nothing cut off
            self._final.append(text)
            return text
        start_len = self._decoded_len
        self._decoded.append(text)
        self._decoded_len += len(text)
        self._held += text
        # min keeps the first of equals: the one listed first
        starts = [(start_len + start, stop) for stop in self._stops if (start := stop.advance(text)) is not None]
        if not starts:
            return self._release(len(self._held) - max(stop.matched_len for stop in self._stops))
        self._cut_len, stop = min(starts, key=lambda found: found[0])
        self.matched = stop.text
        return self._release(self._cut_len - (self._decoded_len - len(self._held)))

    def _release(self, length: int) -> str:
        final, self._held = self._held[:length], self._held[length:]
        self._final.append(final)
        return final

    def _border_before_cut(self) -> tuple[int, int]:
        return next(border for border in reversed(self._borders) if border[1] <= self._cut_len)


class _StopString:
    """Knuth-Morris-Pratt matching: `matched_len` characters at the end of the text so far begin `text`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched_len = 0
        # longest proper prefix of text that ends text[: i + 1]
        self._fallback = [0] * len(text)
        for i in range(1, len(text)):
            self._fallback[i] = self._step(self._fallback[i - 1], text[i])

    def advance(self, chunk: str) -> int | None:
        """Takes more text; returns where the first completed occurrence begins, relative to the chunk (so negative
        if it began earlier), None if there is none."""
        for i, char in enumerate(chunk):
            self.matched_len = self._step(self.matched_len, char)
            if self.matched_len == len(self.text):
                return i + 1 - len(self.text)
        return None

    def _step(self, matched_len: int, char: str) -> int:
        while matched_len and self.text[matched_len] != char:
            matched_len = self._fallback[matched_len - 1]
        return matched_len + (self.text[matched_len] == char)
