"""Compiles the kernels for an H100 or H200 without one: registers, spills and shared memory of each.

    PYTHONPATH=kernels python kernels/benchmarks/resources.py [--only NAME]

The launchers run on CPU tensors, so each kernel is compiled with the very arguments it is launched with, through to
machine code; nothing is launched. A table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from sgrun_kernels import automaton, sampling, step, triton_ops
from sgrun_kernels.bitmask_cache import BitmaskCache
from sgrun_kernels.rows import Adjustments, DecodeInputs, Ring, Rows
from sgrun_kernels.tables import AutomatonArena, VocabularyTables
from sgrun_kernels.workspace import SampleWorkspace, allocate_frames

MORE_DECODES = (32, 64, 96, 128)  # for each of which attention has a form of its own, with 8 key/value heads
MAX_SHARED_BYTES = 227 * 1024  # of one block on sm_90
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Resources:
    case: str
    kernel: str
    num_warps: int
    registers: int  # of a thread
    spill_bytes: int  # of a thread
    shared_bytes: int
    matrix_instructions: str  # wgmma, mma or none
    has_async_copies: bool
    awaits_previous: bool


class CompilingDriver:
    """Stands in for triton's driver of the GPU: compiles for sm_90, records what it would load, launches nothing."""

    def __init__(self) -> None:
        self.case = ""
        self.compiled: list[Resources] = []
        self.utils = self
        self.launcher_cls = self.launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": MAX_SHARED_BYTES}

    def launcher(self, source: Any, metadata: Any) -> Callable[..., None]:
        self.num_warps = metadata.num_warps
        return lambda *args: None

    def load_binary(self, name: str, binary: bytes, shared_bytes: int, device: int) -> tuple[int, int, int, int, int]:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(binary)
            file.flush()
            usage, code = (
                subprocess.run([CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True).stdout
                for option in ("--dump-resource-usage", "--dump-sass")
            )
        registers, stack, local = (
            int(re.search(rf"{what}:(\d+)", usage).group(1)) for what in ("REG", "STACK", "LOCAL")
        )
        matrix = "wgmma" if "HGMMA" in code else "mma" if "HMMA" in code else "none"
        spill_bytes = stack + local
        self.compiled.append(
            Resources(
                self.case,
                name,
                self.num_warps,
                registers,
                spill_bytes,
                shared_bytes,
                matrix,
                has_async_copies="LDGSTS" in code,
                awaits_previous="ACQBULK" in code,
            )
        )
        return 1, 1, registers, spill_bytes, 1024


def products(dtype: torch.dtype, num_rows: int, hidden: int, inner: int, qkv: int) -> None:
    """Those of a layer, with what stands before and behind them; the last one is left to the library for many rows."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    norm, token_ids = empty(hidden), torch.zeros(num_rows, dtype=torch.int32)
    embedded = triton_ops.embed_norm(token_ids, empty(128, hidden), norm, 1e-6)
    triton_ops.normed_linear(embedded, empty(qkv, hidden), empty(qkv))
    added = triton_ops.linear_add_norm(empty(num_rows, inner), empty(hidden, inner), None, embedded, norm)
    triton_ops.normed_linear(added, empty(qkv, hidden))
    triton_ops.normed_gate_up(added, empty(2 * inner, hidden))
    triton_ops.normed_linear(added, empty(2**24 // hidden, hidden))


def operations(dtype: torch.dtype, num_rows: int, hidden: int, inner: int, heads: int, kv_heads: int, dim: int) -> None:
    """Each operation of a layer: rows that decode, and as many that extend by 40 tokens of 3,000; attention of more."""
    qkv_heads, page_size = heads + 2 * kv_heads, 16

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    def ids(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int32)

    products(dtype, num_rows, hidden, inner, qkv_heads * dim)
    triton_ops.add_rms_norm(empty(num_rows, hidden), empty(num_rows, hidden), empty(hidden), 1e-6)
    triton_ops.silu_mul(empty(num_rows, 2 * inner))
    k_cache, v_cache = empty(64, page_size, kv_heads, dim), empty(64, page_size, kv_heads, dim)
    triton_ops.copy_kv(k_cache, v_cache, ids(3), ids(3))
    cos, sin = triton_ops.rotations(ids(num_rows), torch.empty(dim // 2), dtype)
    head_norm = empty(dim)
    triton_ops.norm_rope_store(
        empty(num_rows, qkv_heads, dim), head_norm, head_norm, 1e-6, cos, sin, k_cache, v_cache, ids(num_rows)
    )
    for decodes, shares in product((num_rows, *MORE_DECODES), (False, True)):
        plan = triton_ops.plan_decode(ids(decodes, 64), ids(decodes), 1024, k_cache, heads, shares_prefixes=shares)
        triton_ops.decode_attention(empty(decodes, heads, dim), k_cache, v_cache, plan, 0.1)
    extend_plan = triton_ops.plan_extend(
        ids(num_rows, 64), ids(num_rows), ids(num_rows + 1), [3000] * num_rows, [40] * num_rows, k_cache, heads
    )
    triton_ops.extend_attention(empty(40 * num_rows, heads, dim), k_cache, v_cache, extend_plan, 0.1)


def step_of_rows(dtype: torch.dtype, vocab_size: int, sizes: Sequence[int]) -> None:
    """What steps of several numbers of rows do beside the forward pass: masks, draws, commits, the next inputs."""
    cpu, max_rows = torch.device("cpu"), max(sizes)
    rows, all_ids = Rows.allocate(max_rows, 64, cpu), torch.zeros(max_rows, dtype=torch.int32)
    adjustments, arena = Adjustments.allocate(1, vocab_size, cpu), AutomatonArena.allocate(1024, 1, cpu)
    vocabulary = VocabularyTables(
        torch.zeros((16, vocab_size), dtype=torch.uint8), torch.ones(vocab_size, dtype=torch.int16)
    )
    cache = BitmaskCache.allocate(max_rows, vocabulary.num_words, cpu)
    workspace, frames = SampleWorkspace.allocate(max_rows, vocab_size, cpu), allocate_frames(cpu)
    for num_rows in sizes:
        row_ids, logits = all_ids[:num_rows], torch.empty((num_rows, vocab_size), dtype=dtype)
        automaton.row_masks_(row_ids, rows, arena, vocabulary, cache, frames)
        sampling.sample_(logits, row_ids, rows, cache.bits, adjustments, workspace)
        step.commit_step_(row_ids, rows, Ring.allocate(4, max_rows, cpu), adjustments, cache)
        step.decode_inputs_(row_ids, rows, DecodeInputs.allocate(num_rows, 64, cpu), 16, 0)


CASES: dict[str, Callable[[], None]] = {
    "llama-8b": lambda: operations(torch.bfloat16, 2, 4096, 14336, 32, 8, 128),
    "qwen3-0.6b": lambda: operations(torch.bfloat16, 2, 1024, 3072, 16, 8, 128),
    "32-rows": lambda: products(torch.bfloat16, 32, 1024, 3072, 4096),
    "smollm2-32-rows": lambda: products(torch.float16, 32, 576, 1536, 960),
    "smollm2": lambda: operations(torch.float16, 2, 576, 1536, 9, 3, 64),
    "head-80": lambda: operations(torch.bfloat16, 2, 2560, 6912, 32, 32, 80),
    "head-256": lambda: operations(torch.bfloat16, 2, 2048, 8192, 8, 1, 256),
    "float32": lambda: operations(torch.float32, 2, 576, 1536, 9, 3, 64),
    "sampling": lambda: step_of_rows(torch.bfloat16, 128256, (1, 2, 16, 48, 256)),
    "odd-vocab": lambda: step_of_rows(torch.float32, 151937, (2,)),
}


def compiled(names: list[str]) -> list[Resources]:
    """What each kernel of the named cases takes; raises where one does not compile or fit."""
    driver = CompilingDriver()
    triton.runtime.driver.set_active(driver)
    for name in names:
        driver.case = name
        CASES[name]()
    return driver.compiled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(CASES), nargs="*", default=list(CASES))
    rows = compiled(parser.parse_args().only)
    print(f"{'case':<12}{'kernel':<26}{'warps':>6}{'regs':>6}{'spill':>7}{'shared':>9}  {'matrix':<7}async copies")
    for row in rows:
        print(
            f"{row.case:<12}{row.kernel:<26}{row.num_warps:>6}{row.registers:>6}{row.spill_bytes:>7}"
            f"{row.shared_bytes:>9}  {row.matrix_instructions:<7}{'yes' if row.has_async_copies else 'no'}"
        )
    print(
        json.dumps({"benchmark": "resources", "triton": triton.__version__, "kernels": [asdict(row) for row in rows]})
    )


if __name__ == "__main__":
    main()
