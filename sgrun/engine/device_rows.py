"""Owns which running sample has which row of the device's state, and what is written there when it starts or resumes.

Host code on top of `sgrun_kernels.rows`; nothing here waits for the device.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from sgrun.cache.prefix_cache import Lease
from sgrun.engine.device_automata import DeviceAutomata, put_place
from sgrun.engine.generation import SampleTask
from sgrun.engine.scheduler import Row
from sgrun.engine.sequence import Task
from sgrun.engine.transfer import to_device
from sgrun.grammar.automaton import Automaton
from sgrun_kernels.rows import Adjustments, Records, Rows, new_records, words_of


@dataclass(slots=True)
class _Placed:
    """A sample's row. The sample has left it once its lease is another, or none."""

    row_id: int
    lease: Lease
    num_pages: int = 0  # of the lease's pages, those that the device has
    automaton: Automaton | None = None
    slot: int | None = None  # of the adjustments


class DeviceRows:
    """Rows 0 to max_rows - 1 are for samples; row `spare` is never active."""

    def __init__(
        self, max_rows: int, max_pages: int, vocab_size: int, automata: DeviceAutomata, device: torch.device
    ) -> None:
        self.spare = max_rows
        self.rows = Rows.allocate(max_rows + 1, max_pages, device)
        self.automata = automata
        self.adjustments = Adjustments.allocate(1, vocab_size, device)  # grown when a sample first needs one
        self._device = device
        self._placed: dict[Task, _Placed] = {}
        self._free = list(range(max_rows - 1, -1, -1))
        self._free_slots: list[int] = []

    def row_id(self, task: Task) -> int:
        return self._placed[task].row_id

    def is_placed(self, row: Row) -> bool:
        """Whether the row's task goes on from what the device has of it."""
        return row.task in self._placed

    def update(self, tasks: list[SampleTask]) -> bool:
        """Brings the device up to date before a step of `tasks`, once those that have ended have left: writes the rows
        of new samples (all of their tokens are known), and gives all of them the pages they have got since. Returns
        whether anything that steps read stands elsewhere now."""
        adjustments, arena = self.adjustments, self.automata.arena
        new = [task for task in tasks if task not in self._placed]
        if new:
            self._place(new)
        self._give_pages(tasks)
        return self.adjustments is not adjustments or self.automata.arena is not arena

    def leave(self) -> None:
        """Takes off the rows whose samples have ended or been sent back."""
        ended = [task for task, placed in self._placed.items() if task.lease is not placed.lease]
        if not ended:
            return
        left = [self._placed.pop(task) for task in ended]
        for placed in left:
            self._free.append(placed.row_id)
            if placed.automaton is not None:
                self.automata.release(placed.automaton)
            if placed.slot is not None:
                self._free_slots.append(placed.slot)
        self.rows.deactivate_(to_device(np.array([placed.row_id for placed in left]), self._device))

    def _place(self, tasks: list[SampleTask]) -> None:
        records = new_records(len(tasks))
        row_ids = []
        for number, task in enumerate(tasks):
            assert task.lease is not None
            placed = _Placed(self._free.pop(), task.lease)
            self._placed[task] = placed
            row_ids.append(placed.row_id)
            record = records[number : number + 1]
            _write_sampling(record, task)
            if task.matcher is not None:
                placed.automaton = task.matcher.automaton
                put_place(records, number, self.automata.acquire(placed.automaton), task.matcher.cursor)
                record["can_end"] = not task.params.ignore_eos
            if task.params.is_adjusted:
                record["adjustment"] = placed.slot = self._adjust(task)
        ids = to_device(np.array(row_ids), self._device)
        self.rows.write_(ids, to_device(words_of(records).numpy(), self._device))

    def _give_pages(self, tasks: list[SampleTask]) -> None:
        entries: list[tuple[int, int, int]] = []
        for task in tasks:
            placed = self._placed[task]
            pages = placed.lease.pages
            entries += [(placed.row_id, column, pages[column]) for column in range(placed.num_pages, len(pages))]
            placed.num_pages = len(pages)
        if entries:
            row_ids, columns, pages_ = to_device(np.array(entries).T.copy(), self._device)
            self.rows.page_tables[row_ids, columns] = pages_.int()

    def _adjust(self, task: SampleTask) -> int:
        """Fills a slot with what a sample's prompt, output and bias do to its logits."""
        num_slots, vocab_size = self.adjustments.seen.shape
        if num_slots < self.spare:
            self.adjustments = Adjustments.allocate(self.spare, vocab_size, self._device)
            self._free_slots = list(range(self.spare))
        slot = self._free_slots.pop()
        seen = np.zeros(vocab_size, dtype=np.int32)
        for token_id, count in Counter(task.tokens[task.prompt_len :]).items():
            seen[token_id] = 2 * count
        seen[task.tokens[: task.prompt_len]] |= 1
        bias = np.zeros(vocab_size, dtype=np.float32)
        for token_id, value in task.params.logit_bias.items():
            bias[token_id] = value
        self.adjustments.seen[slot] = to_device(seen, self._device)
        self.adjustments.bias[slot] = to_device(bias, self._device)
        return slot


def _write_sampling(record: Records, task: SampleTask) -> None:
    params = task.params
    seed = task.seed
    record["seed"] = seed - 2**64 if seed >= 2**63 else seed
    record["temperature"] = 0.0 if params.is_greedy else params.temperature
    if params.top_k > 0:
        record["top_k"] = params.top_k
    record["top_p"], record["min_p"] = params.top_p, params.min_p
    record["frequency_penalty"], record["presence_penalty"] = params.frequency_penalty, params.presence_penalty
    record["repetition_penalty"] = params.repetition_penalty
    record["wants_logprob"] = params.logprobs
    record["position"], record["ban_until"] = task.num_outputs, params.min_tokens
    record["remaining"] = params.max_tokens - task.num_outputs
    record["is_active"] = 1
    record["seq_len"] = len(task.tokens)
    record["stop_ids"][0, : len(task.stop_ids)] = task.stop_ids
