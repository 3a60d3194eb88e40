"""The bytes of every token of a tokenizer, flat for a device and as tries for the host."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sgrun.errors import InvalidParameterError
from sgrun.grammar.masks import MaskCache

DEFAULT_MASK_BYTES = 64 * 2**20

# Tokens of whole characters other than quotes, backslashes and control characters: JSON strings, and most texts that
# are free to say anything, take all of them or next to none.
_PLAIN = re.compile(rb'[^\x00-\x1f"\\]+')


@dataclass(frozen=True, eq=False, slots=True)
class Trie:
    """Tokens by their bytes. Node 0 is the root; nodes are numbered level by level, those of one parent together, in
    the order of their bytes."""

    bytes: npt.NDArray[np.uint8]  # [num_nodes] on the edge from the parent
    first_child: npt.NDArray[np.int32]  # [num_nodes]
    num_children: npt.NDArray[np.int32]  # [num_nodes]
    token: npt.NDArray[np.int32]  # [num_nodes] the first token that ends here, -1 if none does
    twins: npt.NDArray[np.int32]  # [num_twins, 2] a token, and the first token with the same bytes


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
        pieces = [data or b"" for data in token_bytes]
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
        return self.flat[self.offsets[token_id] : self.offsets[token_id + 1]].tobytes()

    def begins_longer_token(self, data: bytes) -> bool:
        """Whether a token begins with `data` and goes on after it."""
        node, trie = 0, self.trie
        for byte in data:
            first, last = int(trie.first_child[node]), int(trie.first_child[node] + trie.num_children[node])
            node = first + int(np.searchsorted(trie.bytes[first:last], byte))
            if node == last or trie.bytes[node] != byte:
                return False
        return bool(trie.num_children[node])

    @cached_property
    def trie(self) -> Trie:
        """All tokens that have bytes."""
        return self._trie(np.diff(self.offsets) > 0)

    @cached_property
    def num_plain_characters(self) -> npt.NDArray[np.int32]:
        """[size] of how many characters a token is made; 0 if they are not whole, or one is a quote, a backslash or a
        control."""
        return np.array([_num_plain_characters(self.token(i)) for i in range(self.size)], dtype=np.int32)

    @cached_property
    def trie_without_plain(self) -> Trie:
        """All tokens that have bytes and are not plain."""
        return self._trie((np.diff(self.offsets) > 0) & (self.num_plain_characters == 0))

    def _trie(self, is_in: npt.NDArray[np.bool_]) -> Trie:
        lengths = np.diff(self.offsets)
        nodes = np.zeros(self.size, dtype=np.int64)
        parents, edges = [np.zeros(1, dtype=np.int64)], [np.zeros(1, dtype=np.uint8)]
        num_nodes = 1
        longer = np.flatnonzero(is_in)
        while longer.size:
            keys = nodes[longer] * 256 + self.flat[self.offsets[longer] + len(parents) - 1]
            found, inverse = np.unique(keys, return_inverse=True)
            nodes[longer] = num_nodes + inverse
            parents.append(found // 256)
            edges.append((found % 256).astype(np.uint8))
            num_nodes += len(found)
            longer = longer[lengths[longer] >= len(parents)]
        return _with_tokens(np.concatenate(parents), np.concatenate(edges), np.where(is_in, nodes, 0))


def _with_tokens(parents: npt.NDArray[np.int64], edges: npt.NDArray[np.uint8], nodes: npt.NDArray[np.int64]) -> Trie:
    """`nodes` [size]: where each token ends, 0 for those that are left out."""
    num_children = np.bincount(parents[1:], minlength=len(parents)).astype(np.int32)
    first_child = (1 + np.cumsum(num_children) - num_children).astype(np.int32)
    token = np.full(len(parents), -1, dtype=np.int32)
    ids = np.flatnonzero(nodes)
    token[nodes[ids[::-1]]] = ids[::-1]  # of several the lowest, which is written last
    first = token[nodes[ids]]
    twins = np.stack([ids, first], axis=1)[ids != first].astype(np.int32)
    return Trie(edges, first_child, num_children, token, twins)


def _num_plain_characters(data: bytes) -> int:
    if not _PLAIN.fullmatch(data):
        return 0
    try:
        return len(data.decode())
    except UnicodeDecodeError:
        return 0
