"""Bitmasks that are kept from launch to launch: right wherever they come from, shared as far as places are alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from device_rows import DEVICE, arena_of, placed, records_of, rows_of, tables_of
from hypothesis import given, settings
from hypothesis import strategies as st
from random_automata import automata, cursors

from sgrun.grammar.automaton import ACCEPT, CALL, COUNT, MOVE, OP_BITS, RETURN, RETURN_AFTER, Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.masks import token_bitmask
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor
from sgrun.types import JsonSchemaSpec, LarkSpec, RegexSpec
from sgrun_kernels.automaton import row_masks_
from sgrun_kernels.bitmask_cache import ENTRY, WAYS, BitmaskCache

LETTERS = [b"a", b"b", b"c", b"ab", b"ba", b"bc", b"ca", b"aaa", b"cab"]
PIECES = [None, *LETTERS, b"[", b"]", b"[[[", b"]]", b'"', b'{"', b"}]", b"1"]
VOCABULARY = Vocabulary(PIECES, end_token_ids=[0])
POISON = 0x5A5A5A5A
SPELLED = b"abacabcab" * 6  # a state for each place


class Launches:
    """Launches over one cache, the smallest there is unless told."""

    def __init__(self, automata: list[Automaton], max_rows: int = 64, num_sets: int = 1) -> None:
        self.automata = automata
        self.tables = tables_of(VOCABULARY)
        size_bytes = num_sets * WAYS * VOCABULARY.num_words * 4
        self.cache = BitmaskCache.allocate(max_rows, VOCABULARY.num_words, DEVICE, size_bytes)
        self.cache.bits.fill_(POISON)
        self.frames = torch.empty((3, 64, 32, 2), dtype=torch.int32)
        self.arena = arena_of(automata)
        self.stop_ids = (-1, -1)  # the last two of each row

    def slots(self, places: list[tuple[int, Cursor]], can_end: bool = True) -> list[int]:
        """Where the bitmasks of rows at (automaton, cursor) are, after a launch in which they are right."""
        records = placed(places, can_end)
        records["stop_ids"][:, -2:] = self.stop_ids
        records["mask"], records["has_text"], records["is_accepting"] = -9, -9, -9
        rows = rows_of(records)
        row_ids = torch.arange(len(places), dtype=torch.int32)
        row_masks_(row_ids, rows, self.arena, self.tables, self.cache, self.frames)
        after = records_of(rows)
        for record, (index, cursor) in zip(after, places, strict=True):
            text = token_bitmask(self.automata[index], cursor, VOCABULARY)
            is_accepting = self.automata[index].walker.is_accepting(cursor)
            expected = text | (1 if is_accepting and can_end else 0)  # the end token is token 0
            assert self.cache.bits[int(record["mask"])].cpu().numpy().tolist() == expected.tolist(), (index, cursor)
            assert record["has_text"] == text.any()
            assert record["is_accepting"] == is_accepting
            entry = self.cache.entries[int(record["mask"])].cpu().numpy().view(ENTRY)[0]
            assert entry["num_allowed"] == np.bitwise_count(expected.view(np.uint32)).sum()
        return after["mask"].tolist()


def after(automaton: Automaton, text: bytes) -> Cursor:
    cursor = automaton.walker.advance(automaton.walker.start, text)
    assert cursor is not None
    return cursor


@settings(max_examples=8, deadline=None)
@given(data=st.data(), first=automata(), second=automata())
def test_masks_are_right_in_any_order_of_launches(data: st.DataObject, first: Automaton, second: Automaton) -> None:
    """Places come back, others give way to them, and more of them are asked for at once than a set has slots."""
    compiled = [first, second]
    places = [(index, data.draw(cursors(compiled[index]))) for index in (0, 1) for _ in range(6)]
    counted, spelled = compile_grammar(RegexSpec("a{20,40}")), compile_grammar(RegexSpec(SPELLED.decode()))
    places += [(2, after(counted, b"a" * count)) for count in range(40)]
    places += [(3, after(spelled, SPELLED[:length])) for length in range(40)]
    launches = Launches([*compiled, counted, spelled], num_sets=data.draw(st.sampled_from([1, 2])))
    for _ in range(data.draw(st.integers(2, 5))):
        chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=60))
        launches.slots(chosen, can_end=data.draw(st.booleans()))


def test_a_place_that_comes_back_finds_its_mask() -> None:
    compiled = compile_grammar(RegexSpec("(a|b[bc])*"))
    launches = Launches([compiled])
    place, other = (0, after(compiled, b"a")), (0, after(compiled, b"b"))
    (slot,) = launches.slots([place])
    assert launches.slots([other, place])[1] == slot
    launches.cache.bits[slot] = kept = torch.full_like(launches.cache.bits[slot], POISON)
    with pytest.raises(AssertionError):  # nobody computed it anew
        launches.slots([place])
    assert torch.equal(launches.cache.bits[slot], kept)


def test_places_share_a_mask_up_to_the_frames_that_some_token_pops() -> None:
    """Tokens of this vocabulary close one bracket at most here."""
    compiled = compile_grammar(LarkSpec('start: "a" start "a" | "b" start "b" | "c"'))
    launches = Launches([compiled])
    alike = [(0, after(compiled, text + b"ba")) for text in (b"aaa", b"bab", b"bb", b"")]
    others = [(0, after(compiled, text)) for text in (b"aaaaa", b"aaabb", b"aaaab")]
    (slot,) = launches.slots(alike[:1])
    assert launches.slots(alike[1:] + others)[:3] == [slot, slot, slot]
    assert slot not in launches.slots(others)


def test_a_stack_that_ends_above_the_frames_of_a_mask_is_another_place() -> None:
    """Below the stack of a row are words that may look like a frame: its stop ids."""
    compiled = compile_grammar(LarkSpec('start: "a" start "a" | "b" start "b" | "c"'))
    launches = Launches([compiled])
    deep = after(compiled, b"bbba")
    launches.slots([(0, deep)])
    launches.stop_ids = deep.stack[-1]
    launches.slots([(0, deep._replace(stack=()))])


def handmade(table: dict[tuple[int, int], int], sites: list[list[int]], counts: list[list[int]]) -> Automaton:
    """Entries of table by (state, column): other bytes, a, b, c, the end."""
    entries = np.zeros((5, 5), dtype=np.int32)
    for place, entry in table.items():
        entries[place] = entry
    classes = np.zeros(256, dtype=np.uint8)
    classes[[ord("a"), ord("b"), ord("c")]] = 1, 2, 3
    tables = (np.array(rows, dtype=np.int32).reshape(-1, width) for rows, width in ((sites, 2), (counts, 3)))
    return Automaton(classes, entries, *tables, start=1)


def test_frames_that_only_the_end_of_the_text_pops_count() -> None:
    table = {(1, 1): MOVE | 1 << OP_BITS, (1, 4): RETURN, (2, 4): ACCEPT, (3, 1): MOVE | 2 << OP_BITS}
    launches = Launches([handmade(table, [[1, 2], [1, 3]], [])])
    for site in (0, 1, 0):
        launches.slots([(0, Cursor(1, 0, ((site, 0),)))])


def test_a_counter_that_only_the_end_of_the_text_looks_at_counts() -> None:
    table = {(1, 1): MOVE | 1 << OP_BITS, (1, 4): COUNT, (2, 4): ACCEPT, (3, 1): MOVE | 2 << OP_BITS}
    launches = Launches([handmade(table, [], [[5, 3, 2]])])
    for counter in (2, 4, 3, 4, 5):
        launches.slots([(0, Cursor(1, counter))])


def test_counters_of_frames_count_as_far_as_they_come_to_a_threshold() -> None:
    """Five times "ab", and then "c"; after an "a", where the number is on the stack."""
    table = {(1, 1): CALL, (2, 2): RETURN_AFTER, (4, 3): MOVE | 4 << OP_BITS, (4, 4): ACCEPT}
    table |= {(3, column): COUNT for column in range(5)}
    launches = Launches([handmade(table, [[2, 3]], [[5, 1, 4]])])
    for counter in (0, 4, 3, 1, 4, 2, 0):
        launches.slots([(0, Cursor(2, 0, ((0, counter),)))])
    apart = [launches.slots([(0, Cursor(2, 0, ((0, counter),)))])[0] for counter in (0, 3, 4)]
    assert apart[0] != apart[2] and apart[1] != apart[2]


@pytest.mark.parametrize("order", [(1, 30, 62, 63), (63, 62, 30, 1)])
def test_the_room_that_is_left_on_the_stack_counts_where_it_ends(order: tuple[int, ...]) -> None:
    compiled = compile_grammar(LarkSpec('start: "[" start? "]"'))
    launches = Launches([compiled])
    slots = [launches.slots([(0, after(compiled, b"[" * depth))])[0] for depth in order]
    assert len(set(slots[:2] if order[0] == 1 else slots[:3])) > 1


def test_a_counter_matters_as_far_as_a_token_brings_it_to_a_threshold() -> None:
    """Tokens count up to three."""
    compiled = compile_grammar(RegexSpec("a{90,99}"))
    launches = Launches([compiled])
    slots = [launches.slots([(0, after(compiled, b"a" * count))])[0] for count in range(99)]
    assert len(set(slots[1:80])) == 1
    assert len(set(slots[86:90])) == 4
    assert launches.slots([(0, after(compiled, b"a" * 88))]) == [slots[88]]


def test_masks_with_and_without_the_end_are_kept_apart() -> None:
    compiled = compile_grammar(RegexSpec("a*"))
    launches = Launches([compiled])
    place = (0, after(compiled, b"a"))
    assert launches.slots([place], can_end=True) != launches.slots([place], can_end=False)


def test_masks_of_an_automaton_do_not_serve_the_one_that_follows_it_in_the_arena() -> None:
    first, second = compile_grammar(RegexSpec("a*")), compile_grammar(RegexSpec("b*"))
    launches = Launches([first])
    launches.slots([(0, first.walker.start)])
    launches.automata, launches.arena = [second], arena_of([first, second])
    launches.arena.heads[0] = launches.arena.heads[1]
    launches.slots([(0, second.walker.start)])


def test_the_least_recently_used_give_way() -> None:
    compiled = compile_grammar(RegexSpec(SPELLED.decode()))
    launches = Launches([compiled])
    places = [(0, after(compiled, SPELLED[:length])) for length in range(WAYS + 9)]
    slots = launches.slots(places[:WAYS])
    assert sorted(slots) == list(range(WAYS))
    launches.slots(places[:-13])
    after_them = launches.slots(places[:-13] + places[WAYS : WAYS + 4])
    assert after_them[:-4] == slots[:-4]
    assert sorted(after_them[-4:]) == sorted(slots[-4:])


def test_rows_whose_set_is_in_use_have_slots_of_their_own() -> None:
    compiled = compile_grammar(RegexSpec(SPELLED.decode()))
    launches = Launches([compiled])
    slots = launches.slots([(0, after(compiled, SPELLED[:length])) for length in range(WAYS + 9)])
    assert len(set(slots)) == WAYS + 9
    assert len([slot for slot in slots if slot >= WAYS]) == 9


def test_items_of_an_array_share_masks_however_many_came_before() -> None:
    compiled = compile_grammar(JsonSchemaSpec('{"type": "array", "items": {"enum": ["ab", "ca"]}, "minItems": 50}'))
    launches = Launches([compiled])
    counts = [np.uint8(1), np.uint8(7), np.uint8(20)]
    slots = [launches.slots([(0, after(compiled, b"[" + b'"ab",' * int(count) + b'"a'))]) for count in counts]
    assert len({slot for (slot,) in slots}) == 1, slots
