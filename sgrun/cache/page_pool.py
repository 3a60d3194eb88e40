"""Owns which pages are free and how many holders each other page has; knows nothing of tokens or tensors."""

from __future__ import annotations

from collections.abc import Iterable


class PagePool:
    """Reference counts over `num_pages` pages. A holder is a radix node that lists the page, or the sequence that
    allocated it (its only writer)."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self.refs = [0] * num_pages
        self._free = list(range(num_pages - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def allocate(self, num_pages: int) -> list[int]:
        """Takes pages with one holder, the caller. The caller has made sure that there are enough."""
        assert num_pages <= len(self._free), f"{num_pages} pages asked of {len(self._free)} free"
        if num_pages == 0:
            return []
        pages = self._free[-num_pages:]
        del self._free[-num_pages:]
        for page in pages:
            assert self.refs[page] == 0, f"free page {page} has {self.refs[page]} holders"
            self.refs[page] = 1
        return pages

    def retain(self, pages: Iterable[int]) -> None:
        for page in pages:
            assert self.refs[page] > 0, f"free page {page} retained"
            self.refs[page] += 1

    def release(self, pages: Iterable[int]) -> int:
        """Drops one holder of each page; returns how many became free."""
        num_freed = 0
        for page in pages:
            assert self.refs[page] > 0, f"free page {page} released"
            self.refs[page] -= 1
            if self.refs[page] == 0:
                self._free.append(page)
                num_freed += 1
        return num_freed

    def free_pages(self) -> list[int]:
        return list(self._free)
