"""Sequences over pages of a pool, and forwards of a decoder over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sgrun.models.decoder import Decoder
from sgrun.models.inputs import ForwardInputs


@dataclass
class Row:
    token_ids: list[int]
    pages: list[int]
    cached_len: int = 0


@dataclass
class Pool:
    """Pages handed out in random order from K/V memory full of NaN, and forwards over them."""

    decoder: Decoder
    page_size: int = 4
    num_pages: int = 64
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.decoder.config
        shape = (config.num_layers, 2, self.num_pages, self.page_size, config.num_kv_heads, config.head_dim)
        self.kv = torch.full(shape, float("nan"), dtype=self.decoder.dtype)
        self.free = torch.randperm(self.num_pages, generator=torch.Generator().manual_seed(3), device="cpu").tolist()

    def add(self, token_ids: list[int], pages: list[int] | None = None, cached_len: int = 0) -> Row:
        row = Row(token_ids, list(pages or []), cached_len)
        while len(row.pages) * self.page_size < len(token_ids):
            row.pages.append(self.free.pop())
        return row

    def grow(self, row: Row, token_id: int) -> None:
        row.token_ids.append(token_id)
        if len(row.pages) * self.page_size < len(row.token_ids):
            row.pages.append(self.free.pop())

    def slot(self, row: Row, position: int) -> int:
        return row.pages[position // self.page_size] * self.page_size + position % self.page_size

    def inputs(
        self,
        extends: list[tuple[Row, int]],
        decodes: Sequence[Row] = (),
        copies: Sequence[tuple[int, int]] = (),
        logits_rows: list[int] | None = None,
    ) -> ForwardInputs:
        """`extends`: rows with how many tokens to compute; `decodes`: rows whose last token is new."""
        work = extends + [(row, len(row.token_ids) - row.cached_len) for row in decodes]
        places = [(row, row.cached_len + i) for row, extend_len in work for i in range(extend_len)]
        starts = [0]
        for _, extend_len in work:
            starts.append(starts[-1] + extend_len)
        seq_lens = [row.cached_len + extend_len for row, extend_len in work]
        width = max((len(row.pages) for row, _ in work), default=0)
        tables = [row.pages + [0] * (width - len(row.pages)) for row, _ in work]
        return ForwardInputs(
            token_ids=_ids([row.token_ids[position] for row, position in places]),
            positions=_ids([position for _, position in places]),
            store_slots=_ids([self.slot(row, position) for row, position in places]),
            copy_src=_ids([src for src, _ in copies]),
            copy_dst=_ids([dst for _, dst in copies]),
            page_tables=_ids(tables).view(len(work), width),
            seq_lens=_ids(seq_lens),
            extend_starts=_ids(starts),
            logits_rows=_ids(list(range(len(places))) if logits_rows is None else logits_rows),
            num_extends=len(extends),
            seq_lens_host=seq_lens[: len(extends)],
            extend_lens_host=[extend_len for _, extend_len in extends],
            max_decode_len=max(seq_lens[len(extends) :], default=0),
            decodes_share=False,
        )

    def forward(
        self,
        extends: list[tuple[Row, int]],
        decodes: Sequence[Row] = (),
        copies: Sequence[tuple[int, int]] = (),
        logits_rows: list[int] | None = None,
    ) -> Tensor:
        logits = self.decoder.forward(self.inputs(extends, decodes, copies, logits_rows), self.kv)
        for row, extend_len in extends:
            row.cached_len += extend_len
        for row in decodes:
            row.cached_len = len(row.token_ids)
        return logits


def _ids(values: list[int] | list[list[int]]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
