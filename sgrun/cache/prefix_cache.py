"""Owns what a running sequence borrows of the cache: shared pages under a lock, own pages to write, and the copy of a
partly filled shared page. Knows nothing of scheduling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sgrun.cache.page_pool import PagePool
from sgrun.cache.radix_tree import Node, RadixTree


@dataclass(slots=True)
class Lease:
    """The pages of one running sequence. `pages` is its page table; those in `owned` it allocated and alone writes;
    the others belong to the path of `node`, which is locked. `cached_len` tokens were there when it was acquired."""

    node: Node
    cached_len: int
    pages: list[int]
    cache_salt: str
    owned: list[int] = field(default_factory=list)
    shares_tail: bool = False  # the last page is shared and only partly filled: copied before the first write


@dataclass(frozen=True, slots=True)
class SlotCopy:
    """The first `num_tokens` tokens of page `src` are to be copied to page `dst`, in the step that follows."""

    src: int
    dst: int
    num_tokens: int


class PrefixCache:
    """Page pool and radix tree together, for one pool tensor of `num_pages` pages of `page_size` tokens."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.page_size = page_size
        self.pool = PagePool(num_pages)
        self.tree = RadixTree(self.pool, page_size)
        self.num_evicted_pages = 0

    def reserve(self, num_pages: int) -> bool:
        """Evicts until `num_pages` pages are free; False if that cannot be reached."""
        shortage = num_pages - self.pool.num_free
        if shortage > 0:
            self.num_evicted_pages += self.tree.evict(shortage)
        return self.pool.num_free >= num_pages

    def acquire(self, tokens: Sequence[int], limit: int, cache_salt: str = "") -> Lease:
        """Locks the longest cached prefix of at most `limit` tokens."""
        match = self.tree.match_prefix(tokens, limit, cache_salt)
        self.tree.lock(match.node)
        shares_tail = match.length % self.page_size != 0
        return Lease(match.node, match.length, match.pages, cache_salt, shares_tail=shares_tail)

    def pages_to_grow(self, lease: Lease, length: int) -> int:
        """How many pages `grow` to `length` tokens allocates."""
        num_new = -(-length // self.page_size) - len(lease.pages)
        return max(num_new, 0) + lease.shares_tail

    def grow(self, lease: Lease, length: int) -> SlotCopy | None:
        """Gives the lease room for `length` tokens, from pages that `reserve` has freed. Returns the copy that the
        next step must make before it writes, if the lease ended in a partly filled shared page."""
        added = self.pool.allocate(self.pages_to_grow(lease, length))
        lease.owned.extend(added)
        copy = None
        if lease.shares_tail:
            copy = SlotCopy(lease.pages[-1], added[0], lease.cached_len % self.page_size)
            lease.pages[-1] = added.pop(0)
            lease.shares_tail = False
        lease.pages.extend(added)
        return copy

    def publish(self, lease: Lease, tokens: Sequence[int], length: int) -> None:
        """Puts the lease's first `length` tokens into the tree, for others to share, and moves its lock to their end.
        Whoever matches them in a step reads pages that are written in that same step."""
        node = self.tree.insert(tokens, length, lease.pages, lease.cache_salt)
        self.tree.lock(node)
        self.tree.unlock(lease.node)
        lease.node = node

    def release(self, lease: Lease) -> None:
        """Ends the lease. Pages that are not in the tree become free."""
        self.tree.unlock(lease.node)
        self.pool.release(lease.owned)
        lease.owned = []

    def discard(self, lease: Lease) -> None:
        """Takes out of the tree all that this lease published beyond what it had found: its values are not valid."""
        self.tree.discard(lease.node, lease.cached_len)

    def flush(self) -> int:
        """Evicts everything that nobody holds; returns the number of pages freed."""
        num_freed = self.tree.evict(self.pool.num_pages)
        self.num_evicted_pages += num_freed
        return num_freed

    def check_invariant(self, leases: Iterable[Lease]) -> tuple[int, int, int]:
        """Asserts that free + cached + held pages = all pages, that counts are exact, and that no page has two
        writers. Returns (free, cached, held). Walks everything: for tests and the debug flag."""
        refs = [0] * self.pool.num_pages
        held: set[int] = set()
        for lease in leases:
            assert not set(lease.owned) & held, f"pages with two writers: {set(lease.owned) & held}"
            assert set(lease.owned) <= set(lease.pages), "an owned page is missing from its page table"
            held.update(lease.owned)
            for page in lease.owned:
                refs[page] += 1
        for lease in leases:
            held.update(lease.pages)
        cached: set[int] = set()
        for node in self.tree.nodes():
            cached.update(node.pages)
            for page in node.pages:
                refs[page] += 1
            if node.parent is not None:
                assert node.start == node.parent.end and node.tokens, f"gap in the tree at {node.start}"
                assert node.parent.children[node.tokens[0]] is node
                num_pages = -(-node.end // self.page_size) - node.start // self.page_size
                assert len(node.pages) == num_pages, f"{len(node.pages)} pages for [{node.start}, {node.end})"
        assert refs == self.pool.refs, "reference counts differ from holders"
        free = self.pool.free_pages()
        num_cached = len(cached - held)
        assert len(set(free)) == len(free) and not set(free) & (held | cached), "a free page is in use"
        total = len(free) + num_cached + len(held)
        assert total == self.pool.num_pages, f"{len(free)} free + {num_cached} cached + {len(held)} held != all"
        return len(free), num_cached, len(held)
