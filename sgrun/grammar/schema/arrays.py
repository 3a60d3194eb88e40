"""Owns arrays as procedures that are explored as far as they are reached."""

from __future__ import annotations

from functools import cached_property

from sgrun.grammar.explore import LazyCount, LazyMove, Row
from sgrun.grammar.procedure import Return
from sgrun.grammar.schema.atoms import ContainsAtLeast, ContainsAtMost, Items, ItemsAtLeast, ItemsAtMost
from sgrun.grammar.schema.containers import VALUE_STARTS, Container, Question, Residue, State
from sgrun.grammar.schema.formula import FALSE, TRUE

LARGE_COUNT = 40  # counts above it run on the frame's counter
FEW_SOUGHT = 4  # formulas of items that are sought: all sets of them are asked for what is left


class ArrayProcedure(Container):
    """States: "start"; ("open" | "item" | "bare item" | "next" | "counted", index, residue, region)."""

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

    @cached_property
    def _asked_always(self) -> tuple[int, ...]:
        """Of many formulas that items are looked for with, any set may be left; asking each set would take a procedure
        for it."""
        found = [atom for _, atom in self.atoms(self.key.formulas)]
        about = dict.fromkeys(atom.formula for atom in found if isinstance(atom, ContainsAtLeast | ContainsAtMost))
        return tuple(about) if len(about) > FEW_SOUGHT else ()

    def expand(self, state: State) -> Row:
        if state == "start":
            return Row([((ord("["),), LazyMove(("open", 0, self.key.formulas, 0)))])
        assert isinstance(state, tuple)
        place, index, residue, region = state
        if place == "item" and not self.layout.is_compact:
            return self.layout.after_separator(state, ("bare item", index, residue, region))
        row = Row()
        if place in ("open", "next"):
            self.layout.anywhere(row, state)
            label = self.label(self._ended(residue))
            if label is not None:
                row.add((ord("]"),), Return(label, consumes=True))
        if place == "next":
            row.add((ord(","),), LazyMove(("item", index, residue, region)))
        elif place == "counted":
            self._item(row, index, residue, region)
        else:
            self._begin_item(row, index, residue, region)
        return row

    def _begin_item(self, row: Row, index: int, residue: Residue, region: int) -> None:
        if region == len(self.thresholds):
            self._item(row, index, residue, region)
            return
        threshold = self.thresholds[region]
        reached = self._reached(residue, threshold)
        above = ("counted", index, reached, region + 1) if self.is_possible(reached) else None
        row.add(VALUE_STARTS, LazyCount(threshold, ("counted", index, residue, region), above))

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
        is_sought = any(isinstance(atom, ContainsAtLeast | ContainsAtMost) for _, atom in self.atoms(left))
        always = self._asked_always if is_sought else ()
        self.ask(row, left, questions, lambda new: ("next", after_index, new, region), always)

    def _ended(self, residue: Residue) -> Residue:
        values = {}
        for formula, atom in self.atoms(residue):
            values[formula] = FALSE if isinstance(atom, (ContainsAtLeast, ItemsAtLeast)) else TRUE
        return self.substitute(residue, values)
