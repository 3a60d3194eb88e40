"""Owns one branch of a running program: the sequence it stands for, its text, variables and operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sgrun.errors import ClosedStateError, ProgramError, UnknownVariableError
from sgrun.lang.choices import Decider
from sgrun.lang.expr import Concat, Expr, Gen, RoleBegin, RoleEnd, Select
from sgrun.lang.op import Line, Op
from sgrun.lang.run import Run
from sgrun.lang.sampling import derive_seed, sampling_params
from sgrun.lang.transcript import Transcript
from sgrun.lang.variable import Variable, generated, selected
from sgrun.lang.waiting import Changes, wait


@dataclass(frozen=True, slots=True)
class AppendRecord:
    """Constant text that was sent; `line` is where it began."""

    line: Line
    num_tokens: int


@dataclass(frozen=True, slots=True)
class ForkRecord:
    line: Line
    branches: tuple[Branch, ...]


class Branch:
    """Operations are sent in the order of the program and never waited for here. `path`: of the forks that led here."""

    def __init__(self, run: Run, seq_id: int, path: tuple[int, ...] = ()) -> None:
        self.run = run
        self.path = path
        self.changes = Changes()
        self.transcript = Transcript()
        self.variables: dict[str, Variable] = {}
        self.records: list[AppendRecord | Op | ForkRecord] = []
        self.is_closed = False
        self._seq_id = seq_id
        self._last_op: Op | None = None
        self._num_generations = 0
        self._num_forks = 0
        run.branches.append(self)

    def append(self, expr: Expr | str, line: Line) -> None:
        """Turns `expr` into operations. Raises ProgramError, ClosedStateError, InvalidRequestError."""
        self.check_open()
        match expr:
            case str():
                self.transcript.add_text(expr, line)
            case Concat(parts):
                for part in parts:
                    self.append(part, line)
            case Gen():
                self._generate(expr, line)
            case Select():
                self._select(expr, line)
            case RoleBegin(role):
                self.transcript.begin_role(role, self.run.chat(), line)
            case RoleEnd(role):
                self.transcript.end_role(role, self.run.chat(), line)
            case _:
                raise ProgramError(f"cannot append {expr!r}; allowed: strings and expressions such as gen()")
        self.changes.announce()

    def _generate(self, gen: Gen, line: Line) -> None:
        seed = None if self.run.seed is None else derive_seed(self.run.seed, "gen", *self.path, self._num_generations)
        self._num_generations += 1
        ends = gen.typed.ends if gen.typed is not None else ()
        params = sampling_params(self.run.sampling, gen.sampling, extra_stop=ends, seed=seed)
        with_token_text = {**self.run.sampling, **gen.sampling}.get("return_text_in_logprobs") is not False
        op = self._prepare("generate", gen.name, line)
        on_chunk = op.receive if self.run.is_streaming else None
        op.follow(self.run.backend.generate(self._seq_id, params, gen.grammar, on_chunk))
        self._add(op, generated(op, gen.grammar, gen.typed, is_list=params.n > 1, with_token_text=with_token_text))

    def _select(self, select: Select, line: Line) -> None:
        decider = Decider(select.method)
        unconditional = select.method.requires_unconditional_logprobs
        op = self._prepare("select", select.name, line)
        op.follow(self.run.backend.select(self._seq_id, select.choices, decider, unconditional=unconditional))
        self._add(op, selected(op, decider))

    def _prepare(self, kind: Literal["generate", "select"], name: str | None, line: Line) -> Op:
        self.flush()
        return Op(kind, name, self.run.program, line, self._last_op)

    def _add(self, op: Op, variable: Variable) -> None:
        self._last_op = op
        self.records.append(op)
        self.transcript.add_op(op)
        if op.name is not None:
            self.variables[op.name] = variable

    def define(self, name: str, variable: Variable) -> None:
        self.variables[name] = variable
        self.changes.announce()

    def flush(self) -> None:
        """Sends the constant text that is pending."""
        pending = self.transcript.take_pending()
        if pending is not None:
            segments, line = pending
            self.records.append(AppendRecord(line, self.run.backend.append(self._seq_id, segments)))

    def fork(self, size: int, line: Line) -> tuple[Branch, ...]:
        self.check_open()
        self.flush()
        seq_ids = self.run.backend.fork(self._seq_id, size)
        branches = tuple(self._copy(seq_id, index) for index, seq_id in enumerate(seq_ids))
        self._num_forks += 1
        self.records.append(ForkRecord(line, branches))
        return branches

    def _copy(self, seq_id: int, index: int) -> Branch:
        branch = Branch(self.run, seq_id, (*self.path, self._num_forks, index))
        branch.transcript = self.transcript.copy()
        branch.variables = dict(self.variables)
        branch._last_op = self._last_op
        return branch

    def check_open(self) -> None:
        if self.is_closed:
            raise ClosedStateError(
                "this state has ended: its program returned, its forks were joined, or it was cancelled; "
                "append while the program runs"
            )

    def variable(self, name: str) -> Variable:
        """Waits for `name` where the body runs elsewhere. Raises UnknownVariableError, or why the body failed."""
        run = self.run
        if run.is_elsewhere and not run.is_inside():
            self.changes.wait_until(
                lambda: name in self.variables or run.ended.done() or (self.is_closed and not run.is_cancelled)
            )
        if name not in self.variables:
            if run.error is not None:
                raise run.error
            known = ", ".join(map(repr, self.variables)) or "none"
            raise UnknownVariableError(f"no operation defines the variable {name!r}; defined: {known}")
        return self.variables[name]

    def wait_for_part(self, index: int) -> None:
        """Returns when the text has this part, or when the caller need not wait for more."""
        run = self.run
        if run.is_elsewhere and not run.is_inside():
            self.changes.wait_until(lambda: len(self.transcript.parts) > index or self.is_closed or run.ended.done())

    def ops(self) -> list[Op]:
        """All operations in the text, those before a fork included."""
        return [part for part in self.transcript.parts if isinstance(part, Op)]

    def settle(self) -> None:
        """Waits for the operations of this branch, whatever their outcome."""
        for record in self.records:
            if isinstance(record, Op):
                wait(record.future)

    def close(self) -> None:
        """Closes the open role, sends what is pending, and ends the sequence after its operations."""
        if not self.is_closed:
            if self.transcript.open_role is not None:
                self.append(RoleEnd(self.transcript.open_role), self.run.line)
            self.flush()
            self.drop()

    def drop(self) -> None:
        """Ends the sequence after its operations, without what is pending."""
        if not self.is_closed:
            self.is_closed = True
            self.run.backend.close(self._seq_id)
            self.changes.announce()

    def abort(self) -> None:
        """Ends the sequence now; operations that are not done fail with AbortedError."""
        self.is_closed = True
        self.run.backend.abort(self._seq_id)
        self.changes.announce()

    def cancel(self) -> None:
        """Aborts this branch and those forked from it."""
        self.abort()
        for record in self.records:
            for branch in record.branches if isinstance(record, ForkRecord) else ():
                branch.cancel()
