"""The bytes of every token of a tokenizer, flat for a device and as a trie for the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False, slots=True)
class TrieLevel:
    """The nodes at one depth of the trie of all tokens. Node ids run on from level to level; the root is node 0."""

    first_node: int
    parents: npt.NDArray[np.int64]  # [num_nodes] node id, in the level above
    bytes: npt.NDArray[np.uint8]  # [num_nodes] the byte on the edge from the parent


class Vocabulary:
    """Token id -> bytes. None stands for a token that never matches text: special tokens, padding ids.

    `flat` [num_bytes] uint8 holds all tokens one after the other; token i is flat[offsets[i]:offsets[i + 1]].
    Tokens without bytes are never allowed by a mask. `num_words` is the length of a mask in int32 words.
    """

    def __init__(self, token_bytes: Sequence[bytes | None]) -> None:
        pieces = [data or b"" for data in token_bytes]
        self.size = len(pieces)
        self.num_words = (self.size + 31) // 32
        self.flat: npt.NDArray[np.uint8] = np.array(bytearray(b"".join(pieces)), dtype=np.uint8)
        self.offsets: npt.NDArray[np.int32] = np.zeros(self.size + 1, dtype=np.int32)
        np.cumsum([len(piece) for piece in pieces], out=self.offsets[1:])

    def token(self, token_id: int) -> bytes:
        """The bytes of one token; empty for a token that never matches text."""
        return self.flat[self.offsets[token_id] : self.offsets[token_id + 1]].tobytes()

    @cached_property
    def trie(self) -> tuple[list[TrieLevel], npt.NDArray[np.int64]]:
        """The levels of the trie below the root, and the node of each token [size] (0 for tokens without bytes)."""
        lengths = np.diff(self.offsets)
        token_nodes = np.zeros(self.size, dtype=np.int64)
        levels: list[TrieLevel] = []
        num_nodes = 1
        longer = np.flatnonzero(lengths > 0)
        while longer.size:
            depth = len(levels)
            keys = token_nodes[longer] * 256 + self.flat[self.offsets[longer] + depth]
            nodes, inverse = np.unique(keys, return_inverse=True)
            token_nodes[longer] = num_nodes + inverse
            levels.append(TrieLevel(num_nodes, nodes // 256, (nodes % 256).astype(np.uint8)))
            num_nodes += len(nodes)
            longer = longer[lengths[longer] > depth + 1]
        return levels, token_nodes
