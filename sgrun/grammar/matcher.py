"""The place of one generation in its constraint."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import accumulate

import numpy as np

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.masks import Bitmask
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor

MARK_EVERY = 32  # tokens: as many are walked again by a rollback at most, and one place in so many is kept for it


class Matcher:
    """Where one generation stands in its constraint. The place is opaque: callers ask, accept and roll back.

    An end token (one of `end_token_ids`) is allowed exactly where the text so far is a complete match; once it is
    accepted, nothing can follow.
    """

    def __init__(self, automaton: Automaton, vocabulary: Vocabulary, end_token_ids: Collection[int]) -> None:
        self._automaton = automaton
        self._walker = automaton.walker
        self._vocabulary = vocabulary
        self._end_token_ids = frozenset(end_token_ids)
        self._end_mask = _mask_of(self._end_token_ids, vocabulary.num_words)
        self._do_ends_have_bytes = any(vocabulary.token(token_id) for token_id in self._end_token_ids)
        self._cursor: Cursor | None = automaton.walker.start  # None: after an end token
        self._accepted: list[int] = []
        # A place for each token would leave objects to the garbage collector, which stops an engine's steps.
        self._marks = [automaton.walker.start]  # the places after so many tokens, twice as many, ...

    def bitmask(self) -> Bitmask:
        """The tokens that may come next, end tokens included: [num_words] int32, not to be written to."""
        text_mask = self._text_mask()
        if self.is_accepting():
            return np.bitwise_or(text_mask, self._end_mask)
        if self._do_ends_have_bytes:
            return np.bitwise_and(text_mask, ~self._end_mask)
        return text_mask

    def accept(self, token_id: int) -> bool:
        """Moves over one token; returns False, and stays where it is, if the constraint does not allow it."""
        cursor = self._cursor
        if token_id in self._end_token_ids:
            if not self.is_accepting():
                return False
            self._cursor = None
            self._accepted.append(token_id)
            return True
        data = self._vocabulary.token(token_id)
        if not data or cursor is None:
            return False
        after = self._walker.advance(cursor, data)
        if after is None:
            return False
        self._cursor = after
        self._accepted.append(token_id)
        if len(self._accepted) % MARK_EVERY == 0:
            self._marks.append(after)
        return True

    def is_accepting(self) -> bool:
        """Whether the text so far is a complete match (and no end token has been accepted)."""
        cursor = self._cursor
        return cursor is not None and self._walker.is_accepting(cursor)

    @property
    def automaton(self) -> Automaton:
        return self._automaton

    @property
    def cursor(self) -> Cursor:
        """The place in the automaton. No end token may have been accepted."""
        assert self._cursor is not None
        return self._cursor

    @property
    def is_finished(self) -> bool:
        """Whether the text so far is a complete match and no text can follow."""
        cursor = self._cursor
        return cursor is None or (self._walker.is_accepting(cursor) and not self._can_go_on(cursor))

    @property
    def is_dead_end(self) -> bool:
        """Whether the text so far is no complete match and no token of the vocabulary continues it."""
        return self._cursor is not None and not self.is_accepting() and not self.bitmask().any()

    def forced_bytes(self) -> bytes:
        """The longest text that every continuation begins with: empty where the text so far may end, or go on in
        more than one way."""
        return b"" if self._cursor is None else self._walker.forced_bytes(self._cursor)

    def forced_tokens(self, encode: Callable[[str], list[int]]) -> list[int]:
        """Tokens that may be appended without asking the model: of the forced bytes, as `encode` spells them, those
        that no token of the vocabulary could straddle the end of, so that the rest can still be spelled either way."""
        data = self.forced_bytes()
        text = data.decode(errors="ignore")
        if text.encode() != data[: len(text.encode())]:
            return []  # the text so far ends inside a character
        tokens = encode(text)
        ends = list(accumulate(len(self._vocabulary.token(token_id)) for token_id in tokens))
        if b"".join(map(self._vocabulary.token, tokens)) != text.encode():
            return []
        num_safe = len(tokens)
        for number, start in enumerate([0, *ends[:-1]]):
            if self._vocabulary.trie.goes_on_after(data[start:]):
                num_safe = number
                break
        return tokens[:num_safe]

    def rollback(self, num_tokens: int) -> None:
        """Takes back the last `num_tokens` accepted tokens."""
        num_kept = len(self._accepted) - num_tokens
        assert 0 <= num_kept <= len(self._accepted), (num_tokens, len(self._accepted))
        if num_tokens == 0:
            return
        del self._accepted[num_kept:]
        del self._marks[num_kept // MARK_EVERY + 1 :]
        data = map(self._vocabulary.token, self._accepted[num_kept // MARK_EVERY * MARK_EVERY :])
        self._cursor = self._walker.advance(self._marks[-1], b"".join(data))

    def copy(self) -> Matcher:
        """A matcher at the same place that moves on its own."""
        twin = Matcher(self._automaton, self._vocabulary, self._end_token_ids)
        twin._cursor, twin._accepted, twin._marks = self._cursor, self._accepted.copy(), self._marks.copy()
        return twin

    def _text_mask(self) -> Bitmask:
        if self._cursor is None:
            return np.zeros(self._vocabulary.num_words, dtype=np.int32)
        return self._vocabulary.masks.get(self._automaton, self._cursor)

    def _can_go_on(self, cursor: Cursor) -> bool:
        """Whether the text of some token may follow. The mask, which takes milliseconds where it is not kept, is asked
        only if a byte may follow, but none that is a token by itself."""
        is_dead = True
        columns = self._vocabulary.single_bytes.translate(self._walker.classes)
        for column, _ in self._walker.following(cursor):
            if column in columns:
                return True
            is_dead = False
        return not is_dead and bool(self._text_mask().any())


def _mask_of(token_ids: frozenset[int], num_words: int) -> Bitmask:
    ids = np.fromiter(token_ids, dtype=np.int64)
    words = np.zeros(num_words, dtype=np.uint32)
    np.bitwise_or.at(words, ids // 32, np.uint32(1) << (ids % 32).astype(np.uint32))
    return words.view(np.int32)
