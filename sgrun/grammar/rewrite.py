"""Rewrites one NFA into another: assertions, lookahead and conditions on the whole text worked in.

A place is a state of the NFA, what was read before it as far as assertions look back, what the rest has been promised
to be, and the duties that follow the rest: deterministic automata, one for each lookahead that was passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np

from sgrun.grammar import charset
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.dfa import DEAD, Atoms, Dfa, atoms_of, determinize, minimize
from sgrun.grammar.nfa import Guard, Nfa
from sgrun.grammar.syntax import Position


class _Behind(IntEnum):
    """What was read last."""

    NOTHING = 0
    NEWLINE = 1
    ASCII_WORD = 2
    OTHER_WORD = 3
    OTHER = 4


class _Ahead(IntFlag):
    """The kinds that all texts still to come fall into. A promise about the rest is a set of kinds."""

    END = 1
    LAST_NEWLINE = 2  # a newline and nothing more
    NEWLINE = 4  # a newline and more
    ASCII_WORD = 8  # an ASCII letter, digit or _ first
    OTHER_WORD = 16
    OTHER = 32


_ANYTHING = _Ahead(63)
_PROMISES = {
    Position.END: _Ahead.END,
    Position.END_OR_LAST_NEWLINE: _Ahead.END | _Ahead.LAST_NEWLINE,
    Position.LINE_END: _Ahead.END | _Ahead.LAST_NEWLINE | _Ahead.NEWLINE,
}
_WORD_POSITIONS = {Position.WORD_BORDER, Position.NO_WORD_BORDER}
_ASCII_WORD_POSITIONS = {Position.ASCII_WORD_BORDER, Position.NO_ASCII_WORD_BORDER}
_LOOK_BACK = {Position.START, Position.LINE_START} | _WORD_POSITIONS | _ASCII_WORD_POSITIONS


@dataclass(frozen=True, eq=False, slots=True)
class _Kind:
    """Code points that no assertion in use tells apart."""

    code_points: CodePoints
    behind: _Behind
    ahead: _Ahead


@dataclass(frozen=True, eq=False, slots=True)
class _Duty:
    """The rest of the text has to be in the language of a deterministic automaton, or must not be."""

    dfa: Dfa
    is_negated: bool
    universal: int  # the state from which every text is accepted, else DEAD

    @staticmethod
    def of(nfa: Nfa, atoms: Atoms, *, is_negated: bool) -> _Duty:
        dfa = minimize(determinize(nfa, atoms, nfa.budget))
        stays = (dfa.transitions == np.arange(len(dfa.transitions))[:, None]).all(axis=1) & dfa.accepting
        return _Duty(dfa, is_negated, int(np.argmax(stays)) if stays.any() else DEAD)

    @property
    def start(self) -> int | bool:
        return self.is_negated if self.dfa.is_empty else self._settled(1)

    def after(self, state: int, atom: int) -> int | bool:
        """The state after an atom; a bool once the duty is over: fulfilled or failed."""
        return self._settled(int(self.dfa.transitions[state, atom]))

    def _settled(self, state: int) -> int | bool:
        if state == DEAD:
            return self.is_negated
        return not self.is_negated if state == self.universal else state

    def is_met_at_end(self, state: int) -> bool:
        return bool(self.dfa.accepting[state]) != self.is_negated


_Duties = frozenset[tuple[int, int]]  # indices of duties and the states they are in
_NO_DUTIES: _Duties = frozenset()
_Place = tuple[int, _Behind, _Ahead, _Duties]


def without_assertions(nfa: Nfa) -> Nfa:
    """The same language without guarded jumps."""
    return _resolved(nfa, _kinds(set(_positions(nfa))), _Behind.NOTHING)


def restricted(nfa: Nfa, condition: Nfa, *, is_negated: bool) -> Nfa:
    """The texts of `nfa` that `condition` accepts too (or does not). Counted repeats stay counted in `nfa`."""
    assert not nfa.guarded and not condition.guarded and not condition.counting
    atoms = atoms_of([*nfa.labels, *condition.labels, charset.SCALARS], nfa.budget)
    duty = _Duty.of(condition, Atoms(atoms.sets, atoms.of_label[len(nfa.labels) :]), is_negated=is_negated)
    rewriter = _Rewriter(nfa, _kinds(set()), atoms, [duty], {})
    return rewriter.run(_Behind.OTHER, rewriter.with_duty(_NO_DUTIES, 0))


def _positions(nfa: Nfa) -> Iterator[Position]:
    for guarded in nfa.guarded.values():
        yield from (guard for guard, _ in guarded if isinstance(guard, Position))
    for inner, _ in nfa.lookaheads:
        yield from _positions(inner)


def _kinds(positions: set[Position]) -> list[_Kind]:
    """A partition of all code points, as coarse as the assertions in use allow."""
    looks_at_words = positions & (_WORD_POSITIONS | _ASCII_WORD_POSITIONS)
    looks_at_newlines = positions & {Position.LINE_START, Position.LINE_END, Position.END_OR_LAST_NEWLINE}
    rest = charset.SCALARS
    kinds = []

    def split(code_points: CodePoints, behind: _Behind, ahead: _Ahead, is_seen_behind: bool) -> None:
        nonlocal rest
        kinds.append(_Kind(charset.intersect(rest, code_points), behind if is_seen_behind else _Behind.OTHER, ahead))
        rest = charset.subtract(rest, code_points)

    if looks_at_newlines:
        split(charset.NEWLINE, _Behind.NEWLINE, _Ahead.LAST_NEWLINE | _Ahead.NEWLINE, Position.LINE_START in positions)
    if looks_at_words:
        split(charset.python_class("w", True), _Behind.ASCII_WORD, _Ahead.ASCII_WORD, True)
    if positions & _WORD_POSITIONS:
        split(charset.python_class("w"), _Behind.OTHER_WORD, _Ahead.OTHER_WORD, True)
    kinds.append(_Kind(rest, _Behind.OTHER, _Ahead.OTHER))
    return kinds


def _resolved(nfa: Nfa, kinds: list[_Kind], behind: _Behind) -> Nfa:
    if not nfa.guarded:
        return nfa
    behinds = {_Behind.NOTHING, *(kind.behind for kind in kinds)}
    bodies: list[tuple[Nfa, bool]] = []
    duty_of: dict[tuple[int, _Behind], int] = {}
    for lookahead, (inner, is_negated) in enumerate(nfa.lookaheads):
        looks_back = any(position in _LOOK_BACK for position in _positions(inner))
        for place_behind in behinds:
            if looks_back or place_behind is _Behind.NOTHING:
                bodies.append((_resolved(inner, kinds, place_behind), is_negated))
            duty_of[lookahead, place_behind] = len(bodies) - 1
    if not bodies:
        return _Rewriter(nfa, kinds, None, [], {}).run(behind, _NO_DUTIES)
    labels = [*nfa.labels, *(label for body, _ in bodies for label in body.labels), charset.SCALARS]
    atoms = atoms_of(labels, nfa.budget)
    duties = []
    at = len(nfa.labels)
    for body, is_negated in bodies:
        of_label = atoms.of_label[at : at + len(body.labels)]
        duties.append(_Duty.of(body, Atoms(atoms.sets, of_label), is_negated=is_negated))
        at += len(body.labels)
    return _Rewriter(nfa, kinds, atoms, duties, duty_of).run(behind, _NO_DUTIES)


class _Rewriter:
    """One pass over an NFA. `duty_of`: lookahead and what lies behind it -> index of the duty."""

    def __init__(
        self,
        nfa: Nfa,
        kinds: list[_Kind],
        atoms: Atoms | None,
        duties: list[_Duty],
        duty_of: dict[tuple[int, _Behind], int],
    ) -> None:
        self._nfa = nfa
        self._kinds = kinds
        self._atoms = atoms
        self._duties = duties
        self._duty_of = duty_of
        self._result = Nfa(nfa.budget)
        self._places: dict[_Place, int] = {}
        self._waiting: list[_Place] = []
        self._known_parts: dict[tuple[int, _Duties], list[tuple[CodePoints, _Duties]]] = {}
        self._known_steps: dict[tuple[int, _Ahead, _Duties], list[tuple[int, _Behind, _Ahead, _Duties]]] = {}

    def run(self, behind: _Behind, duties: _Duties | None) -> Nfa:
        if duties is None:
            return self._result
        nfa, result = self._nfa, self._result
        live = nfa.live_states()
        start = (Nfa.START, behind, _ANYTHING, duties)
        self._places[start] = Nfa.START
        self._waiting.append(start)
        while self._waiting:
            place = self._waiting.pop()
            state, behind, ahead, duties = place
            source = self._places[place]
            if state == Nfa.ACCEPT and ahead & _Ahead.END and self._are_met_at_end(duties):
                result.add_jump(source, Nfa.ACCEPT)
            for target in nfa.jumps[state]:
                if target in live:
                    result.add_jump(source, self._state_at((target, behind, ahead, duties)))
            for kind, counts, target in nfa.counting.get(state, ()):
                after = self._state_at((target, behind, ahead, duties))
                result.counting.setdefault(source, []).append((kind, counts, after))
            for guard, target in nfa.guarded.get(state, ()):
                passed = self._passed(guard, behind, ahead, duties)
                if target in live and passed is not None:
                    result.add_jump(source, self._state_at((target, behind, *passed)))
            for label, target in nfa.moves[state]:
                if target in live:
                    for part, after_behind, after_ahead, after_duties in self._steps(label, ahead, duties):
                        after = self._state_at((target, after_behind, after_ahead, after_duties))
                        result.add_move(source, part, after)
        return result

    def with_duty(self, duties: _Duties, index: int) -> _Duties | None:
        """None: it cannot be met."""
        start = self._duties[index].start
        if isinstance(start, bool):
            return duties if start else None
        return duties | {(index, start)}

    def _state_at(self, place: _Place) -> int:
        state = self._places.get(place)
        if state is None:
            state = self._places[place] = self._result.add_state()
            self._nfa.budget.spend("max_set_elements", len(place[3]))
            self._waiting.append(place)
        return state

    def _are_met_at_end(self, duties: _Duties) -> bool:
        return all(self._duties[index].is_met_at_end(state) for index, state in duties)

    def _passed(self, guard: Guard, behind: _Behind, ahead: _Ahead, duties: _Duties) -> tuple[_Ahead, _Duties] | None:
        """The promise and the duties after an assertion; None where it cannot hold."""
        if isinstance(guard, int):
            taken_on = self.with_duty(duties, self._duty_of[guard, behind])
            return None if taken_on is None else (ahead, taken_on)
        promise = ahead & _promise(guard, behind)
        return (promise, duties) if promise else None

    def _steps(self, label: int, ahead: _Ahead, duties: _Duties) -> list[tuple[int, _Behind, _Ahead, _Duties]]:
        """The parts of a label that may be read under a promise and duties, and what holds after each."""
        key = (label, ahead, duties)
        known = self._known_steps.get(key)
        if known is None:
            known = self._known_steps[key] = []
            for part, after in self._parts(label, duties):
                for kind in self._kinds:
                    code_points = charset.intersect(part, kind.code_points) if len(self._kinds) > 1 else part
                    promise = _promise_after(kind, ahead)
                    if code_points and promise:
                        known.append((self._result.label(code_points), kind.behind, promise, after))
        return known

    def _parts(self, label: int, duties: _Duties) -> list[tuple[CodePoints, _Duties]]:
        """A label cut into parts that lead to the same duties; parts that fail one are left out."""
        if not duties or self._atoms is None:
            return [(self._nfa.labels[label], _NO_DUTIES)]
        known = self._known_parts.get((label, duties))
        if known is None:
            ranges: dict[_Duties, list[tuple[int, int]]] = {}
            for atom in self._atoms.of_label[label]:
                after = self._after(duties, atom)
                if after is not None:
                    ranges.setdefault(after, []).extend(self._atoms.sets[atom])
            known = [(charset.of_ranges(pairs), after) for after, pairs in ranges.items()]
            self._known_parts[label, duties] = known
            self._nfa.budget.spend("max_set_elements", len(self._atoms.of_label[label]) * len(duties))
        return known

    def _after(self, duties: _Duties, atom: int) -> _Duties | None:
        left = set()
        for index, state in duties:
            after = self._duties[index].after(state, atom)
            if after is False:
                return None
            if after is not True:
                left.add((index, after))
        return frozenset(left)


def _promise(position: Position, behind: _Behind) -> _Ahead:
    """What the rest must be for an assertion to hold here; nothing, where it cannot."""
    if position is Position.START:
        return _ANYTHING if behind is _Behind.NOTHING else _Ahead(0)
    if position is Position.LINE_START:
        return _ANYTHING if behind in (_Behind.NOTHING, _Behind.NEWLINE) else _Ahead(0)
    if position in _PROMISES:
        return _PROMISES[position]
    is_ascii = position in _ASCII_WORD_POSITIONS
    words = _Ahead.ASCII_WORD if is_ascii else _Ahead.ASCII_WORD | _Ahead.OTHER_WORD
    is_behind = behind is _Behind.ASCII_WORD or (behind is _Behind.OTHER_WORD and not is_ascii)
    wants_border = position in (Position.WORD_BORDER, Position.ASCII_WORD_BORDER)
    return words if is_behind != wants_border else _ANYTHING & ~words


def _promise_after(kind: _Kind, ahead: _Ahead) -> _Ahead:
    """What is promised about the rest after a code point of this kind; nothing, if it may not be read."""
    if not kind.ahead & ahead:
        return _Ahead(0)
    if kind.ahead & _Ahead.NEWLINE and not ahead & _Ahead.NEWLINE:
        return _Ahead.END  # only the last newline may be read
    return _ANYTHING
