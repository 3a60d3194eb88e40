"""Owns which decodes of a step stand side by side: those on the same pages, so that attention can read these once."""

from __future__ import annotations

from itertools import pairwise, takewhile

from sgrun.engine.scheduler import Row

COMPARED_LEN = 256  # every so many tokens pages are compared: two rows on one page have all before it in common
MIN_SHARED_LEN = 8192  # tokens that would be read again, behind the first row's, and
MIN_SHARED_RATIO = 0.5  # their part of all, for bundles to be worth a launch of their own


def side_by_side(rows: list[Row], page_size: int) -> tuple[list[Row], bool]:
    """The rows, those on the same pages next to one another; and whether so much is the same that it should be read
    together (`plan_decode`'s shares_prefixes)."""
    stride = max(COMPARED_LEN // page_size, 1)
    some_pages = sorted((row.lease.pages[stride - 1 :: stride], index) for index, row in enumerate(rows))
    num_same = sum(
        len(list(takewhile(lambda pair: pair[0] == pair[1], zip(pages, others, strict=False))))
        for (pages, _), (others, _) in pairwise(some_pages)
    )
    shared_len, total_len = num_same * stride * page_size, sum(row.start + row.num_tokens for row in rows)
    is_worth = shared_len >= max(MIN_SHARED_LEN, MIN_SHARED_RATIO * total_len)
    return [rows[index] for _, index in some_pages], is_worth
