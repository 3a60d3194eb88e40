"""Owns what arrays and objects share: how values begin in them, what is asked about a value, and what is left after it.

A state holds what is left of the asked formulas: every item and property rewrites the atoms in them, and what an item
or value turned out to be is the label that its own procedure returns. At the closing bracket all atoms are decided,
and the truths of the formulas are the label.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.explore import LazyCall, LazyMove, Row
from sgrun.grammar.procedure import Columns
from sgrun.grammar.schema.formula import FALSE, TRUE, Formulas, Kind
from sgrun.types import PropertyOrder, Whitespace

Truths = tuple[bool, ...]
State = Hashable
Residue = tuple[int, ...]  # what is left of each asked formula

MAX_QUESTIONS = 64  # formulas asked of one value at a time
MAX_LISTED = 6  # formulas of one value whose combinations are gone through
DIGITS = tuple(b"-0123456789")
VALUE_STARTS = (*DIGITS, *b'"[{tfn')
_WHITESPACE = tuple(b" \t\n\r")
_LITERALS: tuple[tuple[Kind, bytes], ...] = (("null", b"null"), ("true", b"true"), ("false", b"false"))
_STARTS: tuple[tuple[Kind, Columns], ...] = (
    ("number", DIGITS),
    ("string", (ord('"'),)),
    ("array", (ord("["),)),
    ("object", (ord("{"),)),
)
_HOLDS = frozenset([1])  # the label of a single formula


@dataclass(frozen=True, slots=True)
class ValueKey:
    """A procedure for values of one kind that says which of `formulas` (all specialised to the kind, none constant)
    hold, as a number with bit i for formula i. `wanted`: labels that some caller can go on with; None: all."""

    kind: Kind
    formulas: tuple[int, ...]
    wanted: frozenset[int] | None


class Question(NamedTuple):
    """`atom` (a formula id) becomes one or the other formula, as the value in question satisfies `formula` or not."""

    atom: int
    formula: int
    if_true: int
    if_false: int


@dataclass(frozen=True, slots=True)
class Layout:
    """White space between tokens: "compact" none, "space" at most one after comma and colon, "free" any; whether
    objects get properties that their schema neither lists nor speaks of; in which order those come that it lists."""

    whitespace: Whitespace
    open_objects: bool
    property_order: PropertyOrder

    @property
    def is_compact(self) -> bool:
        return self.whitespace == "compact"

    def after_separator(self, state: State, without: State) -> Row:
        """White space where a token may begin that follows a comma or colon; `without`: no more of it. Not for compact
        texts."""
        if self.whitespace == "space":
            return Row([((ord(" "),), LazyMove(without))], otherwise=without)
        return Row([(_WHITESPACE, LazyMove(state))], otherwise=without)

    def anywhere(self, row: Row, state: State) -> None:
        if self.whitespace == "free":
            row.add(_WHITESPACE, LazyMove(state))


def add_value(row: Row, formulas: Formulas, formula: int, goal: State) -> None:
    """Adds the beginnings of all values that satisfy a formula to a row; `goal` is the state behind them.

    Values with text of their own call the procedure of their kind; literals are spelled here.
    """
    special = formulas.by_kind(formula)
    for kind, text in _LITERALS:
        if special[kind] == TRUE:
            row.add((text[0],), LazyMove(goal, text[1:]))
    for kind, starts in _STARTS:
        open_ = special[kind]
        if open_ == TRUE:
            row.add(starts, LazyCall(ValueKey(kind, (), None), {0: goal}.get))
        elif open_ != FALSE:
            row.add(starts, LazyCall(ValueKey(kind, (open_,), _HOLDS), {1: goal}.get))


def add_asked_value(row: Row, formulas: Formulas, asked: list[int], after: Callable[[Truths], State | None]) -> None:
    """The same where several formulas are open: `after(truths of asked)` is the state behind, None refuses."""
    if len(asked) > MAX_QUESTIONS:
        raise GrammarTooLargeError(
            f"{len(asked)} alternatives have to be told apart on one value; at most {MAX_QUESTIONS} are; "
            "use fewer overlapping schemas"
        )
    by_kind = [formulas.by_kind(formula) for formula in asked]
    for kind, text in _LITERALS:
        state = after(tuple([special[kind] == TRUE for special in by_kind]))
        if state is not None:
            row.add((text[0],), LazyMove(state, text[1:]))
    for kind, starts in _STARTS:
        call = _call(kind, [special[kind] for special in by_kind], formulas, after)
        if call is not None:
            row.add(starts, call)


def _call(
    kind: Kind, special: list[int], formulas: Formulas, after: Callable[[Truths], State | None]
) -> LazyCall | None:
    """The call that finds out about the formulas that are not decided by the kind alone."""
    open_ = tuple(dict.fromkeys(formula for formula in special if formula not in (FALSE, TRUE)))

    def after_label(label: int) -> State | None:
        truths = {formula: bool(label >> bit & 1) for bit, formula in enumerate(open_)}
        return after(tuple(truths.get(formula, formula == TRUE) for formula in special))

    if len(open_) > MAX_LISTED:
        return LazyCall(ValueKey(kind, open_, None), after_label)
    all_hold = (1 << len(open_)) - 1
    wanted = frozenset(label for label in range(all_hold + 1) if after_label(label) is not None)
    if not wanted:
        return None
    if open_ and wanted == {all_hold}:
        every = formulas.and_(open_)
        if every == FALSE:
            return None
        if every == TRUE:
            return LazyCall(ValueKey(kind, (), None), {0: after_label(all_hold)}.get)
        return LazyCall(ValueKey(kind, (every,), _HOLDS), {1: after_label(all_hold)}.get)
    return LazyCall(ValueKey(kind, open_, wanted if len(wanted) <= all_hold else None), after_label)


class Container:
    """What is left of the formulas that are asked of an array or object."""

    def __init__(self, formulas: Formulas, key: ValueKey, layout: Layout) -> None:
        self.formulas = formulas
        self.key = key
        self.layout = layout
        self._asks_one = len(key.formulas) == 1 and key.wanted == _HOLDS

    def is_possible(self, residue: Residue) -> bool:
        """Whether some wanted label agrees with what is decided already."""
        if self._asks_one:
            return residue[0] != FALSE
        if self.key.wanted is None:
            return True
        known = sum(1 << bit for bit, formula in enumerate(residue) if formula in (FALSE, TRUE))
        truths = sum(1 << bit for bit, formula in enumerate(residue) if formula == TRUE)
        return any(label & known == truths for label in self.key.wanted)

    def label(self, residue: Residue) -> int | None:
        assert all(formula in (FALSE, TRUE) for formula in residue), "an atom is undecided at the end of a container"
        label = sum(1 << bit for bit, formula in enumerate(residue) if formula == TRUE)
        return label if self.key.wanted is None or label in self.key.wanted else None

    def atoms(self, residue: Residue) -> Iterator[tuple[int, Hashable]]:
        for formula in self.formulas.atoms(*residue):
            yield formula, self.formulas.atom_of(formula)

    def substitute(self, residue: Residue, values: dict[int, int]) -> Residue:
        if not values:
            return residue
        return tuple([self.formulas.substitute(formula, values) for formula in residue])

    def ask(
        self,
        row: Row,
        residue: Residue,
        questions: Iterable[Question],
        then: Callable[[Residue], State],
        always: Sequence[int] = (),
    ) -> None:
        """Adds the beginnings of a value about which `questions` are open. `always`: formulas that are asked in any
        case, so that the same procedure answers in many states."""
        # An atom that the one formula cannot do without: its question has only one answer that is of use.
        needed = self.formulas.conjuncts(residue[0]) if self._asks_one else ()
        musts: list[Question] = []
        others: list[Question] = []
        for question in questions:
            (musts if question.if_false == FALSE and question.atom in needed else others).append(question)
        must = self.formulas.and_(question.formula for question in musts)
        must_hold = {question.atom: question.if_true for question in musts if question.if_true != question.atom}
        if not others and not always:
            left = self.substitute(residue, must_hold)
            if self.is_possible(left):
                add_value(row, self.formulas, must, then(left))
            return
        asked = list(dict.fromkeys([must, *always, *(question.formula for question in others)]))
        known: dict[Truths, State | None] = {}

        def after(truths: Truths) -> State | None:
            if truths not in known:
                answer = dict(zip(asked, truths, strict=True))
                values = must_hold.copy()
                for question in others:
                    values[question.atom] = question.if_true if answer[question.formula] else question.if_false
                left = self.substitute(residue, values) if answer[must] else None
                known[truths] = then(left) if left is not None and self.is_possible(left) else None
            return known[truths]

        add_asked_value(row, self.formulas, asked, after)
