"""The radix tree against hand-written cases, and against a naive model under random operations."""

import random

import pytest

from sgrun.cache.page_pool import PagePool
from sgrun.cache.prefix_cache import Lease, PrefixCache
from sgrun.cache.radix_tree import RadixTree


def make_tree(num_pages: int = 64, page_size: int = 4) -> RadixTree:
    return RadixTree(PagePool(num_pages), page_size)


def insert(tree: RadixTree, tokens: list[int], pages: list[int] | None = None) -> list[int]:
    """Inserts as a sequence does that allocates all its pages and then ends."""
    own = tree.pool.allocate(-(-len(tokens) // tree.page_size)) if pages is None else pages
    tree.insert(tokens, len(tokens), own)
    if pages is None:
        tree.pool.release(own)
    return own


def test_match_ends_at_the_token_where_texts_diverge() -> None:
    tree = make_tree()
    pages = insert(tree, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    match = tree.match_prefix([1, 2, 3, 4, 5, 6, 99], limit=7)
    assert (match.length, match.pages) == (6, pages[:2])
    assert tree.match_len([1, 2, 3, 4, 5, 6, 99]) == 6
    assert tree.match_prefix([7], limit=1).length == 0


def test_match_is_no_longer_than_its_limit() -> None:
    tree = make_tree()
    insert(tree, list(range(10)))
    assert tree.match_prefix(list(range(10)), limit=9).length == 9
    assert tree.match_prefix(list(range(10)), limit=0).length == 0


def test_page_table_takes_the_diverging_sequences_own_copy_of_a_partly_shared_page() -> None:
    tree = make_tree()
    first = insert(tree, [1, 2, 3, 4, 5, 6])
    second = insert(tree, [1, 2, 3, 4, 5, 7, 8, 9])
    assert tree.match_prefix([1, 2, 3, 4, 5, 7, 8, 9], limit=8).pages == [first[0], second[1]]
    assert tree.match_prefix([1, 2, 3, 4, 5, 6], limit=6).pages == first


def test_split_keeps_locks_on_the_lower_part_and_both_page_lists() -> None:
    tree = make_tree()
    pages = insert(tree, list(range(10)))
    locked = tree.match_prefix(list(range(10)), limit=10).node
    tree.lock(locked)
    upper = tree.match_prefix([0, 1, 2, 3, 4, 5], limit=6)
    assert locked.lock_ref == 1 and upper.node.lock_ref == 0
    assert locked.parent is upper.node and (locked.start, locked.end) == (6, 10)
    assert upper.pages == pages[:2] and tree.page_table(locked) == pages
    assert tree.pool.refs[pages[1]] == 2  # listed above and below the split


def test_evict_takes_the_least_recently_used_leaf_first_from_its_end() -> None:
    tree = make_tree(num_pages=8)
    insert(tree, [1] * 8)
    insert(tree, [2] * 8)
    tree.match_prefix([1] * 8, limit=8)
    assert tree.evict(1) == 1
    assert tree.match_len([2] * 8) == 4 and tree.match_len([1] * 8) == 8
    assert tree.evict(2) == 2
    assert tree.match_len([2] * 8) == 0 and tree.match_len([1] * 8) == 4


def test_evict_skips_locked_nodes_and_all_above_them() -> None:
    tree = make_tree()
    insert(tree, [1, 2, 3, 4, 5, 6, 7, 8])
    insert(tree, [1, 2, 3, 4, 9, 9, 9, 9])
    locked = tree.match_prefix([1, 2, 3, 4, 5, 6, 7, 8], limit=8).node
    tree.lock(locked)
    assert tree.evict(100) == 1
    assert tree.match_len([1, 2, 3, 4, 5, 6, 7, 8]) == 8 and tree.match_len([1, 2, 3, 4, 9]) == 4
    tree.unlock(locked)
    assert tree.evict(100) == 2
    assert tree.pool.num_free == 64


def test_salts_do_not_see_each_other() -> None:
    tree = make_tree()
    pages = tree.pool.allocate(1)
    tree.insert([1, 2, 3], 3, pages, "a")
    assert tree.match_len([1, 2, 3], "a") == 3 and tree.match_len([1, 2, 3], "b") == 0
    assert tree.match_len([1, 2, 3]) == 0


def test_discard_removes_the_path_from_a_position_on_and_frees_its_pages() -> None:
    tree = make_tree()
    insert(tree, list(range(8)))
    node = tree.match_prefix(list(range(4)), limit=4).node
    below = tree.match_prefix(list(range(8)), limit=8).node
    tree.discard(below, 4)
    assert tree.match_len(list(range(8))) == 4
    assert tree.is_detached(below) and not tree.is_detached(node)
    assert tree.pool.num_free == 63


def test_double_release_is_an_error() -> None:
    pool = PagePool(2)
    pages = pool.allocate(1)
    pool.release(pages)
    with pytest.raises(AssertionError, match="released"):
        pool.release(pages)


class NaiveCache:
    """What the tree must agree with: every cached (salt, prefix) written out, and what each page place holds."""

    def __init__(self) -> None:
        self.prefixes: set[tuple[str, tuple[int, ...]]] = set()
        self.places: dict[tuple[int, int], int] = {}  # (page, offset) -> token

    def write(self, lease: Lease, tokens: list[int], start: int, end: int, page_size: int) -> None:
        for position in range(start, end):
            page = lease.pages[position // page_size]
            assert page in lease.owned, f"position {position} is written to a page of someone else"
            self.places[page, position % page_size] = tokens[position]


def read(naive: NaiveCache, pages: list[int], length: int, page_size: int) -> list[int]:
    return [naive.places[pages[i // page_size], i % page_size] for i in range(length)]


@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_random_operations_agree_with_a_naive_model(page_size: int, num_operations: int = 2500) -> None:
    """Leases of random texts over three token values, so that they share and diverge at every offset: what a page
    table points to is always the lease's own text, whatever is copied, published, evicted or discarded meanwhile."""
    rng = random.Random(page_size)
    cache = PrefixCache(num_pages=160 // page_size, page_size=page_size)
    naive = NaiveCache()
    active: list[tuple[Lease, list[int], int]] = []  # lease, tokens, how many are computed
    for _ in range(num_operations):
        action = rng.choice(["open", "open", "grow", "grow", "finish", "flush", "discard"])
        if action == "open":
            tokens = [rng.randrange(3) for _ in range(rng.randint(1, 40))]
            salt = rng.choice(["", "x"])
            lease = cache.acquire(tokens, len(tokens) - 1, salt)
            assert read(naive, lease.pages, lease.cached_len, page_size) == tokens[: lease.cached_len]
            if not cache.reserve(cache.pages_to_grow(lease, len(tokens))):
                cache.release(lease)
            else:
                active.append((lease, tokens, compute(cache, naive, lease, tokens, lease.cached_len)))
        elif action == "grow" and active:
            index = rng.randrange(len(active))
            lease, tokens, num_computed = active[index]
            tokens = tokens + [rng.randrange(3) for _ in range(rng.randint(1, 6))]
            if cache.reserve(cache.pages_to_grow(lease, len(tokens))):
                active[index] = (lease, tokens, compute(cache, naive, lease, tokens, num_computed))
        elif action == "finish" and active:
            lease, tokens, num_computed = active.pop(rng.randrange(len(active)))
            keep = rng.randint(lease.cached_len, num_computed)
            cache.publish(lease, tokens, keep)
            assert cache.tree.match_len(tokens[:keep], lease.cache_salt) == keep
            cache.release(lease)
        elif action == "discard" and active and rng.random() < 0.2:
            lease, tokens, num_computed = active.pop(rng.randrange(len(active)))
            cache.publish(lease, tokens, num_computed)
            cache.discard(lease)
            cache.release(lease)
            for other in [entry for entry in active if cache.tree.is_detached(entry[0].node)]:
                cache.release(other[0])
                active.remove(other)
        elif action == "flush" and rng.random() < 0.2:
            cache.flush()
        for lease, tokens, num_computed in active:
            assert read(naive, lease.pages, num_computed, page_size) == tokens[:num_computed]
        cache.check_invariant([lease for lease, _, _ in active])
    for lease, _, _ in active:
        cache.release(lease)
    cache.flush()
    assert cache.check_invariant([]) == (160 // page_size, 0, 0)


def compute(cache: PrefixCache, naive: NaiveCache, lease: Lease, tokens: list[int], start: int) -> int:
    """What a step does: copies the shared tail, writes the new tokens; half of the time they are published first."""
    copy = cache.grow(lease, len(tokens))
    if len(tokens) % 2:
        cache.publish(lease, tokens, len(tokens))
    if copy is not None:
        for offset in range(copy.num_tokens):
            naive.places[copy.dst, offset] = naive.places[copy.src, offset]
    naive.write(lease, tokens, start, len(tokens), cache.page_size)
    return len(tokens)
