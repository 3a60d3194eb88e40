"""Owns objects as procedures that are explored as far as they are reached."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.explore import LazyCall, LazyMove, Row
from sgrun.grammar.procedure import Return
from sgrun.grammar.scalars import string_holds
from sgrun.grammar.schema.atoms import Names, Properties, PropertiesAtLeast, PropertiesAtMost, Required
from sgrun.grammar.schema.containers import MAX_LISTED, Container, Layout, Question, Residue, State, ValueKey
from sgrun.grammar.schema.formula import FALSE, TRUE, Formulas
from sgrun.grammar.schema.repeats import can_be_repeated
from sgrun.grammar.schema.spelling import TrieNode, spelling_trie
from sgrun.grammar.strings import Pattern, StringAtom

MAX_ANY_ORDER = 6  # names whose every set is a place in an object


@dataclass(frozen=True, slots=True)
class KeysKey:
    """A procedure for property names: for names[i] the label i + 2 ** len(formulas), for others the bits of which
    `formulas` (about strings) hold."""

    names: tuple[str, ...]
    formulas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Reachable:
    """Names that may come next, by their numbers in order, with the states behind them."""

    states: dict[int, State]
    numbers: frozenset[int]


@dataclass(slots=True)
class _Open:
    """The atoms that are left in a residue (formula ids), by what they are about."""

    required: dict[int, int] = field(default_factory=dict)  # number of the name -> atom
    at: list[int] = field(default_factory=list)  # the numbers of the required names, in order
    properties: list[tuple[int, Properties]] = field(default_factory=list)
    others: list[tuple[int, PropertiesAtLeast | PropertiesAtMost | Names]] = field(default_factory=list)


class ObjectProcedure(Container):
    """Properties come in the order of `names`, others after them; or all of them in any order.

    States: "start"; ("open" | "key" | "bare key" | "next", place, residue); ("quoted", place, residue, trie node);
    ("colon" | "value" | "bare value", member). A place is the number of the next name; in any order, the set of names
    that have come, as bits. A member is a property whose name has been read.
    """

    def __init__(self, formulas: Formulas, key: ValueKey, layout: Layout, repeatable: set[int]) -> None:
        """To `repeatable` go the atoms (formula ids) that a repeated name can make a difference to."""
        super().__init__(formulas, key, layout)
        self._repeatable = repeatable
        self._is_any_order = layout.property_order == "any"
        self._known_open: dict[Residue, _Open] = {}
        self._known_reachable: dict[tuple[int, Residue], _Reachable] = {}
        self._without: dict[tuple[Residue, int], Residue | None] = {}
        self._known_ends: dict[int, float] = {}
        self._declared: dict[int, dict[str, int]] = {}
        self._states: dict[tuple[Residue, int | None, int, int], State | None] = {}
        self._numbers: dict[tuple[int, Residue, tuple[Question, ...]], int] = {}
        self._members: list[tuple[int, Residue, tuple[Question, ...]]] = []

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every property that some atom names, in the order in which they come."""
        found: dict[str, None] = {}
        atoms = [atom for _, atom in self.atoms(self.key.formulas)]
        for atom in atoms:
            if isinstance(atom, Properties):
                found.update(dict.fromkeys(name for name, _ in atom.named))
        for atom in atoms:
            if isinstance(atom, Required):
                found.setdefault(atom.name)
        if self._is_any_order and len(found) > MAX_ANY_ORDER:
            raise GrammarTooLargeError(
                f"an object of {len(found)} listed properties cannot have them in any order: at most {MAX_ANY_ORDER} "
                "may; use property_order='schema' or 'sorted'"
            )
        return tuple(sorted(found) if self.layout.property_order == "sorted" else found)

    def _to_come(self, place: int) -> Iterable[int]:
        """The numbers of the names that may still come."""
        if self._is_any_order:
            return [number for number in range(len(self.names)) if not place >> number & 1]
        return range(place, len(self.names))

    def _behind(self, place: int, number: int | None) -> int:
        """The place behind a property: a declared one by its number, or another one."""
        if self._is_any_order:
            return place if number is None else place | 1 << number
        return len(self.names) if number is None else number + 1

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def _offers_others(self) -> bool:
        """Whether properties that are not in `names` are generated where they are allowed."""
        listing = [atom for _, atom in self.atoms(self.key.formulas) if isinstance(atom, Properties) and atom.named]
        return self.layout.open_objects or not listing or any(atom.speaks_of_others for atom in listing)

    @cached_property
    def _keys(self) -> KeysKey:
        """The names, and what has to be known of the name of a property that is not one of them."""
        found: dict[int, None] = {}
        for _, atom in self.atoms(self.key.formulas):
            if isinstance(atom, Properties):
                found.update((self.formulas.atom(Pattern(pattern)), None) for pattern, _ in atom.patterns)
            elif isinstance(atom, Names):
                found[self.formulas.specialise(atom.formula, "string")] = None
        return KeysKey(self.names, tuple(formula for formula in found if formula not in (FALSE, TRUE)))

    @cached_property
    def _trie(self) -> list[TrieNode]:
        """The spellings of the names between the quotes: children, the name that ends here, the names below."""
        return spelling_trie(self.names)

    def expand(self, state: State) -> Row:
        if state == "start":
            return Row([((ord("{"),), LazyMove(("open", 0, self.key.formulas)))])
        assert isinstance(state, tuple)
        place = state[0]
        if place in ("key", "value") and not self.layout.is_compact:
            return self.layout.after_separator(state, (f"bare {place}", *state[1:]))
        row = Row()
        if place == "quoted":
            self._in_name(row, *state[1:])
        elif place == "colon":
            self.layout.anywhere(row, state)
            row.add((ord(":"),), LazyMove(("value", state[1])))
        elif place in ("value", "bare value"):
            index, residue, questions = self._members[state[1]]
            self.ask(row, residue, questions, lambda left: ("next", index, self._settled(left, index)))
        else:
            self._between(row, state)
        return row

    def _between(self, row: Row, state: tuple[str, int, Residue]) -> None:
        place, index, residue = state
        if place in ("open", "next"):
            self.layout.anywhere(row, state)
            label = self.label(self._ended(residue))
            if label is not None:
                row.add((ord("}"),), Return(label, consumes=True))
        if place == "next":
            row.add((ord(","),), LazyMove(("key", index, residue)))
        elif self._offers_others and self._allows_others(index, residue):
            row.add((ord('"'),), LazyCall(self._keys, self._after_name(index, residue)))
        elif (reachable := self._reachable(index, residue)).states:
            begun, then = self._spelled(index, residue, 0, reachable)
            row.add((ord('"'),), LazyMove(begun, then))

    def _allows_others(self, index: int, residue: Residue) -> bool:
        rest = self._skipped(residue, index, len(self.names))
        if rest is None:
            return False
        if len(self._keys.formulas) > MAX_LISTED:
            return True  # where it is not so, no label is wanted
        place = self._behind(index, None)
        return any(self._member(rest, None, bits, place) for bits in range(1 << len(self._keys.formulas)))

    def _after_name(self, index: int, residue: Residue) -> Callable[[int], State | None]:
        num_others = 1 << len(self._keys.formulas)

        def after(label: int) -> State | None:
            number = label - num_others
            if number >= 0 and number not in self._to_come(index):
                return None
            left = self._skipped(residue, index, number if number >= 0 else len(self.names))
            if left is None:
                return None
            if number >= 0:
                return self._member(left, number, 0, self._behind(index, number))
            return self._member(left, None, label, self._behind(index, None))

        return after

    def _reachable(self, index: int, residue: Residue) -> _Reachable:
        known = self._known_reachable.get((index, residue))
        if known is None:
            states: dict[int, State] = {}
            for number in self._to_come(index):
                left = self._skipped(residue, index, number)
                if left is None:
                    break
                member = self._member(left, number, 0, self._behind(index, number))
                if member is not None:
                    states[number] = member
            known = self._known_reachable[index, residue] = _Reachable(states, frozenset(states))
        return known

    def _in_name(self, row: Row, index: int, residue: Residue, node: int) -> None:
        reachable = self._reachable(index, residue)
        children, ended, _ = self._trie[node]
        for byte, child in children.items():
            if not self._trie[child][2].isdisjoint(reachable.numbers):
                state, then = self._spelled(index, residue, child, reachable)
                row.add((byte,), LazyMove(state, then))
        if ended is not None and ended in reachable.numbers:
            row.add((ord('"'),), LazyMove(reachable.states[ended]))

    def _spelled(self, index: int, residue: Residue, node: int, reachable: _Reachable) -> tuple[State, bytes]:
        """Where a node of the trie leads: the next state in which more than one byte may come, and the bytes before it.

        What has been skipped for sure counts as skipped, so that names share their states wherever they may come.
        """
        then = bytearray()
        while True:
            children, ended, below = self._trie[node]
            possible = [edge for edge in children.items() if not self._trie[edge[1]][2].isdisjoint(reachable.numbers)]
            if ended is not None and ended in reachable.numbers:
                if possible:
                    break
                return reachable.states[ended], bytes(then) + b'"'
            if len(possible) > 1:
                break
            [(byte, node)] = possible
            then.append(byte)
        if self._is_any_order:
            return ("quoted", index, residue, node), bytes(then)
        first = min(below & reachable.numbers)
        left = self._skipped(residue, index, first)
        assert left is not None, "a name that is reached leaves something"
        return ("quoted", first, left, node), bytes(then)

    def _open(self, residue: Residue) -> _Open:
        known = self._known_open.get(residue)
        if known is None:
            known = self._known_open[residue] = _Open()
            for formula, atom in self.atoms(residue):
                match atom:
                    case Required(name):
                        known.required[self._number_of[name]] = formula
                    case Properties():
                        known.properties.append((formula, atom))
                    case PropertiesAtLeast() | PropertiesAtMost() | Names():
                        known.others.append((formula, atom))
            known.at = sorted(known.required)
        return known

    def _settled(self, residue: Residue, index: int) -> Residue:
        """The residue without what no property from names[index] on can violate."""
        if self._is_any_order:
            return residue
        done = {formula: TRUE for formula, atom in self._open(residue).properties if self._ends(formula, atom) <= index}
        return self.substitute(residue, done)

    def _ends(self, formula: int, atom: Properties) -> float:
        """The number of the name from which on the atom accepts whatever comes."""
        if formula not in self._known_ends:
            asking = [self._number_of[name] + 1 for name, inner in atom.named if inner != TRUE]
            is_open = not atom.patterns and self.formulas.decided(atom.rest) == TRUE
            self._known_ends[formula] = max(asking, default=0) if is_open else inf
        return self._known_ends[formula]

    def _skipped(self, residue: Residue, start: int, end: int) -> Residue | None:
        """The residue once it is clear that names[start:end] do not come; None if nothing wanted is left."""
        if self._is_any_order:  # then they may come later
            return residue
        while True:
            open_ = self._open(residue)
            at = bisect_left(open_.at, start)
            if at == len(open_.at) or open_.at[at] >= end:
                return residue
            number = open_.at[at]
            if (residue, number) not in self._without:
                left = self.substitute(residue, {open_.required[number]: FALSE})
                self._without[residue, number] = left if self.is_possible(left) else None
            after = self._without[residue, number]
            if after is None:
                return None
            residue, start = after, number + 1

    def _member(self, residue: Residue, number: int | None, bits: int, place: int) -> State | None:
        """The state behind a property's name: a declared one by its number, or None and `bits` say which of the asked
        formulas hold of it."""
        key = (residue, number, bits, place)
        if key not in self._states:
            self._states[key] = self._find_member(*key)
        return self._states[key]

    def _find_member(self, residue: Residue, number: int | None, bits: int, place: int) -> State | None:
        name = None if number is None else self.names[number]
        about = {formula: bool(bits >> bit & 1) for bit, formula in enumerate(self._keys.formulas)}
        open_ = self._open(residue)
        values: dict[int, int] = {}
        questions: list[Question] = []
        if number in open_.required:
            values[open_.required[number]] = TRUE
        for formula, atom in open_.others:
            match atom:
                case PropertiesAtLeast(count, total):
                    values[formula] = self.formulas.atom(PropertiesAtLeast(count - 1, total)) if count > 1 else TRUE
                case PropertiesAtMost(count, total):
                    values[formula] = self.formulas.atom(PropertiesAtMost(count - 1, total)) if count > 0 else FALSE
                case Names(name_formula):
                    if not self._holds_of_name(name_formula, name, about):
                        values[formula] = FALSE
        for formula, properties in open_.properties:
            value = self.formulas.decided(self._value_formula(formula, properties, name, about))
            if value == FALSE:
                values[formula] = FALSE
            elif value != TRUE:
                questions.append(Question(formula, value, formula, FALSE))
        left = self.substitute(residue, values)
        if not self.is_possible(left):
            return None
        if values:
            alive = set(self.formulas.atoms(*left))
            questions = [question for question in questions if question.atom in alive]
        if number is None:
            self._note_repeatable(open_, left, questions)
        member = (place, left, tuple(questions))
        found = self._numbers.setdefault(member, len(self._members))
        if found == len(self._members):
            self._members.append(member)
        return "colon", found

    def _note_repeatable(self, open_: _Open, left: Residue, questions: list[Question]) -> None:
        """A property that is not declared comes: what does its repetition make a difference to?"""
        for _, atom in open_.others:
            if isinstance(atom, PropertiesAtLeast | PropertiesAtMost) and can_be_repeated(atom):
                self._repeatable.add(self.formulas.atom(replace(atom, count=atom.total)))
        for question in questions:
            if self.is_possible(self.substitute(left, {question.atom: FALSE})):
                self._repeatable.add(question.atom)

    def _value_formula(self, formula: int, atom: Properties, name: str | None, about: dict[int, bool]) -> int:
        declared = self._declared.get(formula)
        if declared is None:
            declared = self._declared[formula] = {}
            for other, inner in atom.named:
                declared[other] = self.formulas.and_((declared[other], inner)) if other in declared else inner
        applying = [declared[name]] if name is not None and name in declared else []
        for pattern, inner in atom.patterns:
            if self._holds_of_name(self.formulas.atom(Pattern(pattern)), name, about):
                applying.append(inner)
        value = self.formulas.and_(applying) if applying else atom.rest
        outcomes = set(self.formulas.by_kind(value).values())
        return outcomes.pop() if outcomes in ({FALSE}, {TRUE}) else value

    def _holds_of_name(self, formula: int, name: str | None, about: dict[int, bool]) -> bool:
        special = self.formulas.specialise(formula, "string")
        if special in (FALSE, TRUE):
            return special == TRUE
        return about[special] if name is None else holds_of_text(self.formulas, special, name)

    def _ended(self, residue: Residue) -> Residue:
        values = {}
        for formula, atom in self.atoms(residue):
            values[formula] = FALSE if isinstance(atom, (PropertiesAtLeast, Required)) else TRUE
        return self.substitute(residue, values)


def holds_of_text(formulas: Formulas, special: int, text: str) -> bool:
    """Whether a formula about strings holds of a given text."""
    values = {}
    for formula in formulas.atoms(special):
        atom = formulas.atom_of(formula)
        assert isinstance(atom, StringAtom)
        values[formula] = TRUE if string_holds(atom, text) else FALSE
    return formulas.substitute(special, values) == TRUE
