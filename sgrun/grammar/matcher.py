"""The host twin of the mask and advance kernels, and the cursor of one generation in its constraint."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from sgrun.grammar.automaton import DEAD, Automaton
from sgrun.grammar.vocabulary import Vocabulary

Bitmask = npt.NDArray[np.int32]  # [num_words], bit i % 32 of word i // 32 is 1 if token i is allowed

_ENDED = -1  # the cursor's state after an end token


def token_bitmask(automaton: Automaton, state: int, vocabulary: Vocabulary) -> Bitmask:
    """The tokens whose bytes lead from `state` to a live state; tokens without bytes are never among them.

    Returns [num_words] int32. Walks the trie of the vocabulary level by level, all nodes of a level at once.
    """
    levels, token_nodes = vocabulary.trie
    flat_table = automaton.transitions.reshape(-1)
    num_nodes = levels[-1].first_node + len(levels[-1].bytes) if levels else 1
    states = np.zeros(num_nodes, dtype=np.int32)
    states[0] = state
    for level in levels:
        cells = states[level.parents] * np.int32(automaton.num_classes) + automaton.byte_classes[level.bytes]
        reached = flat_table[cells]
        if not reached.any():
            break
        states[level.first_node : level.first_node + len(reached)] = reached
    states[0] = DEAD
    allowed = np.zeros(vocabulary.num_words * 32, dtype=np.bool_)
    allowed[: vocabulary.size] = states[token_nodes] != DEAD
    return np.packbits(allowed, bitorder="little").view("<i4")


def advance(automaton: Automaton, state: int, data: bytes) -> int:
    """The state after `data`; DEAD if the automaton refuses it."""
    for byte in data:
        state = int(automaton.transitions[state, automaton.byte_classes[byte]])
    return state


class MaskCache:
    """Masks by (automaton, vocabulary, state), least recently used first out. For one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._masks: OrderedDict[tuple[Automaton, Vocabulary, int], Bitmask] = OrderedDict()
        self.size_bytes = 0

    def get(self, automaton: Automaton, vocabulary: Vocabulary, state: int) -> Bitmask:
        """The mask of `state`, read-only; computed on first use."""
        key = (automaton, vocabulary, state)
        mask = self._masks.get(key)
        if mask is not None:
            self._masks.move_to_end(key)
            return mask
        mask = token_bitmask(automaton, state, vocabulary)
        mask.flags.writeable = False
        self._masks[key] = mask
        self.size_bytes += mask.nbytes
        while self.size_bytes > self._max_bytes:
            _, evicted = self._masks.popitem(last=False)
            self.size_bytes -= evicted.nbytes
        return mask


class GrammarMatcher:
    """Where one generation stands in its constraint. The state is opaque: callers ask, accept and roll back.

    An end token (one of `end_token_ids`) is allowed exactly where the text so far is a complete match; once it is
    accepted, nothing can follow.
    """

    def __init__(
        self, automaton: Automaton, vocabulary: Vocabulary, masks: MaskCache, end_token_ids: Collection[int] = ()
    ) -> None:
        self._automaton = automaton
        self._vocabulary = vocabulary
        self._masks = masks
        self._end_token_ids = frozenset(end_token_ids)
        self._states = [automaton.start]

    def bitmask(self) -> Bitmask:
        """The tokens that may come next, end tokens included: [num_words] int32, not to be written to."""
        text_mask = self._text_mask()
        if not self._end_token_ids:
            return text_mask
        ids = np.fromiter(self._end_token_ids, dtype=np.int64)
        end_bits = np.zeros(self._vocabulary.num_words, dtype=np.uint32)
        np.bitwise_or.at(end_bits, ids // 32, np.uint32(1) << (ids % 32).astype(np.uint32))
        end_mask = end_bits.view(np.int32)
        mask: Bitmask = text_mask | end_mask if self.is_accepting else text_mask & ~end_mask
        return mask

    def accept(self, token_id: int) -> bool:
        """Moves over one token; returns False, and stays where it is, if the constraint does not allow it."""
        state = self._after(token_id)
        if state == DEAD:
            return False
        self._states.append(state)
        return True

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a complete match (and no end token has been accepted)."""
        return self._state != _ENDED and bool(self._automaton.accepting[self._state])

    @property
    def is_finished(self) -> bool:
        """Whether the text so far is a complete match and no text can follow."""
        return self._state == _ENDED or (self.is_accepting and not self._text_mask().any())

    @property
    def is_dead_end(self) -> bool:
        """Whether the text so far is no complete match and no token of the vocabulary continues it."""
        return self._state != _ENDED and not self.is_accepting and not self.bitmask().any()

    def rollback(self, num_tokens: int) -> None:
        """Takes back the last `num_tokens` accepted tokens."""
        assert 0 <= num_tokens < len(self._states), (num_tokens, len(self._states) - 1)
        del self._states[len(self._states) - num_tokens :]

    def copy(self) -> GrammarMatcher:
        """A cursor at the same place that moves on its own."""
        twin = GrammarMatcher(self._automaton, self._vocabulary, self._masks, self._end_token_ids)
        twin._states = self._states.copy()
        return twin

    @property
    def _state(self) -> int:
        return self._states[-1]

    def _text_mask(self) -> Bitmask:
        state = DEAD if self._state == _ENDED else self._state
        return self._masks.get(self._automaton, self._vocabulary, state)

    def _after(self, token_id: int) -> int:
        if token_id in self._end_token_ids:
            return _ENDED if self.is_accepting else DEAD
        data = self._vocabulary.token(token_id)
        if not data or self._state == _ENDED:
            return DEAD
        return advance(self._automaton, self._state, data)
