"""Decodes on the same pages stand side by side, in whatever order they are planned; read together where it pays."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import groupby
from types import SimpleNamespace

import pytest

from sgrun.cache.prefix_cache import Lease
from sgrun.engine.client import Engine
from sgrun.engine.scheduler import Row
from sgrun.engine.side_by_side import COMPARED_LEN, MIN_SHARED_LEN, MIN_SHARED_RATIO, side_by_side
from sgrun.models.inputs import ForwardInputs
from sgrun.types import SamplingParams

PAGE_SIZE = 16
UNIT = COMPARED_LEN // PAGE_SIZE


def decode(pages: list[int]) -> Row:
    return Row(SimpleNamespace(), Lease(None, 0, pages, ""), len(pages) * PAGE_SIZE - 1, 1, None)


def pages(prefix: int, num_shared: int, own: int, num_own: int) -> list[int]:
    return [1000 * prefix + page for page in range(num_shared)] + [1000 * own + page for page in range(num_own)]


def test_rows_of_one_prefix_stand_side_by_side_and_keep_their_order() -> None:
    rows = [decode(pages(index % 3, UNIT, 10 + index, 2)) for index in range(9)]
    ordered, _ = side_by_side(rows, PAGE_SIZE)
    assert [rows.index(row) for row in ordered] == [0, 3, 6, 1, 4, 7, 2, 5, 8]


def test_rows_that_have_more_in_common_stand_closer() -> None:
    rows = [
        decode([*pages(0, UNIT, branch, UNIT), *pages(10 + index, 1, 0, 0)]) for index, branch in enumerate([7, 5] * 3)
    ]
    ordered, _ = side_by_side(rows, PAGE_SIZE)
    assert [rows.index(row) for row in ordered] == [1, 3, 5, 0, 2, 4]


def test_pages_are_read_together_from_so_many_tokens_on() -> None:
    enough = MIN_SHARED_LEN // COMPARED_LEN + 1
    for num_rows in (1, enough - 1, enough):
        rows = [decode(pages(0, UNIT, 1 + index, 1)) for index in range(num_rows)]
        assert side_by_side(rows, PAGE_SIZE)[1] == (num_rows == enough)


def test_pages_are_read_together_where_they_are_a_fair_part_of_all() -> None:
    most_own = int(UNIT / MIN_SHARED_RATIO) - UNIT
    for num_own, is_worth in ((most_own - UNIT, True), (most_own + 1, False)):
        rows = [decode(pages(0, UNIT, 1 + index, num_own)) for index in range(200)]
        assert side_by_side(rows, PAGE_SIZE)[1] == is_worth


def test_rows_without_pages_in_common_are_read_by_themselves() -> None:
    assert not side_by_side([decode(pages(index, 4 * UNIT, 0, 0)) for index in range(30)], PAGE_SIZE)[1]
    assert side_by_side([], PAGE_SIZE) == ([], False)


def test_pages_longer_than_what_is_compared() -> None:
    rows = [decode([5, 1]), decode([4, 2]), decode([5, 3])]
    assert [row.lease.pages for row in side_by_side(rows, 2 * COMPARED_LEN)[0]] == [[4, 2], [5, 1], [5, 3]]


@pytest.mark.parametrize("open_tiny_engine", ["device"], indirect=True)
def test_an_engine_bundles_requests_on_two_prefixes(open_tiny_engine: Callable[..., Engine]) -> None:
    rng = random.Random(0)
    prefixes = [rng.choices(range(3, 290), k=COMPARED_LEN + 20) for _ in range(2)]
    num_requests = 2 * (MIN_SHARED_LEN // COMPARED_LEN // 2 + 1)
    prompts = [prefixes[index % 2] + rng.choices(range(3, 290), k=5) for index in range(num_requests)]
    params = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True, top_logprobs=1, logprobs=True)
    alone, together = open_tiny_engine(num_pages=512, max_running=1), open_tiny_engine(num_pages=512)
    seen: list[ForwardInputs] = []
    forward = together._core.steps.forward

    def record(inputs: ForwardInputs) -> object:
        seen.append(inputs)
        return forward(inputs)

    together._core.steps.forward = record
    completions = []
    for engine in (alone, together):
        futures = []
        for prompt in prompts:
            seq_id = engine.open()
            engine.append_ids(seq_id, prompt)
            futures.append(engine.generate(seq_id, params))
            engine.close(seq_id)
        completions.append([future.result(120).completions[0] for future in futures])
    assert [one.token_ids for one in completions[0]] == [one.token_ids for one in completions[1]]
    for completion in completions[1]:
        assert [entry.top[0].token_id for entry in completion.logprobs] == list(completion.token_ids)
    shared = [inputs for inputs in seen if inputs.decodes_share]
    assert shared
    for inputs in shared:
        is_row = inputs.seq_lens[inputs.num_extends :] > 1  # others are spare
        assert len(list(groupby(inputs.page_tables[inputs.num_extends :, 0][is_row].tolist()))) == 2
