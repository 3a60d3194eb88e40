"""What an engine has done since its start."""

from __future__ import annotations

from dataclasses import dataclass

from sgrun.engine.scheduler import Row


@dataclass(slots=True)
class Counters:
    """See `EngineStats`."""

    num_steps: int = 0
    num_failures: int = 0
    extend_tokens: int = 0
    decode_tokens: int = 0
    cached_tokens: int = 0
    forced_tokens: int = 0

    def add_computed(self, row: Row) -> None:
        """Counts what a step has computed of a row, also for the row's own statistics."""
        task = row.task
        if row.num_tokens == 1 and row.start >= task.prompt_len:
            self.decode_tokens += 1
            return
        self.extend_tokens += row.num_tokens
        if not task.is_counted:
            task.is_counted = True
            self.cached_tokens += row.start
        task.timing.computed_tokens += row.num_tokens
