"""Paged attention against the time that its bytes or operations take, and against torch's over contiguous memory.

    PYTHONPATH=kernels python kernels/benchmarks/attention.py [--heads 32 8 128] [--smoke]

Decodes: rows of one length each, in shuffled pages of 16 tokens, in caches that take turns and share a page table, as
those of layers do; the floor is the bytes of keys and values over a copy's bandwidth. Shared: such rows on the same
first tokens, bundled and each by itself; the floor counts the bytes of these tokens once. Extends: rows of some new
tokens over a cached prefix; TFLOP/s of the places that are seen. torch attends over the same tokens without pages, with
a mask where there is a prefix.
`--smoke` runs tiny shapes anywhere. A table and, last, one JSON line.
"""

from __future__ import annotations

import copy
import os
from argparse import ArgumentParser
from functools import partial

import torch
import torch.nn.functional as F

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from timing import copy_bandwidth, median_us, num_cold_copies, print_result
from torch import Tensor

from sgrun_kernels import reference, triton_ops

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if torch.cuda.is_available() else torch.float32  # the interpreter cannot multiply bfloat16
PAGE_SIZE = 16
SHARED = [(batch, shared, 96) for shared in (512, 2048, 8192) for batch in (4, 8, 16, 64, 256)]
DECODES = [(batch, context) for context in (576, 2112, 8192) for batch in (1, 8, 32, 64, 128, 256)]
EXTENDS = [(1, 512, 0), (8, 512, 0), (1, 2048, 0), (4, 2048, 0), (1, 8192, 0), (1, 512, 8192)]
EXTENDS += [(1, 8, 8192), (4, 64, 8192), (16, 8, 2048)]


class Paged:
    """Keys and values of `num_rows` rows of `seq_len` tokens in shuffled pages, the first `shared` the same ones."""

    def __init__(
        self, num_rows: int, seq_len: int, num_heads: int, num_kv_heads: int, head_dim: int, shared: int = 0
    ) -> None:
        self.num_rows, self.seq_len = num_rows, seq_len
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        row_pages, shared_pages = -(-seq_len // PAGE_SIZE), shared // PAGE_SIZE
        num_pages = num_rows * (row_pages - shared_pages) + shared_pages
        shape = (num_pages, PAGE_SIZE, num_kv_heads, head_dim)
        self.k_cache, self.v_cache = (torch.randn(shape, device=DEVICE, dtype=DTYPE) for _ in range(2))
        pages = torch.randperm(num_pages, device=DEVICE, dtype=torch.int32)
        own = pages[shared_pages:].view(num_rows, -1)
        self.page_tables = torch.cat([pages[:shared_pages].expand(num_rows, -1), own], dim=1)
        self.seq_lens = torch.full((num_rows,), seq_len, device=DEVICE, dtype=torch.int32)

    def in_another_layer(self) -> Paged:
        """The same rows and pages with keys and values of their own."""
        layer = copy.copy(self)
        layer.k_cache, layer.v_cache = (torch.randn_like(cache) for cache in (self.k_cache, self.v_cache))
        return layer

    def queries(self, num_tokens: int) -> Tensor:
        return torch.randn(num_tokens, self.num_heads, self.head_dim, device=DEVICE, dtype=DTYPE)

    def kv_bytes(self) -> int:
        """Of the pages in use, those of the last tokens in full."""
        return 2 * self.k_cache.nbytes

    def contiguous(self) -> list[Tensor]:
        """Keys and values [num_rows, Hk, seq_len, D] without pages."""
        return [
            cache[self.page_tables].flatten(1, 2)[:, : self.seq_len].transpose(1, 2).contiguous()
            for cache in (self.k_cache, self.v_cache)
        ]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.float() - expected.float()).norm() / expected.float().norm()).item()


