"""How large a constraint may grow while it is compiled."""

from __future__ import annotations

from dataclasses import dataclass

from sgrun.errors import GrammarTooLargeError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileLimits:
    """Bounds that keep every compile within about two seconds and a bounded amount of memory."""

    max_source_len: int = 1_000_000  # characters of the pattern, the schema text or all choices together
    max_nesting: int = 100  # groups in groups, schemas in schemas
    max_nfa_states: int = 100_000  # after counted repeats are unrolled
    max_states: int = 50_000  # of a deterministic automaton, before and after its expansion to bytes
    max_subset_elements: int = 1_000_000  # NFA states over all states of the subset construction
    max_table_bytes: int = 32 * 2**20  # of the finished transition table

    def check(self, limit: str, value: int) -> None:
        """Raises GrammarTooLargeError if `value` is over the limit of this name."""
        allowed = getattr(self, limit)
        if value > allowed:
            raise GrammarTooLargeError(
                f"the constraint is too large: {limit} is {allowed} and at least {value} would be needed; "
                "use smaller counts, fewer alternatives or less nesting"
            )
