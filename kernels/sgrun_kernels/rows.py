"""The state of running generations on the device: one row each, one record of words a row, and the rings that the host
reads results from. Plain torch and NumPy; knows nothing of kernels.

A row's record is `ROW`: 32-bit words (the seed takes two), so that a whole row is written by one copy, a kernel takes
one pointer, and NumPy sees the fields by name. Legend: L rows of a launch, R max_rows, V vocabulary, W words of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MAX_STOP_IDS = 32  # of a row: end tokens and the request's own
MAX_DEPTH = 64  # frames of a constraint's stack

# What `drawn` and a ring's token_id may be instead of a token.
NOT_FINITE = -1  # the row's logits hold NaN or infinity
NOTHING_ALLOWED = -2  # bitmask, bans and bias leave no token
NO_TOKEN = -3  # the row was not active, or its constraint was finished

# A ring's reason: why the row took itself off, 0 while it goes on.
STOPPED, OUT_OF_TOKENS, FINISHED, FAILED = range(1, 5)

ROW = np.dtype(
    [
        ("seed", "<i8"),  # 64 bits, whatever their sign
        ("temperature", "<f4"),  # 0: greedy
        ("top_k", "<i4"),  # V or more: off
        ("top_p", "<f4"),  # 1: off
        ("min_p", "<f4"),  # 0: off
        ("position", "<i4"),  # tokens sampled before
        ("frequency_penalty", "<f4"),
        ("presence_penalty", "<f4"),
        ("repetition_penalty", "<f4"),  # 1: off
        ("adjustment", "<i4"),  # slot of `Adjustments`; -1: neither penalties nor bias
        ("wants_logprob", "<i4"),
        ("ban_until", "<i4"),  # while position is below it, stop_ids are not allowed
        ("remaining", "<i4"),  # tokens that may still be sampled; at least 1 in an active row
        ("is_active", "<i4"),
        ("token_id", "<i4"),  # the input of the next decode step
        ("seq_len", "<i4"),  # tokens of the sequence, token_id included
        ("automaton", "<i4"),  # index in the arena; -1: no constraint
        ("can_end", "<i4"),  # the constraint allows end tokens where the text is complete; then they are among stop_ids
        ("state", "<i4"),
        ("counter", "<i4"),
        ("depth", "<i4"),  # frames on the stack
        ("is_accepting", "<i4"),  # written by row_masks_: the text so far is complete
        ("has_text", "<i4"),  # written by row_masks_: some token with text is allowed
        ("drawn", "<i4"),  # written by sample_
        ("drawn_logprob", "<f4"),  # written by sample_, 0 unless wants_logprob
        ("unwalked", "<i4"),  # a token that commit_step_ applied and row_masks_ has yet to walk; NO_TOKEN: none
        ("mask", "<i4"),  # written by row_masks_: the slot of its bitmask, see `BitmaskCache`
        (
            "leader",
            "<i4",
        ),  # written by row_masks_: the row of the launch that gave it its bitmask; -1: it was there
        ("padding", "<i4", (3,)),  # to whole 16-byte pieces
        ("stop_ids", "<i4", (MAX_STOP_IDS,)),  # end tokens unless ignored, and the request's own; padded with -1
        ("stack", "<i4", (MAX_DEPTH, 2)),  # (site, counter), the outermost first
    ]
)
RING = np.dtype([("token_id", "<i4"), ("reason", "<i4"), ("logprob", "<f4"), ("is_forced", "<i4")])

Records = npt.NDArray[np.void]


def new_records(num_rows: int) -> Records:
    """Records [num_rows] of inactive rows: greedy, unconstrained, nothing switched on."""
    records = np.zeros(num_rows, dtype=ROW)
    records["top_k"] = np.iinfo(np.int32).max
    records["top_p"] = records["repetition_penalty"] = 1.0
    records["adjustment"] = records["automaton"] = records["stop_ids"] = -1
    records["remaining"] = records["seq_len"] = 1
    records["unwalked"] = NO_TOKEN
    return records


@dataclass(frozen=True, slots=True)
class Rows:
    """`words` [R, W] int32: the records. `page_tables` [R, P] int32: the pages of each row's sequence; there must be
    one for every position that the launched steps can reach."""

    words: Tensor
    page_tables: Tensor

    @classmethod
    def allocate(cls, max_rows: int, max_pages: int, device: torch.device) -> Rows:
        words = words_of(new_records(max_rows)).to(device)
        return cls(words, torch.zeros((max_rows, max_pages), dtype=torch.int32, device=device))

    def write_(self, row_ids: Tensor, records: Tensor) -> None:
        """Replaces whole rows: row_ids [L] int64, records [L, W] int32 on the device (see `words_of`)."""
        self.words.index_copy_(0, row_ids, records)

    def deactivate_(self, row_ids: Tensor) -> None:
        """Takes rows [L] int64 off: they compute garbage from here on, and read no automaton."""
        self.column("is_active").index_fill_(0, row_ids, 0)
        self.column("automaton").index_fill_(0, row_ids, -1)

    def column(self, name: str) -> Tensor:
        """One field of all rows, [R], [R, 16] or [R, 64, 2] int32 or float32, sharing memory; not the seed."""
        dtype, offset = ROW.fields[name][:2]  # type: ignore[index]
        first = offset // 4
        column = self.words[:, first : first + dtype.itemsize // 4]
        column = column.view(torch.float32) if dtype.base == np.float32 else column
        return column.view(-1, *dtype.shape) if dtype.shape else column[:, 0]

    def records(self) -> Records:
        """The records [R], sharing memory; of rows on the CPU."""
        return np.asarray(self.words.numpy().view(ROW)[:, 0])


def lanes_of(num_rows: int, rows: Rows) -> int:
    """How many lanes a program has that looks at all rows of a launch: 32, or a power of two that any launch fits which
    leaves one row out, the spare one. Two sizes and no more, since a kernel is compiled for each of them."""
    return 32 if num_rows <= 32 else 1 << (max(num_rows, len(rows.words) - 1) - 1).bit_length()


def words_of(records: Records) -> Tensor:
    """[n, W] int32, sharing memory with the records [n]."""
    return torch.from_numpy(records.view(np.int32).reshape(len(records), -1))


@dataclass(frozen=True, slots=True)
class Ring:
    """What each step gave each row: `words` [size, R, 4] int32, entries of `RING`. `index` [1] int64 counts the steps
    that were committed; step i is at i % size. `arrivals` [1] int32 is 0 between launches.

    An entry is written for the rows of the launch alone. What it says, by (token_id, reason):
    (t, 0) sampled t, the row goes on. (t, STOPPED) t is one of the row's stop_ids; not part of the output.
    (t, OUT_OF_TOKENS) t is the last token of the output. A constraint that just this token finished is not noticed:
    ask the automaton. (NO_TOKEN, FINISHED) no text may follow the row's complete text; the output ended before.
    (NOT_FINITE or NOTHING_ALLOWED, FAILED). (NO_TOKEN, 0) the row was not active. A row with a reason other than 0 is
    off from this step on, and reads no automaton. `is_forced`: the constraint allowed no other token.
    """

    words: Tensor
    index: Tensor
    arrivals: Tensor

    @classmethod
    def allocate(cls, size: int, max_rows: int, device: torch.device) -> Ring:
        return cls(
            torch.zeros((size, max_rows, RING.itemsize // 4), dtype=torch.int32, device=device),
            torch.zeros(1, dtype=torch.int64, device=device),
            torch.zeros(1, dtype=torch.int32, device=device),
        )


def ring_entries(words: Tensor) -> Records:
    """Entries [...] of a ring's words [..., 4] on the CPU, sharing memory."""
    return np.asarray(words.numpy().view(RING)[..., 0])


