"""What stands in the arena while automata come and go."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from sgrun.engine.device_automata import DeviceAutomata, put_place
from sgrun.errors import GrammarTooLargeError
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
    automata.wait_on_stream(automaton)
    head = automata.arena.heads[index].tolist()
    return automata.arena.words[head[1] : head[1] + automaton.table.size].tolist()


def test_random_users_find_their_automaton_and_no_two_overlap() -> None:
    generator = random.Random(7)
    known = [automaton_of(2 + number) for number in range(30)]
    automata = DeviceAutomata(DEVICE, size_bytes=4000, max_automata=6)
    in_use: list[tuple[Automaton, int]] = []
    num_refused = 0
    for _ in range(3000):
        if in_use and generator.random() < 0.5:
            automaton, index = in_use.pop(generator.randrange(len(in_use)))
            assert loaded_words(automata, automaton, index) == automaton.table.reshape(-1).tolist()
            automata.release(automaton)
        else:
            automaton = generator.choice(known)
            index = automata.acquire(automaton)
            if index is None:
                num_refused += 1
                users = {other: other.size_bytes for other, _ in in_use}
                assert automaton not in users
                assert len(users) == 6 or sum(users.values()) + automaton.size_bytes > 4000 // 3
            else:
                in_use.append((automaton, index))
        assert len({index for _, index in in_use}) == len({automaton for automaton, _ in in_use})
    assert num_refused > 50


def test_the_least_recently_used_goes_first_and_a_used_one_never() -> None:
    first, second, third = (automaton_of(number) for number in (10, 11, 9))
    automata = DeviceAutomata(DEVICE, size_bytes=900, max_automata=8)
    assert automata.acquire(first) is not None and automata.acquire(second) is not None
    assert automata.acquire(third) is None
    automata.release(second)
    automata.release(first)
    kept = automata.acquire(second)
    assert kept is not None
    automata.release(second)
    automata.arena.words.fill_(77)
    third_index = automata.acquire(third)  # in the place of the first
    assert automata.acquire(second) == kept and loaded_words(automata, second, kept) == [77] * 44
    assert third_index is not None and loaded_words(automata, third, third_index) == [9] * 36
    assert automata.acquire(first) is None


def test_an_automaton_is_copied_once_while_it_stays() -> None:
    automaton = automaton_of(5)
    automata = DeviceAutomata(DEVICE, size_bytes=4096)
    index = automata.acquire(automaton)
    automata.release(automaton)
    assert index is not None and loaded_words(automata, automaton, index) == [5] * 20
    assert automata.is_ready(automaton)
    automata.arena.words.fill_(77)
    assert automata.acquire(automaton) == index
    assert loaded_words(automata, automaton, index) == [77] * 20


def test_what_never_fits_is_an_error_that_says_so() -> None:
    automata = DeviceAutomata(DEVICE, size_bytes=1000)
    with pytest.raises(GrammarTooLargeError, match=r"takes 1,056 bytes on the device; allowed: 1,000"):
        automata.acquire(automaton_of(50))


def test_compiled_constraints_walk_in_the_arena_from_the_place_of_a_cursor() -> None:
    schema = '{"type":"object","properties":{"a":{"type":"array","items":{"type":"object"}}},"required":["a"]}'
    automata = DeviceAutomata(DEVICE)
    for spec, text in (
        (RegexSpec(r"(ab|c)*\d{2}"), b"abcab42"),
        (JsonSchemaSpec(schema), b'{"a": [{"b": {"c": [1]}}]}'),
    ):
        automaton = compile_grammar(spec)
        index = automata.acquire(automaton)
        assert index is not None
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
