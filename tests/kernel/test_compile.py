"""Every kernel compiles for an H100 or H200, with the arguments that real models give it, on a machine without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "kernels" / "benchmarks" / "resources.py"
MATRIX_KERNELS = {"_stream_kernel": "mma", "_decode_kernel": "mma", "_extend_hopper_kernel": "wgmma"}
SAMPLING_KERNELS = {"scan_kernel", "_draw_kernel"}
MASK_KERNELS = {"_advance_kernel", "_claim_kernel", "_mask_kernel"}
ROW_KERNELS = SAMPLING_KERNELS | MASK_KERNELS | {"_commit_kernel", "_inputs_kernel"}


@pytest.fixture(scope="module")
def kernels() -> list[dict[str, object]]:
    # Not under the interpreter, which the tests beside this one run in.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, SCRIPT, "--only", "llama-8b", "32-rows", "sampling"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return json.loads(run.stdout.splitlines()[-1])["kernels"]


def test_products_run_on_tensor_cores_and_load_ahead(kernels: list[dict[str, object]]) -> None:
    found = [row for row in kernels if row["kernel"] in MATRIX_KERNELS]
    assert {row["kernel"] for row in found} == MATRIX_KERNELS.keys()
    for row in found:
        assert row["has_async_copies"], row
        expected = "wgmma" if row["case"] == "32-rows" else MATRIX_KERNELS[str(row["kernel"])]
        assert row["matrix_instructions"] == expected, row


def test_no_kernel_spills_registers(kernels: list[dict[str, object]]) -> None:
    # Cosine and sine of large angles keep a table on the stack; the warps that load keep four numbers of a tile there.
    # The kernels of masks and sampling are held to few registers: too few where a mask's program has looked at many
    # rows, and where the last program of a row searches. So is attention where four programs are to fit side by side.
    allowed = {"_rotations_kernel": 64, "_extend_hopper_kernel": 16, "_decode_kernel": 32}
    allowed |= {"_mask_kernel": 64, "scan_kernel": 512, "_draw_kernel": 2048}
    assert not [row for row in kernels if row["spill_bytes"] > allowed.get(str(row["kernel"]), 0)]


def test_two_products_of_many_rows_do_not_fit_on_one_multiprocessor(kernels: list[dict[str, object]]) -> None:
    """The programs of the next product would crowd on those that are free first."""
    shared = [row["shared_bytes"] for row in kernels if (row["case"], row["kernel"]) == ("32-rows", "_stream_kernel")]
    assert shared
    assert all(113 * 1024 < int(str(size)) <= 227 * 1024 for size in shared), shared


def test_steps_of_any_number_of_rows_share_two_compilations(kernels: list[dict[str, object]]) -> None:
    """Otherwise a server would stop to compile whenever its batch has another size for the first time."""
    times_compiled = Counter(row["kernel"] for row in kernels if row["case"] == "sampling")
    assert times_compiled.keys() == ROW_KERNELS
    assert max(times_compiled.values()) <= 2, times_compiled


def test_masks_draws_and_commits_leave_room_for_others(kernels: list[dict[str, object]]) -> None:
    """Masks run beside the forward pass, and what reads the logits hides the memory's delay with many threads."""
    allowed = {"scan_kernel": 64, "_draw_kernel": 128, "_mask_kernel": 128}
    assert not [row for row in kernels if row["registers"] > allowed.get(str(row["kernel"]), 255)]


def test_attention_leaves_room_for_as_many_programs_as_are_to_run_at_once(kernels: list[dict[str, object]]) -> None:
    forms = [row for row in kernels if row["kernel"] == "_decode_kernel"]
    fitting = Counter(min(65536 // (row["registers"] * 128), 227 // (row["shared_bytes"] // 1024 + 1)) for row in forms)
    assert fitting == {2: 2, 3: 7, 4: 2}  # each form with and without bundles, and the launch of bundles


def test_overlapping_kernels_wait_for_the_one_before(kernels: list[dict[str, object]]) -> None:
    overlapping = {row["kernel"] for row in kernels if row["case"] != "sampling"} - {"_extend_hopper_kernel"}
    assert "_complete_norm_kernel" in overlapping
    overlapping |= {"_draw_kernel", "_commit_kernel"}
    assert all(row["awaits_previous"] == (row["kernel"] in overlapping) for row in kernels)
