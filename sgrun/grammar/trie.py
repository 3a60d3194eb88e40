"""Tokens as a trie in flat arrays, and which parts of it are plain text."""

from __future__ import annotations

import builtins
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]

# Plain characters: all but quotes, backslashes and control characters. Places of an automaton where text is free, as
# in JSON strings, take all of them or next to none, so that what goes on with them alone need not be walked.
_NOT_PLAIN = re.compile(rb'[\x00-\x1f"\\]')
_CONTINUATIONS = bytes(range(0x80, 0xC0))


@dataclass(frozen=True, eq=False, slots=True)
class Trie:
    """Node 0 is the root; nodes are numbered level by level, those of one parent together, in the order of their bytes.

    The tokens at a node and below it are `tokens[first_place : first_place + num_places]`, its own first.
    """

    bytes: npt.NDArray[np.uint8]  # [num_nodes] on the edge from the parent
    first_child: Ints  # [num_nodes]
    num_children: Ints  # [num_nodes]
    token: Ints  # [num_nodes] the first token that ends here, -1 if none does
    first_place: Ints  # [num_nodes]
    num_places: Ints  # [num_nodes]
    is_plain_below: npt.NDArray[np.bool_]  # [num_nodes] whether all tokens go on from here with plain characters alone
    tokens: Ints  # [num_tokens] sorted by their bytes; of those with the same bytes the first
    twins: Ints  # [num_twins, 2] a token, and the first one with the same bytes

    def goes_on_after(self, data: builtins.bytes) -> bool:
        """Whether a token begins with `data` and is longer."""
        node = 0
        for byte in data:
            first, last = int(self.first_child[node]), int(self.first_child[node] + self.num_children[node])
            node = first + int(np.searchsorted(self.bytes[first:last], byte))
            if node == last or self.bytes[node] != byte:
                return False
        return bool(self.num_children[node])


def build_trie(pieces: Sequence[builtins.bytes], token_ids: Collection[int]) -> Trie:
    """The trie of the given tokens, which have bytes; `pieces[i]` are those of token i."""
    first_of: dict[builtins.bytes, int] = {}
    for token_id in sorted(token_ids):
        first_of.setdefault(pieces[token_id], token_id)
    twins = [(i, first_of[pieces[i]]) for i in token_ids if first_of[pieces[i]] != i]
    sorted_pieces = sorted(first_of)
    text = np.frombuffer(b"".join(sorted_pieces), dtype=np.uint8)
    lengths = np.array([len(piece) for piece in sorted_pieces], dtype=np.int64)
    offsets = np.cumsum(lengths) - lengths
    plain_from = np.array([_plain_from(piece) for piece in sorted_pieces], dtype=np.int64)
    tokens = np.array([first_of[piece] for piece in sorted_pieces], dtype=np.int32)

    # Level by level: the tokens that are at least so long, in order, fall into one run for each node.
    levels = [_root(len(tokens))]
    places = np.arange(len(tokens))
    nodes = np.zeros(len(tokens), dtype=np.int64)
    num_nodes = depth = 1
    while places.size:
        edges = text[offsets[places] + depth - 1]
        keys = nodes[places] * 256 + edges
        is_start = np.ones(places.size, dtype=np.bool_)
        is_start[1:] = keys[1:] != keys[:-1]
        starts = np.flatnonzero(is_start)
        is_end = lengths[places] == depth
        following = text[np.where(is_end, 0, offsets[places] + depth)]
        is_other = ~is_end & ((plain_from[places] > depth) | (following & 0xC0 == 0x80))
        levels.append(
            (
                nodes[places[starts]],
                edges[starts],
                np.where(is_end[starts], tokens[places[starts]], -1),
                places[starts],
                np.diff(starts, append=places.size),
                ~np.logical_or.reduceat(is_other, starts),
            )
        )
        nodes[places] = num_nodes + np.cumsum(is_start) - 1
        num_nodes += len(starts)
        places = places[~is_end]
        depth += 1
    parents, edges, token, first_place, num_places, is_plain_below = map(np.concatenate, zip(*levels, strict=True))
    num_children = np.bincount(parents[1:], minlength=num_nodes)
    return Trie(
        bytes=edges,
        first_child=(1 + np.cumsum(num_children) - num_children).astype(np.int32),
        num_children=num_children.astype(np.int32),
        token=token.astype(np.int32),
        first_place=first_place.astype(np.int32),
        num_places=num_places.astype(np.int32),
        is_plain_below=is_plain_below,
        tokens=tokens,
        twins=np.array(twins, dtype=np.int32).reshape(-1, 2),
    )


def num_plain_characters(data: builtins.bytes) -> int:
    """Of how many characters a token is made if they are whole and plain; otherwise 0."""
    return len(data.decode()) if _plain_from(data) == 0 else 0


def _root(num_tokens: int) -> tuple[npt.NDArray[Any], ...]:
    columns = (0, 0, -1, 0, num_tokens, False)
    dtypes = (np.int64, np.uint8, np.int32, np.int64, np.int64, np.bool_)
    return tuple(np.array([value], dtype=dtype) for value, dtype in zip(columns, dtypes, strict=True))


def _plain_from(data: builtins.bytes) -> int:
    """The first place from which a token has whole plain characters only; its length if it does not end in one."""
    start = max((match.end() for match in _NOT_PLAIN.finditer(data)), default=0)
    rest = data[start:].lstrip(_CONTINUATIONS)
    try:
        rest.decode()
    except UnicodeDecodeError:
        return len(data)
    return len(data) - len(rest)
