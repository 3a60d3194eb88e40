"""Owns a group of forks: appending to all of them, and joining them back into the state they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from sgrun.errors import ProgramError
from sgrun.lang.branch import Branch
from sgrun.lang.expr import Expr
from sgrun.lang.op import caller_line
from sgrun.lang.transcript import Part, text_of
from sgrun.lang.variable import gathered
from sgrun.lang.waiting import run_in_greenlet

if TYPE_CHECKING:
    from sgrun.lang.state import ProgramState


class ProgramStateGroup:
    """The forks of one state, in order."""

    def __init__(self, source: Branch, states: Sequence[ProgramState]) -> None:
        self._source = source
        self._states = list(states)
        self._branches = [state._branch for state in states]
        self._known = dict(source.variables)
        self._num_parts = len(source.transcript.parts)

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index: int) -> ProgramState:
        return self._states[index]

    def __setitem__(self, index: int, state: ProgramState) -> None:
        """Completes `forks[i] += expr`; a fork cannot be replaced."""
        if self._states[index] is not state:
            raise ProgramError("a fork cannot be replaced by another state; append to it with forks[i] += ...")

    def __iter__(self) -> Iterator[ProgramState]:
        return iter(self._states)

    def __iadd__(self, other: Expr | str | Sequence[Expr | str] | Callable[[int], Expr | str]) -> ProgramStateGroup:
        """Appends the same to every fork, an item of a list to each, or `other(i)` to fork i."""
        line = caller_line()
        if isinstance(other, (Expr, str)):
            exprs: Sequence[Expr | str] = [other] * len(self)
        elif callable(other):
            exprs = [other(index) for index in range(len(self))]
        else:
            exprs = other
        if len(exprs) != len(self):
            raise ProgramError(f"{len(exprs)} items were appended to {len(self)} forks; give one to each")
        for branch, expr in zip(self._branches, exprs, strict=True):
            branch.append(expr, line)
        return self

    def join(self, mode: Literal["gather_variable", "concate_and_append"] = "gather_variable") -> None:
        """Ends the forks.

        "gather_variable": every variable that a fork has defined becomes a list in the source, one item per fork, None
        where a fork has none; does not wait. "concate_and_append": the text that each fork has added is appended to
        the source, in order; waits for it and raises its error.
        """
        if mode == "gather_variable":
            self._gather()
        elif mode == "concate_and_append":
            line = caller_line()
            for branch in self._branches:
                added: list[Part] = branch.transcript.parts[self._num_parts :]
                self._source.append(text_of(added), line)
        else:
            raise ProgramError(f"join mode is {mode!r}; allowed: 'gather_variable' and 'concate_and_append'")
        for branch in self._branches:
            branch.close()

    async def ajoin(self, mode: Literal["gather_variable", "concate_and_append"] = "gather_variable") -> None:
        """`join`, awaited."""
        await run_in_greenlet(lambda: self.join(mode))

    def _gather(self) -> None:
        defined = [
            name
            for branch in self._branches
            for name, variable in branch.variables.items()
            if variable is not self._known.get(name)
        ]
        for name in dict.fromkeys(defined):
            self._source.define(name, gathered([branch.variables.get(name) for branch in self._branches]))
