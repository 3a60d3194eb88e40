"""What bounds the work of an engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a sequence and a step, in tokens unless said."""

    vocab_size: int
    context_len: int
    page_size: int
    num_pages: int
    token_budget: int
    max_running: int
    max_wait_s: float
