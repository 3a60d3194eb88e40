"""What stands in the arena while automata come and go."""

from __future__ import annotations

import random

import numpy as np
import torch

from sgrun.engine.device_automata import DeviceAutomata, put_place
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.walk import Cursor
from sgrun.types import JsonSchemaSpec, RegexSpec
from sgrun_kernels.reference_automaton import ArenaWalker, Place
from sgrun_kernels.rows import new_records
from sgrun_kernels.tables import AutomatonArena

DEVICE = torch.get_default_device()


def automaton_of(num_states: int) -> Automaton:
    """One that takes num_states * 16 + 256 bytes, told apart by its table."""
    table = np.full((num_states, 4), num_states, dtype=np.int32)
    empty = np.zeros((0, 1), dtype=np.int32), np.zeros((0, 3), dtype=np.int32)
    return Automaton(np.zeros(256, dtype=np.uint8), table, *empty, start=1)


def loaded_words(automata: DeviceAutomata, automaton: Automaton, index: int) -> list[int]:
    """The words of the table that the head at `index` points at."""
    head = automata.arena.heads[index].tolist()
    return automata.arena.words[head[1] : head[1] + automaton.table.size].tolist()


def test_random_users_find_their_automaton_and_no_two_overlap() -> None:
    generator = random.Random(7)
    known = [automaton_of(2 + number) for number in range(30)]
    automata = DeviceAutomata(DEVICE, max_users=6, size_bytes=2000)
    in_use: list[tuple[Automaton, int]] = []
    for _ in range(3000):
        if in_use and (len(in_use) == 6 or generator.random() < 0.5):
            automaton, index = in_use.pop(generator.randrange(len(in_use)))
            assert loaded_words(automata, automaton, index) == automaton.table.reshape(-1).tolist()
            automata.release(automaton)
        else:
            automaton = generator.choice(known)
            in_use.append((automaton, automata.acquire(automaton)))
        assert len({index for _, index in in_use}) == len({automaton for automaton, _ in in_use})
    assert 2000 < automata.arena.words.nbytes < 16_000  # it has grown, but not for those without users


def test_the_least_recently_used_goes_first_and_a_used_one_never() -> None:
    first, second, third = (automaton_of(number) for number in (10, 11, 9))
    automata = DeviceAutomata(DEVICE, max_users=3, size_bytes=900)
    automata.acquire(first)
    kept = automata.acquire(second)
    automata.release(second)
    automata.release(first)
    automata.acquire(second)
    automata.arena.words.fill_(77)
    third_index = automata.acquire(third)  # in the place of the first
    assert len(automata.arena.words) == 900 // 4
    assert automata.acquire(second) == kept and loaded_words(automata, second, kept) == [77] * 44
    assert loaded_words(automata, third, third_index) == [9] * 36


def test_an_automaton_is_copied_once_while_it_stays() -> None:
    automaton = automaton_of(5)
    automata = DeviceAutomata(DEVICE, max_users=2, size_bytes=4096)
    index = automata.acquire(automaton)
    automata.release(automaton)
    assert loaded_words(automata, automaton, index) == [5] * 20
    automata.arena.words.fill_(77)
    assert automata.acquire(automaton) == index
    assert loaded_words(automata, automaton, index) == [77] * 20


def test_what_does_not_fit_makes_the_arena_larger_and_leaves_the_others_where_they_are() -> None:
    small, large = automaton_of(3), automaton_of(500)
    automata = DeviceAutomata(DEVICE, max_users=2, size_bytes=1000)
    small_index, arena = automata.acquire(small), automata.arena
    large_index = automata.acquire(large)
    assert automata.arena is not arena
    assert loaded_words(automata, small, small_index) == [3] * 12
    assert loaded_words(automata, large, large_index) == [500] * 2000


def test_compiled_constraints_walk_in_the_arena_from_the_place_of_a_cursor() -> None:
    schema = '{"type":"object","properties":{"a":{"type":"array","items":{"type":"object"}}},"required":["a"]}'
    automata = DeviceAutomata(DEVICE, max_users=4)
    for spec, text in (
        (RegexSpec(r"(ab|c)*\d{2}"), b"abcab42"),
        (JsonSchemaSpec(schema), b'{"a": [{"b": {"c": [1]}}]}'),
    ):
        automaton = compile_grammar(spec)
        index = automata.acquire(automaton)
        arena = AutomatonArena(automata.arena.words.cpu(), automata.arena.heads.cpu())
        walker = ArenaWalker(arena, index)
        for cut in range(len(text)):
            cursor = automaton.walker.advance(automaton.walker.start, text[:cut])
            assert cursor is not None
            records = new_records(3)
            put_place(records, 1, index, cursor)
            record = records[1]
            assert records["automaton"].tolist() == [-1, index, -1]
            stack = tuple((site, counter) for site, counter in record["stack"][: record["depth"]].tolist())
            place = Place(int(record["state"]), int(record["counter"]), stack)
            assert Cursor(*place) == cursor
            after = walker.advance(place, text[cut:])
            assert after is not None and walker.is_accepting(after)
            assert walker.advance(place, text[cut:] + b"x") is None
