"""How many frames the shallowest text of an automaton takes: of more than there may be, no text can be completed."""

from __future__ import annotations

from collections.abc import Sequence

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.automaton import MAX_DEPTH, Automaton
from sgrun.grammar.cfg import components
from sgrun.grammar.least_costs import AT_END, least_costs


def check_depth(automaton: Automaton) -> None:
    """Raises GrammarTooLargeError if every text nests deeper than the frames go."""
    depth = least_depth(automaton)
    if depth > MAX_DEPTH:
        raise GrammarTooLargeError(
            f"every text of the constraint nests {depth} levels deep; allowed: at most {MAX_DEPTH}; use less nesting"
        )


def may_nest_too_deep(calls: dict[int, set[int]], num_starts: Sequence[int]) -> bool:
    """Whether a text may take too many frames without calling a procedure within itself, as a shallowest text never
    does. Procedure i, of which 0 is the root, calls calls[i] and is called in num_starts[i] ways."""
    group_of = {member: members[0] for members in components(calls) for member in members}
    group_calls: dict[int, set[int]] = {}
    weights: dict[int, int] = {}
    for caller, callees in calls.items():
        group = group_of.get(caller, caller)
        weights[group] = weights.get(group, 0) + num_starts[caller] if caller in group_of else 1
        group_calls.setdefault(group, set()).update(group_of.get(callee, callee) for callee in callees)
    start = group_of.get(0, 0)
    frames = {start: weights[start]}
    waiting = [start]
    while waiting:
        group = waiting.pop()
        if frames[group] > MAX_DEPTH:
            return True
        for callee in group_calls[group] - {group}:
            if frames.get(callee, 0) < frames[group] + weights[callee]:
                frames[callee] = frames[group] + weights[callee]
                waiting.append(callee)
    return False


def least_depth(automaton: Automaton) -> int:
    """The frames of the shallowest text, as far as nothing that is counted or looked ahead to asks for more."""
    depths = least_costs(automaton, 0, lambda within, after: max(within + 1, after))
    return depths[automaton.start][AT_END]
