"""The small operations of a layer against the time that their bytes take.

    PYTHONPATH=kernels python kernels/benchmarks/norms.py [--smoke]

Shapes of Llama 8B, for decodes of 1 to 256 rows and an extend of 8,192 tokens; "torch" is the reference operation on
the same device. `--smoke` runs tiny shapes anywhere. A table and, last, one JSON line.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from timing import copy_bandwidth, median_us, print_result
from torch import Tensor

from sgrun_kernels import reference, triton_ops

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Sizes:
    hidden: int = 4096
    inner: int = 14336
    num_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128
    page_size: int = 16


SMOKE = Sizes(hidden=64, inner=96, num_heads=4, num_kv_heads=2, head_dim=16, page_size=4)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=DTYPE)


def operations(ops: object, sizes: Sizes, num_tokens: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Name -> (call, bytes that it has to move)."""
    x, residual, norm = normal(num_tokens, sizes.hidden), normal(num_tokens, sizes.hidden), normal(sizes.hidden)
    gate_up = normal(num_tokens, 2 * sizes.inner)
    num_pages = -(-2 * num_tokens // sizes.page_size)
    shape = (num_pages, sizes.page_size, sizes.num_kv_heads, sizes.head_dim)
    k_cache, v_cache = normal(*shape), normal(*shape)
    slots = torch.randperm(num_pages * sizes.page_size, device=DEVICE)
    positions = torch.arange(num_tokens, device=DEVICE)
    inv_freq = torch.rand(sizes.head_dim // 2, device=DEVICE)
    cos, sin = reference.rotations(positions, inv_freq, DTYPE)
    qkv = normal(num_tokens, sizes.num_heads + 2 * sizes.num_kv_heads, sizes.head_dim)
    head_norm = normal(sizes.head_dim)
    src, dst = slots[:num_tokens], slots[num_tokens : 2 * num_tokens]
    item = DTYPE.itemsize
    return {
        "add_rms_norm": (lambda: ops.add_rms_norm(x, residual, norm, 1e-5), 4 * x.numel() * item),
        "silu_mul": (lambda: ops.silu_mul(gate_up), 3 * gate_up.numel() // 2 * item),
        "rotations": (lambda: ops.rotations(positions, inv_freq, DTYPE), 2 * cos.numel() * item),
        "norm_rope_store": (
            lambda: ops.norm_rope_store(qkv, head_norm, head_norm, 1e-6, cos, sin, k_cache, v_cache, src),
            2 * qkv.numel() * item,
        ),
        "copy_kv": (
            lambda: ops.copy_kv(k_cache, v_cache, src, dst),
            4 * num_tokens * sizes.num_kv_heads * sizes.head_dim * item,
        ),
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    bandwidth, results = copy_bandwidth(), []
    print(f"{'operation':<17}{'tokens':>7}{'us':>9}{'GB/s':>7}{'x floor':>9}{'torch us':>10}")
    for num_tokens in [3] if args.smoke else [1, 8, 64, 256, 8192]:
        sizes = SMOKE if args.smoke else Sizes()
        ours = operations(triton_ops, sizes, num_tokens)
        theirs = operations(reference, sizes, num_tokens)
        for name, (call, num_bytes) in ours.items():
            us, torch_us = median_us([call]), median_us([theirs[name][0]])
            floor_us = 1e6 * num_bytes / bandwidth
            print(
                f"{name:<17}{num_tokens:>7}{us:>9.2f}{num_bytes / us / 1e3:>7.0f}{us / floor_us:>9.2f}{torch_us:>10.2f}"
            )
            results.append(
                {"operation": name, "tokens": num_tokens, "us": us, "floor_us": floor_us, "torch_us": torch_us}
            )
    print_result("norms", bandwidth, results)


if __name__ == "__main__":
    main()
