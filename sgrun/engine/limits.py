"""What bounds the work of an engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sgrun.errors import ContextLengthError, InvalidParameterError


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

    def check_length(self, num_tokens: int, max_tokens: int) -> None:
        """Raises ContextLengthError if a sequence of `num_tokens` has no room for `max_tokens` more."""
        for limit, name in ((self.context_len, "the context"), (self.num_pages * self.page_size, "the page pool")):
            if num_tokens + max_tokens > limit:
                raise ContextLengthError(
                    f"{num_tokens} tokens so far and up to {max_tokens} more are over {name} of {limit} tokens; "
                    "shorten the prompt or lower max_tokens"
                )

    def check_ids(self, name: str, token_ids: Iterable[int]) -> None:
        """Raises InvalidParameterError if the parameter `name` holds an id outside the vocabulary."""
        for token_id in token_ids:
            if token_id >= self.vocab_size:
                raise InvalidParameterError(f"{name} names token {token_id}; allowed: 0 to {self.vocab_size - 1}")