@dataclass(frozen=True, slots=True)
class Adjustments:
    """What changes a row's logits before anything else, by slot: `seen` [slots, V] int32 is 2 x how often the output
    holds the token, + 1 if the prompt does; `bias` [slots, V] float32 is added last."""

    seen: Tensor
    bias: Tensor

    @classmethod
    def allocate(cls, num_slots: int, vocab_size: int, device: torch.device) -> Adjustments:
        return cls(
            torch.zeros((num_slots, vocab_size), dtype=torch.int32, device=device),
            torch.zeros((num_slots, vocab_size), dtype=torch.float32, device=device),
        )


@dataclass(frozen=True, slots=True)
class DecodeInputs:
    """The inputs of a decode step, at fixed addresses: token_ids, positions, slots [L] int64, seq_lens [L] int32,
    page_tables [L, P] int32, P the most pages that a row's sequence may have."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    seq_lens: Tensor
    page_tables: Tensor

    @classmethod
    def allocate(cls, num_rows: int, max_pages: int, device: torch.device) -> DecodeInputs:
        token_ids, positions, slots = torch.zeros((3, num_rows), dtype=torch.int64, device=device)
        seq_lens = torch.ones(num_rows, dtype=torch.int32, device=device)
        page_tables = torch.zeros((num_rows, max_pages), dtype=torch.int32, device=device)
        return cls(token_ids, positions, slots, seq_lens, page_tables)

    def first(self, num_rows: int, num_pages: int) -> DecodeInputs:
        """Those of the first `num_rows` rows, whose sequences have up to `num_pages` pages; shares memory."""
        return DecodeInputs(
            self.token_ids[:num_rows],
            self.positions[:num_rows],
            self.slots[:num_rows],
            self.seq_lens[:num_rows],
            self.page_tables[:num_rows, :num_pages],
        )