def decode(heads: tuple[int, int, int], batch: int, context: int, bandwidth: float) -> dict[str, object]:
    num_copies = num_cold_copies(2 * batch * context * heads[1] * heads[2] * DTYPE.itemsize)
    rows = Paged(batch, context, *heads)
    plan = triton_ops.plan_decode(rows.page_tables, rows.seq_lens, context, rows.k_cache, heads[0])
    scale = heads[2] ** -0.5
    calls, torch_calls = [], []
    for of in [rows, *(rows.in_another_layer() for _ in range(num_copies - 1))]:
        q = of.queries(batch)
        calls.append(partial(triton_ops.decode_attention, q, of.k_cache, of.v_cache, plan, scale))
        k, v = of.contiguous()
        grouped = q.view(batch, heads[1], heads[0] // heads[1], heads[2])
        torch_calls.append(partial(F.scaled_dot_product_attention, grouped, k, v, scale=scale))
    error = relative_error(calls[0](), torch_calls[0]().reshape(batch, heads[0], heads[2]))
    assert error < 0.02, f"relative error {error:.3g}"
    return {
        "kind": "decode",
        "rows": batch,
        "new": 1,
        "cached": context - 1,
        "us": median_us(calls),
        "floor_us": 1e6 * rows.kv_bytes() / bandwidth,
        "torch_us": median_us(torch_calls),
    }


def shared(heads: tuple[int, int, int], batch: int, prefix: int, own: int, bandwidth: float) -> dict[str, object]:
    rows = Paged(batch, prefix + own, *heads, shared=prefix)
    layers = [rows, *(rows.in_another_layer() for _ in range(num_cold_copies(rows.kv_bytes()) - 1))]
    queries = rows.queries(batch)
    outs, times = [], []
    for is_bundled in (True, False):
        plan = triton_ops.plan_decode(
            rows.page_tables, rows.seq_lens, prefix + own, rows.k_cache, heads[0], shares_prefixes=is_bundled
        )
        calls = [
            partial(triton_ops.decode_attention, queries, of.k_cache, of.v_cache, plan, heads[2] ** -0.5)
            for of in layers
        ]
        outs.append(calls[0]())
        times.append(median_us(calls))
    error = relative_error(*outs)
    assert error < 1e-5, f"relative error {error:.3g}"
    return {
        "kind": "shared",
        "rows": batch,
        "new": own,
        "cached": prefix,
        "us": times[0],
        "floor_us": 1e6 * rows.kv_bytes() / bandwidth,
        "alone_us": times[1],
    }


def extend(heads: tuple[int, int, int], num_rows: int, new: int, cached: int, bandwidth: float) -> dict[str, object]:
    of = Paged(num_rows, cached + new, *heads)
    scale = heads[2] ** -0.5
    q = of.queries(num_rows * new)
    starts = torch.arange(num_rows + 1, device=DEVICE) * new
    lens = [cached + new] * num_rows, [new] * num_rows
    plan = triton_ops.plan_extend(of.page_tables, of.seq_lens, starts, *lens, of.k_cache, heads[0])
    call = partial(triton_ops.extend_attention, q, of.k_cache, of.v_cache, plan, scale)
    k, v = of.contiguous()
    mask = None if not cached else reference.causal_mask(cached + new, new, DEVICE)
    torch_call = partial(
        F.scaled_dot_product_attention,
        q.view(num_rows, new, heads[0], heads[2]).transpose(1, 2),
        k,
        v,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=True,
    )
    error = relative_error(call().view(num_rows, new, heads[0], heads[2]), torch_call().transpose(1, 2))
    assert error < 0.02, f"relative error {error:.3g}"
    seen = num_rows * (new * cached + new * (new + 1) // 2)
    us = median_us([call])
    return {
        "kind": "extend",
        "rows": num_rows,
        "new": new,
        "cached": cached,
        "us": us,
        "floor_us": 1e6 * of.kv_bytes() / bandwidth,
        "torch_us": median_us([torch_call]),
        "tflops": 4 * seen * heads[0] * heads[2] / us / 1e6,
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--heads", nargs=3, type=int, default=[32, 8, 128], metavar=("Hq", "Hk", "D"))
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    heads = (4, 2, 32) if args.smoke else tuple(args.heads)
    bandwidth, results = copy_bandwidth(), []
    print(
        f"{'kind':<8}{'rows':>5}{'new':>6}{'cached':>8}{'us':>10}{'x floor':>9}{'TFLOP/s':>9}{'torch us':>10}"
        f"{'alone us':>10}"
    )
    cases = [partial(decode, heads, *case, bandwidth) for case in ([(2, 300)] if args.smoke else DECODES)]
    cases += [partial(shared, heads, *case, bandwidth) for case in ([(3, 256, 20)] if args.smoke else SHARED)]
    cases += [partial(extend, heads, *case, bandwidth) for case in ([(2, 20, 30)] if args.smoke else EXTENDS)]
    for case in cases:
        row = case()
        print(
            f"{row['kind']:<8}{row['rows']:>5}{row['new']:>6}{row['cached']:>8}{row['us']:>10.2f}"
            f"{row['us'] / row['floor_us']:>9.2f}{row.get('tflops', 0):>9.0f}{row.get('torch_us', 0):>10.2f}"
            f"{row.get('alone_us', 0):>10.2f}",
            flush=True,
        )
        results.append(row)
    print_result("attention", bandwidth, results)


if __name__ == "__main__":
    main()
