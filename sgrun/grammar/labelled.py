"""Minimises deterministic tables whose states carry labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DEAD = 0
START = 1
NO_LABEL = -1

Table = npt.NDArray[np.int32]  # [num_states, num_symbols]; state 0 is dead, state 1 the start
Labels = npt.NDArray[np.int32]  # [num_states]; NO_LABEL where a text may not end


def minimize_labelled(table: Table, labels: Labels, kinds: Labels | None = None) -> tuple[Table, Labels, Labels]:
    """The smallest table that gives every text the same label, trimmed and numbered breadth-first, with its labels
    and kinds. States of different kinds are kept apart.

    A text has no label if it leads to state 0 or to a state without one. Where no text has a label, state 0 alone is
    left. Partition refinement that relabels the smaller parts (Hopcroft 1971), starting from the distance to a label.
    """
    num_states = len(table)
    successors = [set(row) for row in table.tolist()]
    predecessors: list[list[int]] = [[] for _ in range(num_states)]
    for state, targets in enumerate(successors):
        for target in targets:
            predecessors[target].append(state)
    distances = _distances_to_label(labels, predecessors)
    if kinds is None:
        kinds = np.zeros_like(labels)
    numbers = {(0, NO_LABEL, 0): 0}
    keys = zip(distances, labels.tolist(), kinds.tolist(), strict=True)
    blocks = np.array([numbers.setdefault(key, len(numbers)) if key[0] else 0 for key in keys], dtype=np.int32)
    blocks = _refine(table, blocks, len(numbers), predecessors)
    member, table = _quotient(table, blocks)
    labels, kinds = labels[member], kinds[member]
    labels[DEAD] = NO_LABEL
    return table, labels, kinds


def _distances_to_label(labels: Labels, predecessors: list[list[int]]) -> list[int]:
    """The length of the shortest text from each state to one with a label, plus 1; 0 where there is none."""
    distances = [0] * len(labels)
    frontier = [state for state, label in enumerate(labels.tolist()) if label != NO_LABEL]
    distance = 1
    while frontier:
        for state in frontier:
            distances[state] = distance
        distance += 1
        frontier = list({source for state in frontier for source in predecessors[state] if not distances[source]})
    return distances


def _refine(table: Table, blocks: Labels, num_blocks: int, predecessors: list[list[int]]) -> Labels:
    """Splits blocks until states of one block go to the same blocks. Block 0 holds the states that reach no label."""
    sizes = np.bincount(blocks, minlength=num_blocks).tolist()
    touched = np.flatnonzero(blocks).tolist()
    width = table.shape[1] * blocks.itemsize
    while touched:
        data = blocks[table[touched]].tobytes()
        parts: dict[int, dict[bytes, list[int]]] = {}
        for i, (state, block) in enumerate(zip(touched, blocks[touched].tolist(), strict=True)):
            parts.setdefault(block, {}).setdefault(data[i * width : (i + 1) * width], []).append(state)
        relabelled: list[int] = []
        for block, by_signature in parts.items():
            groups = sorted(by_signature.values(), key=len)
            # States that were not touched still look alike. The largest group keeps the block if none was left out.
            if sizes[block] == sum(map(len, groups)):
                groups.pop()
            for group in groups:
                blocks[group] = num_blocks
                sizes.append(len(group))
                sizes[block] -= len(group)
                num_blocks += 1
                relabelled.extend(group)
        touched = list({source for state in relabelled for source in predecessors[state] if blocks[source]})
    return blocks


def _quotient(table: Table, blocks: Labels) -> tuple[npt.NDArray[np.int64], Table]:
    """One state for each block that is reachable from the start: a member of each, and their table."""
    num_blocks = int(blocks.max()) + 1
    member = np.zeros(num_blocks, dtype=np.int64)
    member[blocks[::-1]] = np.arange(len(blocks))[::-1]
    rows = blocks[table[member]]
    rows[DEAD] = DEAD
    order = [DEAD] if len(blocks) == 1 or blocks[START] == DEAD else [DEAD, int(blocks[START])]
    known = set(order)
    for block in order:
        for target in dict.fromkeys(rows[block].tolist()):
            if target not in known:
                known.add(target)
                order.append(target)
    renamed = np.zeros(num_blocks, dtype=np.int32)
    renamed[order] = np.arange(len(order), dtype=np.int32)
    return member[order], renamed[rows[order]]
