"""Owns the tree from token ids to pages: match, insert, split, lock, evict. Knows nothing of sequences or tensors.

A node covers token positions [start, end) of every text that runs through it and lists the pages of the page indices
start // page_size ... (end - 1) // page_size. A boundary inside a page is allowed: then the node above and the node
below both list a page for that index. Of a path, the deepest listing of an index holds all tokens up to the path's end:
after a split it is the same page, after a divergence it is the copy that the diverging sequence made.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgrun.cache.page_pool import PagePool


class Node:
    """One edge of the tree with its tokens. `lock_ref` > 0 keeps it, and so all above it, from eviction."""

    __slots__ = ("children", "is_queued", "last_access", "lock_ref", "pages", "parent", "start", "tokens")

    def __init__(self, parent: Node | None, start: int, tokens: list[int], pages: list[int], now: int) -> None:
        self.parent = parent
        self.children: dict[int, Node] = {}
        self.start = start
        self.tokens = tokens
        self.pages = pages
        self.lock_ref = 0
        self.last_access = now
        self.is_queued = False

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Match:
    """The longest cached prefix: `length` tokens end exactly at `node`; `pages` is their page table."""

    node: Node
    length: int
    pages: list[int]


class RadixTree:
    """Prefix tree over token ids whose nodes hold pages of `pool`; one root for each `cache_salt`."""

    def __init__(self, pool: PagePool, page_size: int) -> None:
        self.pool = pool
        self.page_size = page_size
        self._roots: dict[str, Node] = {}
        self._clock = 0
        # Candidates for eviction, oldest first: (last_access when queued, tie break, node). Entries go stale when a
        # node is touched, locked or gets a child; they are put right when they come up.
        self._candidates: list[tuple[int, int, Node]] = []
        self._num_queued = 0

    def root(self, cache_salt: str = "") -> Node:
        root = self._roots.get(cache_salt)
        if root is None:
            root = self._roots[cache_salt] = Node(None, 0, [], [], self._clock)
            root.lock_ref = 1  # roots are never evicted
        return root

    def match_len(self, tokens: Sequence[int], cache_salt: str = "") -> int:
        """Length of the longest cached prefix, without touching the tree."""
        node, position = self.root(cache_salt), 0
        while position < len(tokens):
            child = node.children.get(tokens[position])
            if child is None:
                break
            shared = _common_prefix_len(child.tokens, tokens, position)
            position += shared
            if shared < len(child.tokens):
                break
            node = child
        return position

    def match_prefix(self, tokens: Sequence[int], limit: int, cache_salt: str = "") -> Match:
        """The longest cached prefix of at most `limit` tokens. Marks its path as used and splits the node in which it
        ends, so that the result ends at a node."""
        node = self._descend(tokens, limit, cache_salt)
        return Match(node, node.end, self.page_table(node))

    def insert(self, tokens: Sequence[int], length: int, pages: list[int], cache_salt: str = "") -> Node:
        """Makes tokens[:length] a path of the tree; what is new of it takes its pages from `pages`, the page table of
        these tokens. Returns the node at which the path ends."""
        node = self._descend(tokens, length, cache_salt)
        if node.end == length:
            return node
        first, last = node.end // self.page_size, -(-length // self.page_size)
        added = Node(node, node.end, list(tokens[node.end : length]), pages[first:last], self._clock)
        self.pool.retain(added.pages)
        node.children[added.tokens[0]] = added
        self._queue(added)
        return added

    def page_table(self, node: Node) -> list[int]:
        """The pages of the path that ends at `node`."""
        path = list(_path(node))
        table: list[int] = []
        for step in reversed(path):
            table[step.start // self.page_size :] = step.pages
        return table

    def lock(self, node: Node) -> None:
        node.lock_ref += 1

    def unlock(self, node: Node) -> None:
        assert node.lock_ref > 0, "unlock without lock"
        node.lock_ref -= 1
        self._queue(node)

    def evict(self, num_pages: int) -> int:
        """Frees up to `num_pages` pages, least recently used leaves first and each from its end; returns how many."""
        num_freed = 0
        while num_freed < num_pages and self._candidates:
            queued_access, _, node = heapq.heappop(self._candidates)
            node.is_queued = False
            if node.last_access != queued_access:
                self._queue(node)
            elif self._is_evictable(node):
                num_freed += self._trim(node, num_pages - num_freed)
        return num_freed

    def discard(self, node: Node, from_len: int) -> None:
        """Takes out of the tree what lies at or after position `from_len` on the path to `node`, and all below it.
        Nodes taken out have no parent; locks on them stay to be undone. `from_len` is a node boundary of the path."""
        top = None
        for step in _path(node):
            if step.start >= from_len and step.parent is not None:
                top = step
        if top is None:
            return
        assert top.parent is not None and top.start == from_len, f"{from_len} is not a boundary: {top.start}"
        del top.parent.children[top.tokens[0]]
        self._queue(top.parent)
        for gone in _subtree(top):
            gone.parent = None
            gone.children = {}
            self.pool.release(gone.pages)
            gone.pages = []

    def is_detached(self, node: Node) -> bool:
        return node.parent is None and bool(node.tokens)

    def nodes(self) -> Iterator[Node]:
        for root in self._roots.values():
            yield from _subtree(root)

    def _descend(self, tokens: Sequence[int], limit: int, cache_salt: str) -> Node:
        self._clock += 1
        node = self.root(cache_salt)
        while node.end < limit:
            child = node.children.get(tokens[node.end])
            if child is None:
                break
            shared = min(_common_prefix_len(child.tokens, tokens, child.start), limit - child.start)
            if shared < len(child.tokens):
                node = self._split(child, shared)
                node.last_access = self._clock
                break
            node = child
            node.last_access = self._clock
        return node

    def _split(self, node: Node, num_tokens: int) -> Node:
        """Puts the first `num_tokens` tokens of `node` into a new parent of it and returns that. The lower part stays
        the same object, so locks on it hold."""
        assert node.parent is not None and 0 < num_tokens < len(node.tokens)
        boundary = node.start + num_tokens
        first_page = node.start // self.page_size
        upper_pages = node.pages[: -(-boundary // self.page_size) - first_page]
        upper = Node(node.parent, node.start, node.tokens[:num_tokens], upper_pages, node.last_access)
        node.parent.children[upper.tokens[0]] = upper
        if boundary % self.page_size:
            self.pool.retain(upper_pages[-1:])
        node.parent = upper
        node.start = boundary
        node.tokens = node.tokens[num_tokens:]
        node.pages = node.pages[boundary // self.page_size - first_page :]
        upper.children[node.tokens[0]] = node
        return upper

    def _trim(self, node: Node, num_pages: int) -> int:
        """Drops pages from the end of a leaf until `num_pages` became free; an empty leaf leaves the tree."""
        num_freed = 0
        while node.pages and num_freed < num_pages:
            num_freed += self.pool.release([node.pages.pop()])
        keep = (node.start // self.page_size + len(node.pages)) * self.page_size - node.start
        if node.pages:
            del node.tokens[keep:]
            self._queue(node)
            return num_freed
        parent = node.parent
        assert parent is not None
        del parent.children[node.tokens[0]]
        node.parent = None
        self._queue(parent)
        return num_freed

    def _is_evictable(self, node: Node) -> bool:
        return node.lock_ref == 0 and not node.children and node.parent is not None

    def _queue(self, node: Node) -> None:
        if node.is_queued or not self._is_evictable(node):
            return
        node.is_queued = True
        self._num_queued += 1
        heapq.heappush(self._candidates, (node.last_access, self._num_queued, node))


def _common_prefix_len(edge: list[int], tokens: Sequence[int], start: int) -> int:
    """How many tokens of `edge` agree with tokens[start:]. Halves the range by slice comparison: a step of the
    interpreter for each doubling, not for each token."""
    low, high = 0, min(len(edge), len(tokens) - start)
    if edge[:high] == tokens[start : start + high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if edge[low:middle] == tokens[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low


def _path(node: Node) -> Iterator[Node]:
    step: Node | None = node
    while step is not None:
        yield step
        step = step.parent


def _subtree(node: Node) -> Iterator[Node]:
    stack = [node]
    while stack:
        step = stack.pop()
        stack.extend(step.children.values())
        yield step
