"""Owns the picture of a run: a tree of its operations with their tokens, times and errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sgrun.lang.op import Op
from sgrun.types import OpStats, ScoreResult

if TYPE_CHECKING:
    from sgrun.lang.branch import AppendRecord, Branch, ForkRecord

COLUMNS = ("op", "tokens", "cached", "computed", "ms")


@dataclass(frozen=True, slots=True)
class OpNode:
    """One operation. `num_tokens`: appended or generated, all samples together; `num_cached` and `num_computed`: of
    the prompt before it; `time_ms`: from its statement to its end. None where it does not apply or is not known yet."""

    kind: Literal["program", "append", "generate", "select", "fork", "branch"]
    line: str
    name: str | None = None
    num_tokens: int | None = None
    num_cached: int | None = None
    num_computed: int | None = None
    time_ms: float | None = None
    error: BaseException | None = None
    children: tuple[OpNode, ...] = ()

    def format(self) -> str:
        """The tree as a table for the terminal."""
        rows = [COLUMNS, *self._rows("")]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        lines = []
        for label, *cells in rows:
            padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            lines.append("  ".join([label.ljust(widths[0]), *padded]).rstrip())
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.format()

    def _rows(self, indent: str) -> Iterator[tuple[str, ...]]:
        label = f"{indent}{self.kind}" + (f" {self.name}" if self.name is not None else "") + f" ({self.line})"
        if self.error is not None:
            label += f" {type(self.error).__name__}"
        time_ms = "" if self.time_ms is None else f"{self.time_ms:.1f}"
        yield (label, _cell(self.num_tokens), _cell(self.num_cached), _cell(self.num_computed), time_ms)
        for child in self.children:
            yield from child._rows(indent + "  ")


def trace_run(branch: Branch) -> OpNode:
    """The tree from `branch` on."""
    run = branch.run
    error = run.error if run.ended.done() else None
    return OpNode("program", str(run.line), run.program, error=error, children=_children(branch))


def _children(branch: Branch) -> tuple[OpNode, ...]:
    return tuple(_node(record) for record in branch.records)


def _node(record: AppendRecord | Op | ForkRecord) -> OpNode:
    if isinstance(record, Op):
        return _op_node(record)
    line = str(record.line)
    if hasattr(record, "branches"):
        children = [
            OpNode("branch", line, str(index), children=_children(branch))
            for index, branch in enumerate(record.branches)
        ]
        return OpNode("fork", line, children=tuple(children))
    return OpNode("append", line, num_tokens=record.num_tokens)


def _op_node(op: Op) -> OpNode:
    time_ms = None if op.ended is None else (op.ended - op.started) * 1000
    if not op.future.done():
        return OpNode(op.kind, str(op.line), op.name)
    error = op.future.exception()
    if error is not None:
        return OpNode(op.kind, str(op.line), op.name, time_ms=time_ms, error=error)
    result = op.future.result()
    stats: OpStats = result.stats
    if isinstance(result, ScoreResult):
        num_tokens = len(result.choices[result.decision].token_ids) if result.decision is not None else None
    else:
        num_tokens = sum(completion.completion_tokens for completion in result.completions)
    return OpNode(op.kind, str(op.line), op.name, num_tokens, stats.cached_tokens, stats.computed_tokens, time_ms)


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)
