"""What it takes at least to come from each state of an automaton to each label, whatever counts as a cost."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from sgrun.grammar.automaton import (
    ACCEPT,
    CALL,
    COUNT,
    DEAD,
    MOVE,
    OP_BITS,
    OP_MASK,
    RESET,
    RETURN,
    RETURN_AFTER,
    Automaton,
)

AT_END = -1  # in place of a label: the end of the input

Costs = dict[int, dict[int, int]]  # state -> label -> the least cost until it is returned


def least_costs(automaton: Automaton, byte_cost: int, through: Callable[[int, int], int]) -> Costs:
    """As far as nothing that is counted or looked ahead to asks for more.

    `through(within, after)`: the cost of a call, from those within it and after it; not less than either of them.
    Cheapest first (Dijkstra 1959; for calls as Knuth generalised it, 1977).
    """
    sources: dict[int, list[tuple[int, int]]] = defaultdict(list)  # state -> those that lead there in their frame, cost
    calling: dict[int, list[int]] = defaultdict(list)  # site -> states
    waiting: list[tuple[int, int, int]] = []
    for state, row in enumerate(automaton.table):
        for entry in np.unique(row).tolist():
            op, argument = entry & OP_MASK, entry >> OP_BITS
            if op in (MOVE, RESET):
                sources[argument].append((state, byte_cost))
            elif op == COUNT:
                for target in automaton.counts[argument, 1:].tolist():
                    sources[target].append((state, 0))
            elif op == CALL:
                calling[argument].append(state)
            elif op in (RETURN, RETURN_AFTER):
                waiting.append((byte_cost if op == RETURN_AFTER else 0, state, argument))
            elif op == ACCEPT:
                waiting.append((0, state, AT_END))
    sites = automaton.sites.tolist()
    called: dict[int, list[int]] = defaultdict(list)  # state -> sites that begin there
    returned: dict[int, list[tuple[int, int]]] = defaultdict(list)  # state -> sites and labels that go on there
    for site, (callee, *targets) in enumerate(sites):
        called[callee].append(site)
        for label, target in enumerate(targets):
            if target != DEAD:
                returned[target].append((site, label))

    costs: Costs = defaultdict(dict)
    calls: dict[tuple[int, int], int] = {}  # (site, label) -> the least cost of the call there until it is returned
    heapq.heapify(waiting)

    def offer(cost: int, state: int, label: int) -> None:
        if label not in costs[state]:
            heapq.heappush(waiting, (cost, state, label))

    def offer_call(cost: int, site: int, label: int) -> None:
        if cost < calls.get((site, label), cost + 1):
            calls[site, label] = cost
            for source in calling[site]:
                offer(cost, source, label)

    while waiting:
        cost, state, label = heapq.heappop(waiting)
        if label in costs[state]:
            continue
        costs[state][label] = cost
        for source, more in sources[state]:
            offer(cost + more, source, label)
        for site in called[state] if label != AT_END else []:
            for outer, after in costs[sites[site][1 + label]].items():
                offer_call(through(cost, after), site, outer)
        for site, inner in returned[state]:
            within = costs[sites[site][0]].get(inner)
            if within is not None:
                offer_call(through(within, cost), site, label)
    return costs
