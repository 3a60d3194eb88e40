"""Owns what procedure a key of the schema engine stands for, and the whole of a schema as an automaton."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from sgrun.errors import GrammarTooLargeError, UnsupportedGrammarError
from sgrun.grammar.assemble import assemble
from sgrun.grammar.automaton import Automaton, Unchecked
from sgrun.grammar.explore import ProcedureLike, Row, State
from sgrun.grammar.limits import Budget
from sgrun.grammar.numbers import NumberAtom
from sgrun.grammar.procedure import END, Return
from sgrun.grammar.scalars import number_procedure, string_procedure
from sgrun.grammar.schema.arrays import ArrayProcedure
from sgrun.grammar.schema.containers import Layout, ValueKey, add_value
from sgrun.grammar.schema.formula import FALSE, TRUE, Formulas
from sgrun.grammar.schema.keys import can_lay_out, listed_procedure, names_procedure, plain_string
from sgrun.grammar.schema.objects import KeysKey, ObjectProcedure
from sgrun.grammar.schema.reader import Reader
from sgrun.grammar.schema.repeats import misjudged
from sgrun.grammar.strings import StringAtom, TextEquals
from sgrun.types import JsonSchemaSpec

ROOT = "root"


def compile_json_schema(spec: JsonSchemaSpec, budget: Budget) -> Automaton:
    """The automaton of the JSON texts that are valid under a schema.

    Properties that the schema names come first. Raises InvalidGrammarError, UnsupportedGrammarError (both with a JSON
    pointer) and GrammarTooLargeError.
    """
    try:
        values = read_values(spec, budget)
        automaton = assemble(ROOT, values.resolve, budget)
    except RecursionError as error:
        raise GrammarTooLargeError("schemas refer to schemas too deeply, or values in it nest too deeply") from error
    return replace(automaton, checked_afterwards=values.checked_afterwards())


def read_values(spec: JsonSchemaSpec, budget: Budget) -> Values:
    reader = Reader(spec, budget)
    layout = Layout(spec.whitespace, spec.open_objects, spec.property_order)
    return Values(reader, layout, budget, reader.root(), spec.strict)


@dataclass(frozen=True, slots=True)
class Values:
    """`resolve` for `assemble`: the root procedure and all below it."""

    reader: Reader
    layout: Layout
    budget: Budget
    root: int
    is_strict: bool
    repeatable: set[int] = field(default_factory=set)  # atoms that a repeated name was met to make a difference to

    @property
    def formulas(self) -> Formulas:
        return self.reader.formulas

    def checked_afterwards(self) -> tuple[Unchecked, ...]:
        """What is not enforced, once all is explored. Raises UnsupportedGrammarError if all has to be."""
        reader = self.reader
        repeated = misjudged(reader.formulas, self.root, self.repeatable)
        about = [unchecked for atom, unchecked in reader.repeatable if atom in repeated]
        found = tuple(dict.fromkeys([*reader.checked_afterwards, *about]))
        if found and self.is_strict:
            raise UnsupportedGrammarError(
                f"{found[0].pointer}: the keyword {found[0].keyword!r} cannot be enforced here"
            )
        return found

    def resolve(self, key: Hashable) -> ProcedureLike:
        match key:
            case ValueKey("array", _, _):
                return ArrayProcedure(self.formulas, key, self.layout)
            case ValueKey("object", _, _):
                return ObjectProcedure(self.formulas, key, self.layout, self.repeatable)
            case ValueKey():
                return self._scalar(key)
            case KeysKey():
                return self._keys(key)
        assert key == ROOT
        return _Root(self)

    def _scalar(self, key: ValueKey) -> ProcedureLike:
        if key.kind == "string" and not key.formulas:
            return plain_string(0)
        listed = self._listed_texts(key)
        if listed is not None:
            return listed_procedure(listed, 1)
        ids = self.formulas.atoms(*key.formulas)

        def label_of(truths: tuple[bool, ...]) -> int | None:
            values = {atom: TRUE if truth else FALSE for atom, truth in zip(ids, truths, strict=True)}
            label = 0
            for bit, formula in enumerate(key.formulas):
                label |= (self.formulas.substitute(formula, values) == TRUE) << bit
            return label if key.wanted is None or label in key.wanted else None

        atoms = [self.formulas.atom_of(atom) for atom in ids]
        if key.kind == "number":
            return number_procedure([atom for atom in atoms if isinstance(atom, NumberAtom)], label_of, self.budget)
        return string_procedure([atom for atom in atoms if isinstance(atom, StringAtom)], label_of, self.budget)

    def _listed_texts(self, key: ValueKey) -> list[str] | None:
        """The texts of which the value has to be one, if that is all and they can be laid out."""
        if len(key.formulas) != 1 or key.wanted != frozenset([1]):
            return None
        atoms = map(self.formulas.atom_of, self.formulas.disjuncts(key.formulas[0]))
        texts = [atom.text if isinstance(atom, TextEquals) else None for atom in atoms]
        listed = [text for text in texts if text is not None]
        return listed if len(listed) == len(texts) and can_lay_out(listed) else None

    def _keys(self, key: KeysKey) -> ProcedureLike:
        if not key.formulas and can_lay_out(key.names):
            return names_procedure(key.names)
        ids = self.formulas.atoms(*key.formulas)
        names = [TextEquals(name) for name in key.names]

        def label_of(truths: tuple[bool, ...]) -> int:
            for number in range(len(names)):
                if truths[number]:
                    return number + (1 << len(key.formulas))
            values = {atom: TRUE if truth else FALSE for atom, truth in zip(ids, truths[len(names) :], strict=True)}
            label = 0
            for bit, formula in enumerate(key.formulas):
                label |= (self.formulas.substitute(formula, values) == TRUE) << bit
            return label

        atoms = [self.formulas.atom_of(atom) for atom in ids]
        about = [atom for atom in atoms if isinstance(atom, StringAtom)]
        return string_procedure([*names, *about], label_of, self.budget)


@dataclass(frozen=True, slots=True)
class _Root:
    values: Values

    def expand(self, state: State) -> Row:
        row = Row()
        if state == "start":
            self.values.layout.anywhere(row, state)
            add_value(row, self.values.formulas, self.values.root, "end")
            return row
        self.values.layout.anywhere(row, state)
        row.add((END,), Return(0, consumes=False))
        return row
