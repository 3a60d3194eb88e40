"""Walks by tokens of a vocabulary: along given texts and by masked sampling, and what a mask is by its definition."""

from __future__ import annotations

import random
from bisect import bisect_left

import numpy as np
import numpy.typing as npt

from sgrun.grammar.automaton import MAX_DEPTH, Automaton
from sgrun.grammar.matcher import Matcher
from sgrun.grammar.sample import Sampler
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor

Flags = npt.NDArray[np.bool_]  # [vocabulary size]
MAX_KNOWN = 500  # masks, 131 KB each at most


def allowed_tokens(matcher: Matcher, vocabulary: Vocabulary) -> Flags:
    flags = np.unpackbits(matcher.bitmask().view(np.uint8), bitorder="little").view(np.bool_)
    assert not flags[vocabulary.size :].any()
    return flags[: vocabulary.size]


class Tokens:
    """The tokens of a vocabulary that have bytes, by their bytes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._ids: dict[bytes, list[int]] = {}
        for token_id in range(vocabulary.size):
            self._ids.setdefault(vocabulary.token(token_id), []).append(token_id)
        self._ids.pop(b"", None)
        self._sorted = sorted(self._ids)
        self.single_bytes = {data[0] for data in self._ids if len(data) == 1}
        self._known: dict[tuple[Automaton, Cursor], Flags] = {}
        self.prior = (-0.7 * np.minimum(np.diff(vocabulary.offsets), 8)).astype(np.float32)  # logits, see RandomModel
        self.prior[list(vocabulary.end_token_ids)] = 4

    def defined_mask(self, automaton: Automaton, cursor: Cursor) -> Flags:
        """A token is allowed iff its bytes keep the automaton alive. Tokens with the same first bytes share the walk
        over these; if they are refused, so is whatever begins with them."""
        known = self._known.get((automaton, cursor))
        if known is None:
            if len(self._known) == MAX_KNOWN:
                self._known.clear()
            known = self._known[automaton, cursor] = self._defined_mask(automaton, cursor)
        return known.copy()

    def _defined_mask(self, automaton: Automaton, cursor: Cursor) -> Flags:
        allowed = np.zeros(self.vocabulary.size, dtype=np.bool_)
        advance = automaton.walker.advance
        path: list[tuple[bytes, Cursor]] = [(b"", cursor)]
        at = 0
        while at < len(self._sorted):
            token = self._sorted[at]
            while not token.startswith(path[-1][0]):
                path.pop()
            known, before = path[-1]
            after = advance(before, token[len(known) :])
            if after is not None:
                allowed[self._ids[token]] = True
                path.append((token, after))
                at += 1
                continue
            lengths = range(len(known) + 1, len(token) + 1)
            num_bytes = next(n for n in lengths if advance(before, token[len(known) : n]) is None)
            at = bisect_left(self._sorted, _next_prefix(token[:num_bytes]))
        return allowed

    def spell(self, data: bytes, draw: random.Random) -> list[int]:
        """Tokens that are `data` together, each drawn out of those that it begins with, long ones preferred."""
        spelled: list[int] = []
        while data:
            fitting = [data[:n] for n in range(1, min(len(data), self.vocabulary.max_token_len) + 1)]
            fitting = [piece for piece in fitting if piece in self._ids]
            assert fitting, f"no token begins {data[:20]!r}"
            piece = draw.choice(fitting[-2:] if draw.random() < 0.7 else fitting)
            spelled.append(draw.choice(self._ids[piece]))
            data = data[len(piece) :]
        return spelled


def _next_prefix(prefix: bytes) -> bytes:
    """The least bytes after all that begin with `prefix`."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\xff" * 1000


class Walk:
    """One text through a constraint, token by token; every step holds what mask, accept and cursor say to each other.

    `check_mask`: every mask is compared with its definition, over the whole vocabulary.
    """

    def __init__(self, automaton: Automaton, tokens: Tokens, *, check_mask: bool = False) -> None:
        self.automaton = automaton
        self.tokens = tokens
        self.matcher = automaton.matcher(tokens.vocabulary)
        self.cursor = automaton.walker.start
        self.data = b""
        (self.end_id,) = tokens.vocabulary.end_token_ids
        self._check_mask = check_mask
        self.num_masks = 0
        self._allowed: Flags | None = None

    def allowed(self) -> Flags:
        """What the mask allows here, end token included."""
        if self._allowed is None:
            self._allowed = self._find_allowed()
            self.num_masks += 1
        return self._allowed

    def _find_allowed(self) -> Flags:
        found = allowed_tokens(self.matcher, self.tokens.vocabulary)
        assert found[self.end_id] == self.automaton.walker.is_accepting(self.cursor), self.data
        assert found.any() or self.is_deep, self.data
        if self._check_mask:
            expected = self.tokens.defined_mask(self.automaton, self.cursor)
            expected[self.end_id] = found[self.end_id]
            wrong = np.flatnonzero(found != expected)
            assert not wrong.size, (self.data, [self.tokens.vocabulary.token(int(i)) for i in wrong[:10]])
        return found

    @property
    def is_deep(self) -> bool:
        """Whether the frames may be at their end, where there is a dead end."""
        return len(self.cursor.stack) > MAX_DEPTH - 8

    def take(self, token_id: int) -> bool:
        """Moves over a token; False if it is not allowed."""
        is_allowed = bool(self.allowed()[token_id])
        assert self.matcher.accept(token_id) == is_allowed, (self.data, token_id)
        if is_allowed and token_id != self.end_id:
            data = self.tokens.vocabulary.token(token_id)
            after = self.automaton.walker.advance(self.cursor, data)
            assert after is not None
            self.cursor = after
            self.data += data
            self._allowed = None
        return is_allowed

    def follow(self, data: bytes, draw: random.Random) -> bool:
        """Whether every token of `data`, cut at random, and then the end, is allowed."""
        return all(self.take(token_id) for token_id in self.tokens.spell(data, draw)) and self.take(self.end_id)


class RandomModel:
    """Random logits. Short tokens and the end are likelier than long ones, so that texts come to an end."""

    def __init__(self, tokens: Tokens, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._tokens = tokens

    def draw(self, allowed: Flags) -> int:
        """A token out of the softmax over the allowed ones, by Gumbel's maximum."""
        ids = np.flatnonzero(allowed)
        logits = self._tokens.prior[ids] + 2 * self._random.standard_normal(len(ids), dtype=np.float32)
        noise = -np.log(self._random.standard_exponential(len(ids), dtype=np.float32) + 1e-30)
        return int(ids[np.argmax(logits + noise)])


def sampled_text(walk: Walk, model: RandomModel, sampler: Sampler, soft_len: int, draw: random.Random) -> bytes | None:
    """A text by masked sampling until the end token; after `soft_len` tokens along a short way out, also under masks.

    None where the frames run out, or no token has a byte of the way out (SmolLM2's vocabulary lacks some controls).
    """
    for _ in range(soft_len):
        allowed = walk.allowed()
        if not allowed.any():
            return None
        token_id = model.draw(allowed)
        assert walk.take(token_id)
        if token_id == walk.end_id:
            return walk.data
    for _ in range(50):
        rest = sampler.completion(walk.cursor)
        if rest is None:
            assert walk.is_deep, walk.data
            return None
        if walk.tokens.single_bytes.issuperset(rest):
            break
    else:
        return None
    assert walk.follow(rest, draw), (walk.data, rest)
    return walk.data
