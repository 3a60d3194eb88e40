"""The bytes of every token of a tokenizer, flat for a device and as tries for the host."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sgrun.errors import InvalidParameterError
from sgrun.grammar.masks import MaskCache
from sgrun.grammar.trie import Trie, build_trie, num_plain_characters

DEFAULT_MASK_BYTES = 64 * 2**20


class Vocabulary:
    """Token id -> bytes. None stands for a token that never matches text: special tokens, padding ids.

    `flat` [num_bytes] uint8 holds all tokens one after the other; token i is flat[offsets[i]:offsets[i + 1]].
    Tokens without bytes are never allowed by a mask. `num_words` is the length of a mask in int32 words.
    `end_token_ids` end a text. `masks` keeps up to `max_mask_bytes` of masks over this vocabulary.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes | None],
        end_token_ids: Collection[int] = (),
        max_mask_bytes: int = DEFAULT_MASK_BYTES,
    ) -> None:
        self._pieces = pieces = [data or b"" for data in token_bytes]
        self.size = len(pieces)
        self.num_words = (self.size + 31) // 32
        self.flat: npt.NDArray[np.uint8] = np.array(bytearray(b"".join(pieces)), dtype=np.uint8)
        self.offsets: npt.NDArray[np.int32] = np.zeros(self.size + 1, dtype=np.int32)
        np.cumsum([len(piece) for piece in pieces], out=self.offsets[1:])
        self.max_token_len = max(map(len, pieces), default=0)
        self.end_token_ids = frozenset(end_token_ids)
        self.masks = MaskCache(self, max_mask_bytes)

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: object,
        *,
        end_token_ids: Collection[int] | None = None,
        size: int | None = None,
        max_mask_bytes: int = DEFAULT_MASK_BYTES,
    ) -> Vocabulary:
        """The vocabulary of a tokenizer: a fast tokenizer of transformers, a `tokenizers.Tokenizer`, or the path of a
        folder in Hugging Face layout, a .gguf file or a tekken.json.

        `end_token_ids`: those that the tokenizer names if None; a bare `tokenizers.Tokenizer` names none. `size`: of
        the model's logits where they are more than the tokens; ids beyond these are never allowed.
        Raises ModelNotFoundError, UnsupportedModelError, WeightsError for a damaged .gguf file, InvalidParameterError
        if `size` is too small.
        """
        from sgrun.grammar.tokenizer_source import read_tokens  # loads the tokenizer library

        token_bytes, named_ends = read_tokens(tokenizer)
        padding = 0 if size is None else size - len(token_bytes)
        if padding < 0:
            raise InvalidParameterError(f"size is {size}; allowed: at least the {len(token_bytes)} of the tokenizer")
        ends = named_ends if end_token_ids is None else end_token_ids
        return cls([*token_bytes, *[None] * padding], ends, max_mask_bytes)

    def token(self, token_id: int) -> bytes:
        """The bytes of one token; empty for a token that never matches text."""
        return self._pieces[token_id]

    @cached_property
    def single_bytes(self) -> bytes:
        """The bytes that are a token by themselves."""
        return np.unique(self.flat[self.offsets[:-1][np.diff(self.offsets) == 1]]).tobytes()

    @cached_property
    def trie(self) -> Trie:
        """All tokens that have bytes."""
        return build_trie(self._pieces, np.flatnonzero(np.diff(self.offsets)).tolist())

    @cached_property
    def num_plain_characters(self) -> npt.NDArray[np.int32]:
        """[size] of how many characters a token is made; 0 if they are not whole, or one is a quote, a backslash or a
        control."""
        return np.array([num_plain_characters(piece) for piece in self._pieces], dtype=np.int32)

    @cached_property
    def trie_without_plain(self) -> Trie:
        """All tokens that have bytes and are not plain."""
        return build_trie(
            self._pieces, np.flatnonzero(np.diff(self.offsets) * (self.num_plain_characters == 0)).tolist()
        )
