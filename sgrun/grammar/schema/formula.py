"""Boolean formulas over assertions about a JSON value: interned, simplified, and evaluated step by step.

A formula is an int. Atoms are what a keyword asserts of one kind of value (`atoms.py`, `numbers.py`, `strings.py`); on
values of another kind they hold. References stand for formulas of other places in the schema and are followed when
the formula is specialised to a kind of value, so that recursion through nested values is finite.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Literal

from sgrun.errors import InvalidGrammarError

Kind = Literal["null", "true", "false", "number", "string", "array", "object"]
KINDS: tuple[Kind, ...] = ("null", "true", "false", "number", "string", "array", "object")

FALSE = 0
TRUE = 1


class Formulas:
    """An arena of formulas. `follow` gives the formula of a reference's target."""

    def __init__(self, kind_of: Callable[[Hashable], Kind | None], follow: Callable[[Hashable], int]) -> None:
        self._kind_of = kind_of
        self._follow = follow
        self._nodes: list[tuple[str, tuple[Hashable, ...]]] = [("false", ()), ("true", ())]
        self._ids: dict[tuple[str, Hashable], int] = {("false", ()): FALSE, ("true", ()): TRUE}
        self._specialised: dict[tuple[int, Kind], int] = {}
        self._open: list[tuple[Hashable, Kind]] = []
        self._by_kind: dict[int, dict[Kind, int]] = {}
        self._atoms: dict[tuple[int, ...], list[int]] = {}

    def _intern(self, op: str, args: tuple[Hashable, ...], key: Hashable = None) -> int:
        """The number of a formula; `key` says which arguments are the same formula if their order is not to count."""
        name = (op, args if key is None else key)
        found = self._ids.get(name)
        if found is None:
            found = self._ids[name] = len(self._nodes)
            self._nodes.append((op, args))
        return found

    def atom(self, atom: Hashable) -> int:
        return self._intern("atom", (atom,))

    def is_kind(self, *kinds: Kind) -> int:
        return self._intern("kind", tuple(sorted(set(kinds)))) if kinds else FALSE

    def reference(self, target: Hashable) -> int:
        return self._intern("ref", (target,))

    def not_(self, formula: int) -> int:
        if formula in (FALSE, TRUE):
            return 1 - formula
        op, args = self._nodes[formula]
        return int(args[0]) if op == "not" else self._intern("not", (formula,))  # type: ignore[call-overload]

    def and_(self, formulas: Iterable[int]) -> int:
        return self._junction("and", formulas, TRUE)

    def or_(self, formulas: Iterable[int]) -> int:
        return self._junction("or", formulas, FALSE)

    def implies(self, condition: int, consequence: int) -> int:
        return self.or_((self.not_(condition), consequence))

    def exactly_one(self, formulas: Iterable[int]) -> int:
        """Kept as one node until all but one are decided: spelled out it would square the formula."""
        num_true = 0
        open_: list[int] = []
        for formula in formulas:
            if formula == TRUE:
                num_true += 1
            elif formula != FALSE:
                open_.append(formula)
        if num_true > 1:
            return FALSE
        if num_true == 1:
            return self.and_(map(self.not_, open_))
        if len(open_) < 2:
            return open_[0] if open_ else FALSE
        return self._intern("one", tuple(open_), tuple(sorted(open_)))

    def _junction(self, op: str, formulas: Iterable[int], neutral: int) -> int:
        absorbing = 1 - neutral
        parts: dict[int, None] = {}  # in the order of the schema, which is the order of an object's properties
        for formula in formulas:
            if formula == absorbing:
                return absorbing
            if formula == neutral:
                continue
            inner, args = self._nodes[formula]
            if inner == op:
                parts.update(dict.fromkeys(args))  # type: ignore[arg-type]
            else:
                parts[formula] = None
        for part in parts:
            inner, args = self._nodes[part]
            if inner == "not" and args[0] in parts:
                return absorbing
        if len(parts) < 2:
            return next(iter(parts), neutral)
        return self._intern(op, tuple(parts), frozenset(parts))

    def conjuncts(self, formula: int) -> tuple[int, ...]:
        op, args = self._nodes[formula]
        return args if op == "and" else (formula,)  # type: ignore[return-value]

    def disjuncts(self, formula: int) -> tuple[int, ...]:
        op, args = self._nodes[formula]
        return args if op == "or" else (formula,)  # type: ignore[return-value]

    def atom_of(self, formula: int) -> Hashable | None:
        """The atom that this formula is, None if it is something else."""
        op, args = self._nodes[formula]
        return args[0] if op == "atom" else None

    def specialise(self, formula: int, kind: Kind) -> int:
        """What is left of a formula for a value of this kind: no references, and only atoms about this kind.

        Raises InvalidGrammarError for a reference that leads back to itself without entering a value.
        """
        key = (formula, kind)
        found = self._specialised.get(key)
        if found is None:
            found = self._specialised[key] = self._specialise(formula, kind)
        return found

    def by_kind(self, formula: int) -> dict[Kind, int]:
        """What is left of a formula for a value of each kind. Raises as `specialise` does."""
        found = self._by_kind.get(formula)
        if found is None:
            found = self._by_kind[formula] = {kind: self.specialise(formula, kind) for kind in KINDS}
        return found

    def decided(self, formula: int) -> int:
        """TRUE or FALSE if that is what every value makes of the formula, whatever its kind; else the formula."""
        if formula in (FALSE, TRUE):
            return formula
        found = set(self.by_kind(formula).values())
        return found.pop() if found in ({FALSE}, {TRUE}) else formula

    def _specialise(self, formula: int, kind: Kind) -> int:
        op, args = self._nodes[formula]
        if op == "kind":
            return TRUE if kind in args else FALSE
        if op == "atom":
            return formula if self._kind_of(args[0]) == kind else TRUE
        if op == "ref":
            opened = (args[0], kind)
            if opened in self._open:
                raise InvalidGrammarError(
                    f"{args[0]}: the reference leads only to itself; it says nothing of any value"
                )
            self._open.append(opened)
            target = self.specialise(self._follow(args[0]), kind)
            self._open.pop()
            return target
        return self._map(formula, lambda part: self.specialise(part, kind))

    def _map(self, formula: int, change: Callable[[int], int]) -> int:
        op, args = self._nodes[formula]
        parts: tuple[int, ...] = args  # type: ignore[assignment]
        match op:
            case "not":
                return self.not_(change(parts[0]))
            case "and":
                return self.and_(map(change, parts))
            case "or":
                return self.or_(map(change, parts))
            case "one":
                return self.exactly_one(map(change, parts))
        return formula

    def substitute(self, formula: int, values: Mapping[int, int]) -> int:
        """Replaces atoms (their formula ids) by formulas, and simplifies."""
        memo: dict[int, int] = {}

        def change(part: int) -> int:
            if part in values:
                return values[part]
            if part not in memo:
                memo[part] = self._map(part, change)
            return memo[part]

        return change(formula)

    def atoms(self, *formulas: int) -> list[int]:
        """The atoms (their formula ids) in the given formulas, in the order of the schema."""
        found = self._atoms.get(formulas)
        if found is None:
            found = self._atoms[formulas] = self._find_atoms(formulas)
        return found

    def signed_atoms(self, formula: int, kind: Kind) -> set[tuple[int, bool]]:
        """The atoms (their formula ids) in a formula that has been specialised to this kind, with whether the formula
        holds the rather when they hold or when they fail; some do both. None where it has not been specialised."""
        special = self._specialised.get((formula, kind), FALSE)
        found: set[tuple[int, bool]] = set()
        waiting = [(special, True)]
        seen = set(waiting)
        while waiting:
            part, is_positive = waiting.pop()
            op, args = self._nodes[part]
            if op == "atom":
                found.add((part, is_positive))
                continue
            if op in ("false", "true"):
                continue
            signs = {"not": (not is_positive,), "one": (True, False)}.get(op, (is_positive,))
            below = [(int(inner), sign) for inner in args for sign in signs]  # type: ignore[call-overload]
            waiting += [use for use in below if use not in seen]
            seen.update(below)
        return found

    def _find_atoms(self, formulas: tuple[int, ...]) -> list[int]:
        seen: set[int] = set()
        found: list[int] = []
        waiting = list(reversed(formulas))
        while waiting:
            formula = waiting.pop()
            if formula in seen:
                continue
            seen.add(formula)
            op, args = self._nodes[formula]
            if op == "atom":
                found.append(formula)
            elif op in ("not", "and", "or", "one"):
                waiting.extend(reversed(args))  # type: ignore[arg-type]
        return found
