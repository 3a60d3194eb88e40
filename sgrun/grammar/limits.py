"""How large a constraint may grow while it is compiled, and what one compile has used of that."""

from __future__ import annotations

from dataclasses import dataclass

from sgrun.errors import GrammarTooLargeError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileLimits:
    """Bounds that keep a compile within about two seconds and a bounded amount of memory."""

    max_source_len: int = 300_000  # characters of the pattern, the schema text or all choices; each reading counts
    max_nesting: int = 100  # groups in groups, schemas in schemas
    max_nfa_states: int = 150_000  # after counted repeats are unrolled
    max_states: int = 200_000  # of the finished automaton, and of all that are made deterministic on the way
    max_residues: int = 10_000  # that one multipleOf tells apart
    max_set_elements: int = 1_000_000  # ranges, labels and NFA states over all sets that are looked at
    max_work_bytes: int = 128 * 2**20  # of one table before its columns are merged
    max_table_bytes: int = 32 * 2**20  # of the finished transition table


class Budget:
    """The limits of one compile. What is spent adds up over all parts of the constraint."""

    def __init__(self, limits: CompileLimits) -> None:
        self.limits = limits
        self._spent = dict.fromkeys(CompileLimits.__slots__, 0)
        self._allowed: dict[str, int] = {limit: getattr(limits, limit) for limit in CompileLimits.__slots__}

    def spend(self, limit: str, amount: int) -> None:
        """Raises GrammarTooLargeError once more is spent than the limit of this name allows."""
        spent = self._spent[limit] = self._spent[limit] + amount
        if spent > self._allowed[limit]:
            self.check(limit, spent)

    def check(self, limit: str, value: int) -> None:
        """Raises GrammarTooLargeError if a single value is over the limit of this name."""
        allowed = self._allowed[limit]
        if value > allowed:
            raise GrammarTooLargeError(
                f"the constraint is too large: {limit} is {allowed} and at least {value} would be needed; "
                "use smaller counts, fewer alternatives or less nesting"
            )
