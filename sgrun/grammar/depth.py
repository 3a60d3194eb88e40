"""How many frames the shallowest text of an automaton takes: of more than there may be, no text can be completed."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sgrun.errors import GrammarTooLargeError
from sgrun.grammar.automaton import (
    ACCEPT,
    CALL,
    COUNT,
    DEAD,
    MAX_DEPTH,
    MOVE,
    OP_BITS,
    OP_MASK,
    RESET,
    RETURN,
    RETURN_AFTER,
    Automaton,
)
from sgrun.grammar.cfg import components

_END = -1  # in place of a label: the end of the input


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
    sources: dict[int, list[int]] = defaultdict(list)  # state -> those that lead there within their frame
    calling: dict[int, list[int]] = defaultdict(list)  # site -> states
    waiting: list[tuple[int, int, int]] = []
    for state, row in enumerate(automaton.table):
        for entry in np.unique(row).tolist():
            op, argument = entry & OP_MASK, entry >> OP_BITS
            if op in (MOVE, RESET):
                sources[argument].append(state)
            elif op == COUNT:
                for target in automaton.counts[argument, 1:].tolist():
                    sources[target].append(state)
            elif op == CALL:
                calling[argument].append(state)
            elif op in (RETURN, RETURN_AFTER):
                waiting.append((0, state, argument))
            elif op == ACCEPT:
                waiting.append((0, state, _END))
    called: dict[int, list[int]] = defaultdict(list)  # state -> sites that begin there
    returned: dict[int, list[tuple[int, int]]] = defaultdict(list)  # state -> sites and labels that go on there
    for site, (callee, *targets) in enumerate(automaton.sites.tolist()):
        called[callee].append(site)
        for label, target in enumerate(targets):
            if target != DEAD:
                returned[target].append((site, label))

    depths: dict[int, dict[int, int]] = defaultdict(dict)  # state -> label -> frames until it is returned
    heapq.heapify(waiting)
    while waiting:
        depth, state, label = heapq.heappop(waiting)
        if label in depths[state]:
            continue
        depths[state][label] = depth
        found = [(source, label, depth) for source in sources[state]]
        for site in called[state] if label != _END else []:
            target = int(automaton.sites[site, 1 + label])
            for outer, after in depths[target].items() if target != DEAD else ():
                found += [(source, outer, max(depth + 1, after)) for source in calling[site]]
        for site, inner in returned[state]:
            within = depths[int(automaton.sites[site, 0])].get(inner)
            if within is not None:
                found += [(source, label, max(within + 1, depth)) for source in calling[site]]
        for source, of_label, frames in found:
            if of_label not in depths[source]:
                heapq.heappush(waiting, (frames, source, of_label))
    return depths[automaton.start][_END]
