"""What several grammar tests need: whether an automaton takes a text, random texts out of one, and mutations."""

from __future__ import annotations

import random

import numpy as np

from sgrun.grammar.automaton import ACCEPT, DEAD, MOVE, OP_BITS, OP_MASK, Automaton
from sgrun.grammar.sample import Sampler


def accepts(automaton: Automaton, text: str | bytes) -> bool:
    return automaton.accepts(text.encode() if isinstance(text, str) else text)


def transitions(automaton: Automaton) -> np.ndarray:
    """[num_states, num_classes] the next states of an automaton without calls and counters."""
    entries = automaton.table[:, :-1]
    assert np.isin(entries & OP_MASK, (DEAD, MOVE)).all()
    return entries >> OP_BITS


def accepting(automaton: Automaton) -> np.ndarray:
    """[num_states] which states of an automaton without calls and counters accept."""
    return automaton.table[:, -1] == ACCEPT


def distances_to_acceptance(automaton: Automaton) -> np.ndarray:
    """The fewest bytes from each state to acceptance, without calls and counters; a large number if there is no way."""
    far = 10**9
    table = transitions(automaton)
    distances = np.where(accepting(automaton), 0, far)
    while True:
        steps = np.where(table == DEAD, far, distances[table]).min(axis=1) + 1
        shorter = np.minimum(distances, np.minimum(steps, far))
        if (shorter == distances).all():
            return distances
        distances = shorter


def random_texts(automaton: Automaton, seed: int, count: int, soft_len: int = 120) -> list[str]:
    """Accepted texts by random walks; after `soft_len` bytes a walk takes the shortest way out."""
    sampler = Sampler(automaton, seed, soft_len)
    return [sampler.text().decode() for _ in range(count)]


def mutated(text: str, chars: str, draw: random.Random) -> str:
    """The text with up to two edits: a character left out, or one of `chars` put in."""
    for _ in range(draw.randrange(3)):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(["", text[at : at + 1] + draw.choice(chars)]) + text[at + 1 :]
    return text
