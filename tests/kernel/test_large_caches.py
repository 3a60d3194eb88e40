"""Caches of more than 2^31 elements: addresses are 64-bit. Elsewhere than on a GPU only the few places used are ever
touched, so that the memory costs nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sgrun_kernels import reference, triton_ops

PAGE_SIZE, NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 16, 4, 2, 64
NUM_PAGES = 2**31 // (PAGE_SIZE * NUM_KV_HEADS * HEAD_DIM) + 4
SEQ_LEN = 30
PAGES = [NUM_PAGES - 1, NUM_PAGES - 3]


@pytest.fixture(scope="module")
def caches() -> list[Tensor]:
    """Huge ones, whose last pages hold a row of SEQ_LEN tokens."""
    huge = [torch.empty(NUM_PAGES, PAGE_SIZE, NUM_KV_HEADS, HEAD_DIM, dtype=torch.float16) for _ in range(2)]
    assert huge[0].numel() > 2**31
    torch.manual_seed(0)
    for cache in huge:
        cache[PAGES] = torch.randn(2, PAGE_SIZE, NUM_KV_HEADS, HEAD_DIM).half()
    return huge


def _tables(pages: list[int]) -> Tensor:
    return torch.tensor([pages], dtype=torch.int32)


def test_decodes_read_far_pages(caches: list[Tensor]) -> None:
    near = [cache[PAGES] for cache in caches]
    q, seq_lens = torch.randn(1, NUM_HEADS, HEAD_DIM).half(), torch.tensor([SEQ_LEN])
    outs = []
    for pages, pair in ((PAGES, caches), ([0, 1], near)):
        plan = triton_ops.plan_decode(_tables(pages), seq_lens, SEQ_LEN, pair[0], NUM_HEADS)
        outs.append(triton_ops.decode_attention(q, *pair, plan, 0.1))
    assert torch.equal(*outs)


def test_extends_read_far_pages(caches: list[Tensor]) -> None:
    near = [cache[PAGES] for cache in caches]
    q, seq_lens = torch.randn(9, NUM_HEADS, HEAD_DIM).half(), torch.tensor([SEQ_LEN])
    outs = []
    for pages, pair in ((PAGES, caches), ([0, 1], near)):
        plan = triton_ops.plan_extend(
            _tables(pages), seq_lens, torch.tensor([0, 9]), [SEQ_LEN], [9], pair[0], NUM_HEADS
        )
        outs.append(triton_ops.extend_attention(q, *pair, plan, 0.1))
    assert torch.equal(*outs)


def test_stores_and_copies_reach_far_slots(caches: list[Tensor]) -> None:
    qkv = torch.randn(1, NUM_HEADS + 2 * NUM_KV_HEADS, HEAD_DIM).half()
    inv_freq = torch.rand(HEAD_DIM // 2)
    cos, sin = reference.rotations(torch.tensor([3]), inv_freq, torch.float16)
    stored, copied = NUM_PAGES * PAGE_SIZE - PAGE_SIZE - 1, NUM_PAGES * PAGE_SIZE - PAGE_SIZE - 2
    slots = torch.tensor([stored], dtype=torch.int32)
    triton_ops.norm_rope_store(qkv, None, None, 1e-6, cos, sin, *caches, slots)
    triton_ops.copy_kv(*caches, slots, torch.tensor([copied], dtype=torch.int32))
    for slot in (stored, copied):
        values = caches[1].view(-1, NUM_KV_HEADS, HEAD_DIM)[slot]
        assert torch.equal(values, qkv[0, -NUM_KV_HEADS:])
