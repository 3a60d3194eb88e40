"""How given JSON texts are spelled: raw or with \\u escapes, as `json.dumps` does either."""

from __future__ import annotations

import json
from collections.abc import Sequence

TrieNode = tuple[dict[int, int], int | None, frozenset[int]]


def spellings(text: str) -> set[bytes]:
    """The contents between the quotes."""
    return {json.dumps(text, ensure_ascii=ascii_)[1:-1].encode() for ascii_ in (True, False)}


def spelling_trie(names: Sequence[str]) -> list[TrieNode]:
    """Nodes of (children by byte, the name that ends here, the names at or below); node 0 is the root."""
    children: list[dict[int, int]] = [{}]
    ended: list[int | None] = [None]
    below: list[set[int]] = [set()]
    for number, name in enumerate(names):
        for spelling in spellings(name):
            node = 0
            below[0].add(number)
            for byte in spelling:
                if byte not in children[node]:
                    children[node][byte] = len(children)
                    children.append({})
                    ended.append(None)
                    below.append(set())
                node = children[node][byte]
                below[node].add(number)
            ended[node] = number
    return [(children[node], ended[node], frozenset(below[node])) for node in range(len(children))]
