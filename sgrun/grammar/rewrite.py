"""Rewrites one NFA into another: assertions worked in, and text spelled as the inside of a JSON string."""

from __future__ import annotations

from enum import IntEnum

from sgrun.grammar import charset
from sgrun.grammar.nfa import Nfa
from sgrun.grammar.syntax import Position

JSON_RAW = charset.subtract(charset.SCALARS, charset.union(charset.of_chars('"\\'), ((0x00, 0x1F),)))
_SHORT_ESCAPES = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


class _Behind(IntEnum):
    """What has been read so far."""

    NOTHING = 0
    NEWLINE = 1
    OTHER = 2


class _Ahead(IntEnum):
    """What has been promised about the text still to come; each promise implies the ones after it."""

    NOTHING = 0
    LAST_NEWLINE_OR_NOTHING = 1
    NEWLINE_OR_NOTHING = 2
    ANYTHING = 3


_PROMISES = {
    Position.END: _Ahead.NOTHING,
    Position.END_OR_LAST_NEWLINE: _Ahead.LAST_NEWLINE_OR_NOTHING,
    Position.LINE_END: _Ahead.NEWLINE_OR_NOTHING,
}
_Place = tuple[int, _Behind, _Ahead]


def without_assertions(nfa: Nfa) -> Nfa:
    """The same language without guarded jumps: each state is paired with what was read and what was promised."""
    if not nfa.guarded:
        return nfa
    live = nfa.live_states()
    result = Nfa(nfa.budget)
    places: dict[_Place, int] = {(Nfa.START, _Behind.NOTHING, _Ahead.ANYTHING): Nfa.START}
    waiting = list(places)

    def state_at(place: _Place) -> int:
        if place not in places:
            places[place] = result.add_state()
            waiting.append(place)
        return places[place]

    while waiting:
        place = waiting.pop()
        state, behind, ahead = place
        source = places[place]
        if state == Nfa.ACCEPT:
            result.add_jump(source, Nfa.ACCEPT)
        for target in nfa.jumps[state]:
            if target in live:
                result.add_jump(source, state_at((target, behind, ahead)))
        for position, target in nfa.guarded.get(state, ()):
            promised = _promised(position, behind, ahead)
            if target in live and promised is not None:
                result.add_jump(source, state_at((target, behind, promised)))
        for label, target in nfa.moves[state]:
            if target in live:
                for code_points, place_behind, place_ahead in _steps(nfa.labels[label], ahead):
                    if code_points:
                        after = state_at((target, place_behind, place_ahead))
                        result.add_move(source, result.label(code_points), after)
    return result


def _promised(position: Position, behind: _Behind, ahead: _Ahead) -> _Ahead | None:
    """The promise after passing an assertion; None where it does not hold."""
    if position is Position.START:
        return ahead if behind is _Behind.NOTHING else None
    if position is Position.LINE_START:
        return None if behind is _Behind.OTHER else ahead
    return min(ahead, _PROMISES[position])


def _steps(code_points: charset.CodePoints, ahead: _Ahead) -> list[tuple[charset.CodePoints, _Behind, _Ahead]]:
    """The parts of a set that may be read under a promise, and what holds after each."""
    newline = charset.intersect(code_points, charset.NEWLINE)
    match ahead:
        case _Ahead.NOTHING:
            return []
        case _Ahead.LAST_NEWLINE_OR_NOTHING:
            return [(newline, _Behind.NEWLINE, _Ahead.NOTHING)]
        case _Ahead.NEWLINE_OR_NOTHING:
            return [(newline, _Behind.NEWLINE, _Ahead.ANYTHING)]
        case _Ahead.ANYTHING:
            others = charset.subtract(code_points, charset.NEWLINE)
            return [(newline, _Behind.NEWLINE, ahead), (others, _Behind.OTHER, ahead)]


def json_escaped(nfa: Nfa) -> Nfa:
    """The texts as they are spelled between the quotes of a JSON string, each in one way.

    Control characters without a short escape (RFC 8259, section 7) are left out.
    """
    assert not nfa.guarded, "assertions are relative to the text, so they are worked in first"
    result = Nfa(nfa.budget)
    while result.num_states < nfa.num_states:
        result.add_state()
    backslash = result.char("\\")
    for state, targets in enumerate(nfa.jumps):
        result.jumps[state] = list(targets)
    for state, moves in enumerate(nfa.moves):
        for label, target in moves:
            code_points = nfa.labels[label]
            result.add_move(state, result.label(charset.intersect(code_points, JSON_RAW)), target)
            letters = "".join(to for char, to in _SHORT_ESCAPES.items() if charset.contains(code_points, ord(char)))
            if letters:
                escape = result.add_state()
                result.add_move(state, backslash, escape)
                result.add_move(escape, result.label(charset.of_chars(letters)), target)
    return result
