"""Rows, arenas and vocabularies as the kernels see them, from the host's objects."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor
from sgrun_kernels.rows import Rows, new_records, words_of
from sgrun_kernels.tables import AutomatonArena, VocabularyTables, pack_automaton

DEVICE = torch.get_default_device()


def implementations(twin: ModuleType, kernels: ModuleType) -> list[ModuleType]:
    """What a test runs: both, but on a GPU only the kernels. The twin goes through rows in numpy."""
    return [kernels] if DEVICE.type == "cuda" else [twin, kernels]


def rows_of(records: Any, max_pages: int = 1) -> Rows:
    """Rows of their own on the tests' device; the records are copied."""
    rows = Rows.allocate(len(records), max_pages, DEVICE)
    rows.words.copy_(words_of(records))
    return rows


def records_of(rows: Rows) -> Any:
    """The records of rows, copied to the host."""
    return Rows(rows.words.cpu().clone(), rows.page_tables.cpu()).records()


def all_ids(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.int32)


def arena_of(automata: list[Automaton]) -> AutomatonArena:
    """Automata side by side, behind 3 words that belong to none."""
    words, heads = [np.full(3, -1, dtype=np.int32)], []
    for constraint, automaton in enumerate(automata, start=1):
        tables = automaton.byte_classes, automaton.table, automaton.sites, automaton.counts
        packed, head = pack_automaton(*tables, sum(map(len, words)), constraint)
        words.append(packed)
        heads.append(head)
    return AutomatonArena(
        torch.from_numpy(np.concatenate(words)).to(DEVICE), torch.from_numpy(np.stack(heads)).to(DEVICE)
    )


def tables_of(vocabulary: Vocabulary) -> VocabularyTables:
    return VocabularyTables.build(vocabulary.flat, vocabulary.offsets, vocabulary.end_token_ids, DEVICE)


def put_cursor(record: Any, automaton: int, cursor: Cursor) -> None:
    """Sets the place of records [1]; frames above it hold rubbish."""
    record["automaton"], record["state"], record["counter"] = automaton, cursor.state, cursor.counter
    record["depth"] = len(cursor.stack)
    record["stack"] = -(10**9)
    if cursor.stack:
        record["stack"][0, : len(cursor.stack)] = cursor.stack


def place_in(record: Any) -> Cursor:
    """The place of one record."""
    frames = record["stack"][: record["depth"]].tolist()
    return Cursor(int(record["state"]), int(record["counter"]), tuple((site, counter) for site, counter in frames))


def placed(places: list[tuple[int, Cursor]], can_end: bool = True) -> Any:
    """Records of active rows at (automaton, cursor)."""
    records = new_records(len(places))
    records["is_active"], records["can_end"] = 1, can_end
    for row_id, (automaton, cursor) in enumerate(places):
        put_cursor(records[row_id : row_id + 1], automaton, cursor)
    return records
