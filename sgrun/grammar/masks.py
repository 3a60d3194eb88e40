"""Which tokens may follow: the NumPy twin of the mask kernel, and the masks that are kept."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
import numpy.typing as npt

from sgrun.grammar.automaton import (
    CALL,
    COUNT,
    DEAD,
    MAX_DEPTH,
    MOVE,
    OP_BITS,
    OP_MASK,
    RESET,
    RETURN,
    RETURN_AFTER,
    Automaton,
)
from sgrun.grammar.walk import FAR, Cursor

if TYPE_CHECKING:
    from sgrun.grammar.trie import Trie
    from sgrun.grammar.vocabulary import Vocabulary

Bitmask = npt.NDArray[np.int32]  # [num_words], bit i % 32 of word i // 32 is 1 if token i is allowed
Ints = npt.NDArray[np.int32]
Frame = tuple[int, int]  # (site, counter)
Place = tuple[int, int]  # (context, state), see _Walk

_BOTTOM: Frame = (-1, 0)  # stands below the outermost frame, where a mask depends on there being no other
_WHOLE = "whole stack"  # marks a key with all frames, for masks that the bound on depth shapes
KEY_BYTES = 500  # of one entry of the cache, about
MANY = 200  # nodes at one place, so that it pays to ask whether their subtrees need a walk
_FEW = 1000  # so many keys are sorted faster than hashed
_NUM_BUCKETS = 1 << 16

# Plain characters (see trie.py) as sequences of byte ranges.
_TAIL = (0x80, 0xBF)
_PLAIN_CHARACTERS = (
    ((0x61, 0x61),),  # most states that take no free text are known by the first letter
    ((0x20, 0x21),),
    ((0x23, 0x5B),),
    ((0x5D, 0x7F),),
    ((0xC2, 0xDF), _TAIL),
    ((0xE0, 0xE0), (0xA0, 0xBF), _TAIL),
    ((0xE1, 0xEC), _TAIL, _TAIL),
    ((0xED, 0xED), (0x80, 0x9F), _TAIL),
    ((0xEE, 0xEF), _TAIL, _TAIL),
    ((0xF0, 0xF0), (0x90, 0xBF), _TAIL, _TAIL),
    ((0xF1, 0xF3), _TAIL, _TAIL, _TAIL),
    ((0xF4, 0xF4), (0x80, 0x8F), _TAIL, _TAIL),
)


def token_bitmask(automaton: Automaton, cursor: Cursor, vocabulary: Vocabulary) -> Bitmask:
    """The tokens whose bytes keep the automaton alive after `cursor`; tokens without bytes are never among them.

    Returns [num_words] int32.
    """
    return _mask(_Walk(automaton, cursor, vocabulary.max_token_len), vocabulary)


class MaskCache:
    """Masks over one vocabulary, least recently used first out. May be used from any thread.

    A mask is kept under no more than it depends on: the state, the counter where a token could meet a threshold, and
    as many frames as some token popped. Cursors that differ in the rest share it. Automata, which may be larger than
    all masks, are not kept alive; masks of those that are gone go when it is their turn.
    """

    def __init__(self, vocabulary: Vocabulary, max_bytes: int) -> None:
        self._vocabulary = vocabulary
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0

    def get(self, automaton: Automaton, cursor: Cursor) -> Bitmask:
        """The mask at `cursor`, read-only; computed on first use."""
        state, counter, stack = cursor
        num_bytes = self._vocabulary.max_token_len
        counter = automaton.thresholds.counter(state, counter, num_bytes)
        name = ref(automaton)
        room = MAX_DEPTH - len(stack)
        with self._lock:
            frames: tuple[Frame, ...] = ()
            while True:
                kept = self._find((name, state, counter, frames))
                if kept is None or kept.mask is not None:
                    break
                frames = (*frames, self._frame(automaton, stack, len(frames)))
            if kept is None or kept.num_pushed > room:
                kept = self._find((name, state, counter, stack, _WHOLE))
        if kept is not None and kept.mask is not None:
            return kept.mask
        return self._compute(automaton, Cursor(state, counter, stack))

    def _compute(self, automaton: Automaton, cursor: Cursor) -> Bitmask:
        """Marks how far down the stack the mask's key goes, as one key after the other."""
        walk = _Walk(automaton, cursor, self._vocabulary.max_token_len)
        mask = _mask(walk, self._vocabulary)
        mask.flags.writeable = False
        name = ref(automaton)
        state, counter, stack = cursor
        with self._lock:
            if walk.is_cut:
                self._keep((name, state, counter, stack, _WHOLE), _Kept(mask, 0))
                return mask
            frames: tuple[Frame, ...] = ()
            for depth in range(walk.num_popped):
                self._keep((name, state, counter, frames), _Kept(None, 0))
                frames = (*frames, self._frame(automaton, stack, depth))
            self._keep((name, state, counter, frames), _Kept(mask, walk.num_pushed))
        return mask

    def _frame(self, automaton: Automaton, stack: tuple[Frame, ...], depth: int) -> Frame:
        """The frame below `depth` others, its counter as far as it matters."""
        if depth == len(stack):
            return _BOTTOM
        return automaton.thresholds.waiting(stack[-1 - depth], self._vocabulary.max_token_len)

    def _find(self, key: tuple[object, ...]) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def _keep(self, key: tuple[object, ...], kept: _Kept) -> None:
        previous = self._kept.pop(key, None)
        if previous is not None:
            self.size_bytes -= previous.size_bytes
        self._kept[key] = kept
        self.size_bytes += kept.size_bytes
        while self.size_bytes > self._max_bytes:
            _, evicted = self._kept.popitem(last=False)
            self.size_bytes -= evicted.size_bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    """None: the mask depends on the next frame too. `num_pushed`: the most frames that a token puts on the stack."""

    mask: Bitmask | None
    num_pushed: int

    @property
    def size_bytes(self) -> int:
        return KEY_BYTES + (0 if self.mask is None else self.mask.nbytes)


