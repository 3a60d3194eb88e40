"""Owns arrays and objects as procedures that are explored as far as they are reached.

A state holds what is left of the asked formulas: every item and property rewrites the atoms in them, and what an item
or value turned out to be is the label that its own procedure returns. At the closing bracket all atoms are decided,
and the truths of the formulas are the label.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.explore import LazyCall, LazyCount, LazyMove, Row
from sgrun.grammar.procedure import Columns, Return
from sgrun.grammar.scalars import string_holds
from sgrun.grammar.schema.atoms import (
    ContainsAtLeast,
    ContainsAtMost,
    Items,
    ItemsAtLeast,
    ItemsAtMost,
    Names,
    Properties,
    PropertiesAtLeast,
    PropertiesAtMost,
    Required,
)
from sgrun.grammar.schema.formula import FALSE, TRUE, Formulas, Kind
from sgrun.grammar.schema.spelling import TrieNode, spelling_trie
from sgrun.grammar.strings import Pattern, StringAtom
from sgrun.types import PropertyOrder, Whitespace

Truths = tuple[bool, ...]
State = Hashable
Residue = tuple[int, ...]  # what is left of each asked formula

MAX_QUESTIONS = 30  # formulas asked of one value at a time
LARGE_COUNT = 40  # counts above it run on the frame's counter
_DIGITS = tuple(b"-0123456789")
_LITERALS: tuple[tuple[Kind, bytes], ...] = (("null", b"null"), ("true", b"true"), ("false", b"false"))
_STARTS: tuple[tuple[Kind, Columns], ...] = (
    ("number", _DIGITS),
    ("string", (ord('"'),)),
    ("array", (ord("["),)),
    ("object", (ord("{"),)),
)


@dataclass(frozen=True, slots=True)
class ValueKey:
    """A procedure for values of one kind that says which of `formulas` (all specialised to the kind, none constant)
    hold, as a number with bit i for formula i. `wanted`: labels that some caller can go on with; None: all."""

    kind: Kind
    formulas: tuple[int, ...]
    wanted: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class KeysKey:
    """A procedure for property names: for names[i] the label i + 2 ** len(formulas), for others the bits of which
    `formulas` (about strings) hold."""

    names: tuple[str, ...]
    formulas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Question:
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

    def after_separator(self, row: Row, state: State, without: State) -> None:
        """White space where a token may begin that follows a comma or colon; `without`: no more of it."""
        if self.whitespace == "space":
            row.add((ord(" "),), LazyMove(without))
        else:
            self.anywhere(row, state)

    def anywhere(self, row: Row, state: State) -> None:
        if self.whitespace == "free":
            row.add((0x20, 0x09, 0x0A, 0x0D), LazyMove(state))


def add_value(row: Row, formulas: Formulas, asked: list[int], after: Callable[[Truths], State | None]) -> None:
    """Adds the beginnings of all values to a row: `after(truths of asked)` is the state behind them, None refuses.

    Values with text of their own call the procedure of their kind; literals are spelled here.
    """
    if len(asked) > MAX_QUESTIONS:
        raise GrammarTooLargeError(
            f"{len(asked)} alternatives have to be told apart on one value; at most {MAX_QUESTIONS} are; "
            "use fewer overlapping schemas"
        )
    for kind, text in _LITERALS:
        state = after(tuple(formulas.specialise(formula, kind) == TRUE for formula in asked))
        if state is not None:
            row.add((text[0],), LazyMove(state, text[1:]))
    for kind, starts in _STARTS:
        special = [formulas.specialise(formula, kind) for formula in asked]
        call = _call(kind, special, formulas, after)
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

    if len(open_) > 6:
        return LazyCall(ValueKey(kind, open_, None), after_label)
    wanted = frozenset(label for label in range(1 << len(open_)) if after_label(label) is not None)
    if not wanted:
        return None
    if open_ and wanted == {(1 << len(open_)) - 1}:
        every = formulas.and_(open_)
        if every == FALSE:
            return None
        if every == TRUE:
            return LazyCall(ValueKey(kind, (), None), lambda _: after_label((1 << len(open_)) - 1))
        return LazyCall(
            ValueKey(kind, (every,), frozenset([1])),
            lambda label: after_label((1 << len(open_)) - 1) if label else None,
        )
    return LazyCall(ValueKey(kind, open_, wanted if len(wanted) < 1 << len(open_) else None), after_label)


class _Container:
    """What arrays and objects share: residues, questions about values, and literals in between."""

    def __init__(self, formulas: Formulas, key: ValueKey, layout: Layout) -> None:
        self.formulas = formulas
        self.key = key
        self.layout = layout

    def is_possible(self, residue: Residue) -> bool:
        """Whether some wanted label agrees with what is decided already."""
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
        return tuple(self.formulas.substitute(formula, values) for formula in residue)

    def ask(self, row: Row, residue: Residue, questions: Iterable[Question], then: Callable[[Residue], State]) -> None:
        """Adds the beginnings of a value about which `questions` are open."""
        # An atom that the one formula cannot do without: its question has only one answer that is of use.
        needed: set[int] = set()
        if len(residue) == 1 and self.key.wanted == frozenset([1]):
            needed = set(self.formulas.conjuncts(residue[0]))
        musts = [question for question in questions if question.atom in needed and question.if_false == FALSE]
        others = [question for question in questions if not (question.atom in needed and question.if_false == FALSE)]
        must = self.formulas.and_(question.formula for question in musts)
        asked = list(dict.fromkeys([must, *(question.formula for question in others)]))

        def after(truths: Truths) -> State | None:
            answer = dict(zip(asked, truths, strict=True))
            if not answer[must]:
                return None
            values = {question.atom: question.if_true for question in musts}
            for question in others:
                values[question.atom] = question.if_true if answer[question.formula] else question.if_false
            left = self.substitute(residue, values)
            return then(left) if self.is_possible(left) else None

        add_value(row, self.formulas, asked, after)


class ArrayProcedure(_Container):
    """States: "start"; ("open" | "item" | "next" | "counted", index, residue, region)."""

    @cached_property
    def thresholds(self) -> tuple[int, ...]:
        """Item counts at which an atom with a large count is decided."""
        found: set[int] = set()
        for _, atom in self.atoms(self.key.formulas):
            if isinstance(atom, ItemsAtLeast) and atom.count > LARGE_COUNT:
                found.add(atom.count)
            elif isinstance(atom, ItemsAtMost) and atom.count > LARGE_COUNT:
                found.add(atom.count + 1)
        return tuple(sorted(found))

    @cached_property
    def prefix_len(self) -> int:
        lengths = [len(atom.prefix) for _, atom in self.atoms(self.key.formulas) if isinstance(atom, Items)]
        return max(lengths, default=0)

    def expand(self, state: State) -> Row:
        row = Row()
        if state == "start":
            row.add((ord("["),), LazyMove(("open", 0, self.key.formulas, 0)))
            return row
        assert isinstance(state, tuple)
        place, index, residue, region = state
        if place in ("open", "next"):
            self.layout.anywhere(row, state)
            label = self.label(self._ended(residue))
            if label is not None:
                row.add((ord("]"),), Return(label, consumes=True))
        if place == "next":
            row.add((ord(","),), LazyMove(("item", index, residue, region)))
        elif place == "item":
            self.layout.after_separator(row, state, ("bare", index, residue, region))
        if place in ("open", "item", "bare"):
            self._begin_item(row, index, residue, region)
        elif place == "counted":
            self._item(row, index, residue, region)
        return row

    def _begin_item(self, row: Row, index: int, residue: Residue, region: int) -> None:
        if region == len(self.thresholds):
            self._item(row, index, residue, region)
            return
        threshold = self.thresholds[region]
        reached = self._reached(residue, threshold)
        above = ("counted", index, reached, region + 1) if self.is_possible(reached) else None
        beginnings = (*_DIGITS, *b'"[{tfn')
        row.add(beginnings, LazyCount(threshold, ("counted", index, residue, region), above))

    def _reached(self, residue: Residue, num_items: int) -> Residue:
        values = {}
        for formula, atom in self.atoms(residue):
            if isinstance(atom, ItemsAtLeast) and atom.count == num_items:
                values[formula] = TRUE
            elif isinstance(atom, ItemsAtMost) and atom.count + 1 == num_items:
                values[formula] = FALSE
        return self.substitute(residue, values)

    def _item(self, row: Row, index: int, residue: Residue, region: int) -> None:
        values: dict[int, int] = {}
        questions: list[Question] = []
        for formula, atom in self.atoms(residue):
            match atom:
                case Items(prefix, rest):
                    about = prefix[index] if index < len(prefix) else rest
                    if about == FALSE:
                        values[formula] = FALSE
                    elif about != TRUE:
                        questions.append(Question(formula, about, formula, FALSE))
                case ContainsAtLeast(about, count):
                    fewer = self.formulas.atom(ContainsAtLeast(about, count - 1)) if count > 1 else TRUE
                    questions.append(Question(formula, about, fewer, formula))
                case ContainsAtMost(about, count):
                    fewer = self.formulas.atom(ContainsAtMost(about, count - 1)) if count > 0 else FALSE
                    questions.append(Question(formula, about, fewer, formula))
                case ItemsAtLeast(count) if count <= LARGE_COUNT:
                    values[formula] = self.formulas.atom(ItemsAtLeast(count - 1)) if count > 1 else TRUE
                case ItemsAtMost(count) if count <= LARGE_COUNT:
                    values[formula] = self.formulas.atom(ItemsAtMost(count - 1)) if count > 0 else FALSE
        # An atom that both steps and is asked about does not occur; so the plain steps can come first.
        left = self.substitute(residue, values)
        if not self.is_possible(left):
            return
        alive = set(self.formulas.atoms(*left))
        after_index = min(index + 1, self.prefix_len)
        questions = [question for question in questions if question.atom in alive]
        self.ask(row, left, questions, lambda new: ("next", after_index, new, region))

    def _ended(self, residue: Residue) -> Residue:
        values = {}
        for formula, atom in self.atoms(residue):
            values[formula] = FALSE if isinstance(atom, (ContainsAtLeast, ItemsAtLeast)) else TRUE
        return self.substitute(residue, values)


class ObjectProcedure(_Container):
    """Properties come in the order of `names`; others after them.

    States: "start"; ("open" | "key" | "next", next name, residue); ("quoted", next name, residue, trie node);
    ("colon" | "value", next name, residue, questions).
    """

    def __init__(self, formulas: Formulas, key: ValueKey, layout: Layout) -> None:
        super().__init__(formulas, key, layout)
        self._known_reachable: dict[tuple[int, Residue], frozenset[int]] = {}
        self._known_members: dict[tuple[Residue, str | None, int, int], State | None] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every property that some atom names, in the order of the schema."""
        found: dict[str, None] = {}
        atoms = [atom for _, atom in self.atoms(self.key.formulas)]
        for atom in atoms:
            if isinstance(atom, Properties):
                found.update(dict.fromkeys(name for name, _ in atom.named))
        for atom in atoms:
            if isinstance(atom, Required):
                found.setdefault(atom.name)
        return tuple(sorted(found) if self.layout.property_order == "sorted" else found)

    @cached_property
    def _offers_others(self) -> bool:
        """Whether properties that are not in `names` are generated where they are allowed."""
        listing = [atom for _, atom in self.atoms(self.key.formulas) if isinstance(atom, Properties) and atom.named]
        return self.layout.open_objects or not listing or any(atom.speaks_of_others for atom in listing)

    @cached_property
    def _about_names(self) -> tuple[int, ...]:
        """What has to be known of the name of a property that is not in `names`."""
        found: dict[int, None] = {}
        for _, atom in self.atoms(self.key.formulas):
            if isinstance(atom, Properties):
                found.update((self.formulas.atom(Pattern(pattern)), None) for pattern, _ in atom.patterns)
            elif isinstance(atom, Names):
                found[self.formulas.specialise(atom.formula, "string")] = None
        return tuple(formula for formula in found if formula not in (FALSE, TRUE))

    @cached_property
    def _trie(self) -> list[TrieNode]:
        """The spellings of the names between the quotes: children, the name that ends here, the names below."""
        return spelling_trie(self.names)

    def expand(self, state: State) -> Row:
        row = Row()
        if state == "start":
            row.add((ord("{"),), LazyMove(("open", 0, self.key.formulas)))
            return row
        assert isinstance(state, tuple)
        place = state[0]
        if place in ("open", "next", "key", "bare key"):
            self._between(row, state)
        elif place == "quoted":
            self._in_name(row, state)
        elif place == "colon":
            self.layout.anywhere(row, state)
            row.add((ord(":"),), LazyMove(("value", *state[1:])))
        else:
            _, index, residue, questions = state
            if place == "value":
                self.layout.after_separator(row, state, ("bare value", *state[1:]))
            self.ask(row, residue, questions, lambda left: ("next", index, left))
        return row

    def _between(self, row: Row, state: tuple[str, int, Residue]) -> None:
        place, index, residue = state
        if place in ("open", "next"):
            self.layout.anywhere(row, state)
            label = self.label(self._ended(residue, index))
            if label is not None:
                row.add((ord("}"),), Return(label, consumes=True))
        if place == "next":
            row.add((ord(","),), LazyMove(("key", index, residue)))
            return
        if place == "key":
            self.layout.after_separator(row, state, ("bare key", index, residue))
        self._begin_name(row, index, residue)

    def _begin_name(self, row: Row, index: int, residue: Residue) -> None:
        rest = self._skipped(residue, index, len(self.names))
        if (
            self._offers_others
            and self.is_possible(rest)
            and any(
                self._member(rest, None, bits, len(self.names)) for bits in range(1 << min(len(self._about_names), 6))
            )
        ):
            row.add((ord('"'),), LazyCall(KeysKey(self.names, self._about_names), self._after_name(index, residue)))
        elif self._reachable(index, residue):
            row.add((ord('"'),), LazyMove(("quoted", index, residue, 0)))

    def _reachable(self, index: int, residue: Residue) -> frozenset[int]:
        """Names that may come next."""
        known = self._known_reachable.get((index, residue))
        if known is None:
            known = self._known_reachable[index, residue] = self._find_reachable(index, residue)
        return known

    def _find_reachable(self, index: int, residue: Residue) -> frozenset[int]:
        found = set()
        for number in range(index, len(self.names)):
            left = self._skipped(residue, index, number)
            if not self.is_possible(left):
                break
            if self._member(left, self.names[number], 0, number + 1):
                found.add(number)
        return frozenset(found)

    def _in_name(self, row: Row, state: tuple[str, int, Residue, int]) -> None:
        _, index, residue, node = state
        reachable = self._reachable(index, residue)
        children, ended, _ = self._trie[node]
        for byte, child in children.items():
            if self._trie[child][2] & reachable:
                row.add((byte,), LazyMove(("quoted", index, residue, child)))
        if ended is not None and ended in reachable:
            target = self._after_name(index, residue)(ended + (1 << len(self._about_names)))
            assert target is not None
            row.add((ord('"'),), LazyMove(target))

    def _after_name(self, index: int, residue: Residue) -> Callable[[int], State | None]:
        num_others = 1 << len(self._about_names)

        def after(label: int) -> State | None:
            if label < num_others:
                left = self._skipped(residue, index, len(self.names))
                return self._member(left, None, label, len(self.names))
            number = label - num_others
            if number < index:
                return None
            left = self._skipped(residue, index, number)
            return self._member(left, self.names[number], 0, number + 1) if self.is_possible(left) else None

        return after

    def _skipped(self, residue: Residue, start: int, end: int) -> Residue:
        """The residue once it is clear that names[start:end] do not come."""
        names = set(self.names[start:end])
        gone = [f for f, atom in self.atoms(residue) if isinstance(atom, Required) and atom.name in names]
        return self.substitute(residue, dict.fromkeys(gone, FALSE))

    def _member(self, residue: Residue, name: str | None, bits: int, next_index: int) -> State | None:
        """The state behind a property's name: `name` is declared, or None and `bits` say which of `_about_names`
        hold of it."""
        key = (residue, name, bits, next_index)
        if key not in self._known_members:
            self._known_members[key] = self._find_member(*key)
        return self._known_members[key]

    def _find_member(self, residue: Residue, name: str | None, bits: int, next_index: int) -> State | None:
        about = {formula: bool(bits >> bit & 1) for bit, formula in enumerate(self._about_names)}
        values: dict[int, int] = {}
        questions: list[Question] = []
        for formula, atom in self.atoms(residue):
            match atom:
                case Required(required) if required == name:
                    values[formula] = TRUE
                case PropertiesAtLeast(count):
                    values[formula] = self.formulas.atom(PropertiesAtLeast(count - 1)) if count > 1 else TRUE
                case PropertiesAtMost(count):
                    values[formula] = self.formulas.atom(PropertiesAtMost(count - 1)) if count > 0 else FALSE
                case Names(name_formula):
                    if not self._holds_of_name(name_formula, name, about):
                        values[formula] = FALSE
                case Properties():
                    value = self._value_formula(atom, name, about)
                    if value == FALSE:
                        values[formula] = FALSE
                    elif value != TRUE:
                        questions.append(Question(formula, value, formula, FALSE))
        left = self.substitute(residue, values)
        if not self.is_possible(left):
            return None
        alive = set(self.formulas.atoms(*left))
        return ("colon", next_index, left, tuple(question for question in questions if question.atom in alive))

    def _value_formula(self, atom: Properties, name: str | None, about: dict[int, bool]) -> int:
        applying = [formula for declared, formula in atom.named if declared == name]
        for pattern, formula in atom.patterns:
            if self._holds_of_name(self.formulas.atom(Pattern(pattern)), name, about):
                applying.append(formula)
        return self.formulas.and_(applying) if applying else atom.rest

    def _holds_of_name(self, formula: int, name: str | None, about: dict[int, bool]) -> bool:
        special = self.formulas.specialise(formula, "string")
        if special in (FALSE, TRUE):
            return special == TRUE
        return about[special] if name is None else holds_of_text(self.formulas, special, name)

    def _ended(self, residue: Residue, index: int) -> Residue:
        left = self._skipped(residue, index, len(self.names))
        values = {}
        for formula, atom in self.atoms(left):
            values[formula] = FALSE if isinstance(atom, (PropertiesAtLeast, Required)) else TRUE
        return self.substitute(left, values)


def holds_of_text(formulas: Formulas, special: int, text: str) -> bool:
    """Whether a formula about strings holds of a given text."""
    values = {}
    for formula in formulas.atoms(special):
        atom = formulas.atom_of(formula)
        assert isinstance(atom, StringAtom)
        values[formula] = TRUE if string_holds(atom, text) else FALSE
    return formulas.substitute(special, values) == TRUE
