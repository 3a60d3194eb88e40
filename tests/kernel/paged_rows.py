"""Rows of random keys and values in shuffled pages, and their attention in plain float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sgrun_kernels import reference


def empty_caches(num_pages: int, page_size: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> list[Tensor]:
    """K and V full of NaN, so that reading a place that nothing was stored to shows."""
    shape = (num_pages, page_size, num_kv_heads, head_dim)
    return [torch.full(shape, math.nan, dtype=dtype) for _ in range(2)]


class PagedRows:
    """`page_tables` [R, P] over `k_cache` and `v_cache`, of rows with `seq_lens` tokens."""

    def __init__(
        self,
        seq_lens: list[int],
        page_size: int,
        num_q_heads: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
    ) -> None:
        self.seq_lens = seq_lens
        self.num_q_heads, self.num_kv_heads, self.head_dim = num_q_heads, num_kv_heads, head_dim
        self.dtype = dtype
        num_pages = [-(-seq_len // page_size) for seq_len in seq_lens]
        # Page 0 stays unwritten: it is what unused entries of a page table name.
        self.k_cache, self.v_cache = empty_caches(sum(num_pages) + 3, page_size, num_kv_heads, head_dim, dtype)
        pages = (torch.randperm(sum(num_pages) + 2) + 1).tolist()
        self.page_tables = torch.zeros(len(seq_lens), max(num_pages), dtype=torch.int64)
        self.k, self.v = [], []
        for row, (seq_len, count) in enumerate(zip(seq_lens, num_pages, strict=True)):
            self.page_tables[row, :count] = torch.tensor([pages.pop() for _ in range(count)])
            k, v = (torch.randn(seq_len, num_kv_heads, head_dim).to(dtype) for _ in range(2))
            positions = torch.arange(seq_len)
            slots = self.page_tables[row, positions // page_size] * page_size + positions % page_size
            reference.store_kv(k, v, self.k_cache, self.v_cache, slots)
            self.k.append(k)
            self.v.append(v)

    def queries(self, num_tokens: int) -> Tensor:
        return torch.randn(num_tokens, self.num_q_heads, self.head_dim).to(self.dtype)

    def expected(self, row: int, q: Tensor, scale: float) -> Tensor:
        """Attention of the last len(q) tokens of a row."""
        group = self.num_q_heads // self.num_kv_heads
        k, v = (part[row].double().repeat_interleave(group, dim=1) for part in (self.k, self.v))
        scores = torch.einsum("qhd,khd->hqk", q.double(), k) * scale
        seq_len = self.seq_lens[row]
        last_seen = torch.arange(seq_len - len(q), seq_len)
        scores = scores.masked_fill(torch.arange(seq_len) > last_seen[:, None], -math.inf)
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).to(q.dtype)