def _mask(walk: _Walk, vocabulary: Vocabulary) -> Bitmask:
    allowed = np.zeros(vocabulary.num_words * 32, dtype=np.bool_)
    num_chars = walk.num_plain_characters(walk.start_context, walk.start_state)
    if num_chars is None:
        walk.run(vocabulary.trie, allowed)
    else:
        walk.run(vocabulary.trie_without_plain, allowed)
        plain = vocabulary.num_plain_characters
        allowed[: vocabulary.size] |= (plain > 0) & (plain <= num_chars)
    return np.packbits(allowed, bitorder="little").view("<i4")


@functools.lru_cache(maxsize=256)
def _plain_columns(classes: bytes) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The characters of plain tokens as sequences of byte classes, the same only once."""
    found = {
        tuple(tuple(sorted(set(classes[low : high + 1]))) for low, high in ranges): None for ranges in _PLAIN_CHARACTERS
    }
    return tuple(found)


class _Walk:
    """All tokens through the automaton at once, from one cursor.

    Where a token stands is (state, context): a context is a counter with a stack, by number, and a stack is a frame on
    another stack, by number. Stacks 0, 1, ... are the cursor's own with that many frames popped. `num_popped`: how
    many of those some token took off, 1 more than there are if it asked for another. `num_pushed`: the most frames
    that a token had on top of them. `is_cut`: a token met the bound on depth.
    """

    def __init__(self, automaton: Automaton, cursor: Cursor, max_token_len: int) -> None:
        self.classes = automaton.walker.classes
        self._automaton = automaton
        self._max_token_len = max_token_len
        self._sites, self._counts = automaton.walker.sites, automaton.walker.counts
        self._depth = len(cursor.stack)
        self._stacks: list[tuple[Frame, int]] = [
            (frame, popped + 1) for popped, frame in enumerate(reversed(cursor.stack))
        ]
        self._stacks.append((_BOTTOM, 0))
        self._depths = list(range(self._depth, -1, -1))
        self._stack_numbers: dict[tuple[Frame, int], int] = {}
        self._contexts: list[tuple[int, int]] = []
        self._context_numbers: dict[tuple[int, int], int] = {}
        self._steps: dict[tuple[int, int], tuple[int, int, bool]] = {}
        self._free: dict[Place, int | None] = {}
        self.num_popped = self.num_pushed = 0
        self.is_cut = False
        self.start_state = cursor.state
        self.start_context = self._context(self._counter(cursor.state, cursor.counter), 0)

    def run(self, trie: Trie, allowed: npt.NDArray[np.bool_]) -> None:
        """Sets the tokens of `trie` that keep the automaton alive, level by level, all nodes of a level at once."""
        table = self._automaton.table.reshape(-1)
        width = np.int32(self._automaton.table.shape[1])
        classes = self._automaton.byte_classes
        nodes = np.zeros(1, dtype=np.int32)
        states = np.array([self.start_state], dtype=np.int32)
        contexts = np.array([self.start_context], dtype=np.int32)
        borders = np.zeros(len(trie.tokens) + 1, dtype=np.int32)  # +1 where free runs of tokens begin, -1 after them
        while nodes.size:
            num_children = trie.num_children[nodes]
            ends = np.cumsum(num_children, dtype=np.int32)
            shift = trie.first_child[nodes] - ends + num_children
            nodes = np.repeat(shift, num_children) + np.arange(ends[-1], dtype=np.int32)
            columns = classes[trie.bytes[nodes]]
            entries = table[np.repeat(states * width, num_children) + columns]
            is_alive = entries != DEAD
            nodes, entries, columns = nodes[is_alive], entries[is_alive], columns[is_alive]
            contexts = np.repeat(contexts, num_children)[is_alive]
            states = entries >> OP_BITS
            others = np.flatnonzero(entries & OP_MASK != MOVE)
            if others.size:
                self._carry_out(others, entries, columns, states, contexts)
                is_alive = states != DEAD
                nodes, states, contexts = nodes[is_alive], states[is_alive], contexts[is_alive]
            tokens = trie.token[nodes]
            allowed[tokens[tokens >= 0]] = True
            if nodes.size > MANY or self._max_token_len in self._free.values():
                is_free = trie.is_plain_below[nodes] & self._are_free(contexts, states)
                free = nodes[is_free & (trie.num_children[nodes] > 0)]
                borders[trie.first_place[free]] += 1
                borders[trie.first_place[free] + trie.num_places[free]] -= 1
                nodes, states, contexts = nodes[~is_free], states[~is_free], contexts[~is_free]
        allowed[trie.tokens[np.cumsum(borders[:-1]) > 0]] = True
        allowed[trie.twins[:, 0]] = allowed[trie.twins[:, 1]]

    def _carry_out(
        self, places: npt.NDArray[np.int64], entries: Ints, columns: npt.NDArray[np.uint8], states: Ints, contexts: Ints
    ) -> None:
        """Carries out the entries at `places`, and those after them until the byte is consumed; changes `states` and
        `contexts` there."""
        table = self._automaton.table
        now = entries[places]
        while places.size:
            pairs, inverse = distinct(contexts[places].astype(np.int64) << 32 | now)
            outcomes = [self._carry_out_one(int(pair >> 32), int(pair & 0xFFFFFFFF)) for pair in pairs.tolist()]
            outcome = np.array(outcomes, dtype=np.int32)[inverse]
            contexts[places], states[places] = outcome[:, 0], outcome[:, 1]
            places = places[(outcome[:, 2] == 0) & (outcome[:, 1] != DEAD)]
            now = table[states[places], columns[places]]
            is_done = (now & OP_MASK) <= MOVE  # dead, or at the end of the byte
            states[places[is_done]] = now[is_done] >> OP_BITS
            places, now = places[~is_done], now[~is_done]

    def _are_free(self, contexts: Ints, states: Ints) -> npt.NDArray[np.bool_]:
        """[num_places] at which places text of plain characters may go on as it likes, for the length of a token."""
        places, inverse = distinct(contexts.astype(np.int64) << 32 | states)
        is_free = np.zeros(len(places), dtype=np.bool_)
        for number, num_nodes in enumerate(np.bincount(inverse).tolist()):
            place = int(places[number] >> 32), int(places[number] & 0xFFFFFFFF)
            if place in self._free or num_nodes > MANY:
                is_free[number] = self.num_plain_characters(*place) == self._max_token_len
        return is_free[inverse]

    def num_plain_characters(self, context: int, state: int) -> int | None:
        """How many plain characters may follow, whichever they are, up to the length of a token; None if it matters
        which."""
        place = context, state
        if place not in self._free:
            self._free[place] = self._count_plain_characters(place)
        return self._free[place]

    def _count_plain_characters(self, place: Place) -> int | None:
        for num_chars in range(self._max_token_len):
            following: set[Place] = set()
            for ranges in _plain_columns(self.classes):
                places = {place}
                for columns in ranges:
                    places = {after for before in places for after in self.steps(*before, columns)}
                following |= places
                if len(following) > 1:
                    return None
            (after,) = following
            if after[1] == DEAD:
                return num_chars
            if after == place:
                break
            place = after
        return self._max_token_len

    def steps(self, context: int, state: int, columns: tuple[int, ...]) -> set[Place]:
        """Where one byte of any of these classes leads; state 0 (in context 0) if it is refused."""
        walker = self._automaton.walker
        row = walker.entries[state * walker.width : (state + 1) * walker.width]
        found: set[Place] = set()
        for entry in {row[column] for column in columns}:
            if entry == DEAD:
                found.add((0, DEAD))
            elif entry & OP_MASK == MOVE:
                found.add((context, entry >> OP_BITS))
            else:
                after, target, is_consumed = self._carry_out_one(context, entry)
                if is_consumed or target == DEAD:
                    found.add((after, target))
                else:
                    found |= self.steps(after, target, tuple(column for column in columns if row[column] == entry))
        return found

    def _carry_out_one(self, context: int, entry: int) -> tuple[int, int, bool]:
        """(context, state, whether the byte is consumed) after an entry other than a move."""
        known = self._steps.get((context, entry))
        if known is not None:
            return known
        counter, stack = self._contexts[context]
        op, argument = entry & OP_MASK, entry >> OP_BITS
        state = DEAD
        if op == CALL:
            state = self._sites[argument][0]
            stack = self._push((argument, counter), stack)
            counter = self._counter(state, 0)
            state = DEAD if stack < 0 else state
        elif op in (RETURN, RETURN_AFTER):
            if stack <= self._depth:
                self.num_popped = max(self.num_popped, stack + 1)
            (site, counter), stack = self._stacks[stack]
            state = DEAD if site < 0 else self._sites[site][1 + argument]
            counter = self._counter(state, counter)
        elif op == COUNT:
            threshold, below, reached = self._counts[argument]
            is_reached = counter + 1 == threshold and counter != FAR
            counter = min(counter + 1, FAR)
            state = reached if is_reached else below
        elif op == RESET:
            state = argument
            counter = self._counter(state, 0)
        after = self._context(counter, stack) if state != DEAD else 0
        outcome = self._steps[context, entry] = after, state, op in (RETURN_AFTER, RESET)
        return outcome

    def _counter(self, state: int, counter: int) -> int:
        return self._automaton.thresholds.counter(state, counter, self._max_token_len)

    def _context(self, counter: int, stack: int) -> int:
        key = (counter, stack)
        number = self._context_numbers.get(key)
        if number is None:
            number = self._context_numbers[key] = len(self._contexts)
            self._contexts.append(key)
        return number

    def _push(self, frame: Frame, below: int) -> int:
        """The number of the stack, -1 if it would be too deep."""
        depth = self._depths[below] + 1
        if depth > MAX_DEPTH:
            self.is_cut = True
            return -1
        self.num_pushed = max(self.num_pushed, depth - self._depth)
        key = (frame, below)
        number = self._stack_numbers.get(key)
        if number is None:
            number = self._stack_numbers[key] = len(self._stacks)
            self._stacks.append(key)
            self._depths.append(depth)
        return number


def distinct(keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """As np.unique with the inverse; by hashing where there are many, most of them equal."""
    if keys.size > _FEW:
        buckets = _buckets(keys)
        table = np.empty(_NUM_BUCKETS, dtype=np.int64)
        table[buckets] = keys
        if (table[buckets] == keys).all():
            is_used = np.zeros(_NUM_BUCKETS, dtype=np.bool_)
            is_used[buckets] = True
            used = np.flatnonzero(is_used)
            numbers = np.empty(_NUM_BUCKETS, dtype=np.int64)
            numbers[used] = np.arange(used.size)
            return table[used], numbers[buckets]
    distinct, inverse = np.unique(keys, return_inverse=True)
    return distinct, inverse


def _buckets(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    mixed = (keys ^ keys >> 27) * np.int64(0x1E3779B97F4A7C15)  # the odd number spreads neighbours; it may overflow
    return (mixed >> np.int64(40)) & (_NUM_BUCKETS - 1)
