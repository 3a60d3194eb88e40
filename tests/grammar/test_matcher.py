from __future__ import annotations

import gc
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_automata import automata

from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.matcher import Matcher
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import MAX_FORCED_LEN
from sgrun.types import RegexSpec

END = 0
PIECES: list[bytes | None] = [
    None, b"a", b"b", b"ab", b"aba", b"1", b"12", b"-", b" ", b'"', b'{"', b'": ', b"}", b"", "é".encode(),
    "日本".encode(), b"\xc3", b"\xa9", b"\xe6\x97", b"\xa5", b"a\xc3", b"\xf0\x9d", b"\x84\x9e", b"\xff", None,
    b"a" * 20, b"\\", b'\\"', b"n", b"u00e9", b"true", b"tr", b"ue", b",", b", ", b":", b"x",
]  # fmt: skip


VOCABULARIES: list[list[bytes | None]] = [
    [None, b"a", b"b", b"c", b"ab", b"ccc", b"bab", None],
    [None, b"b", b"ab", b"ca", b"acc"],
    [None, b"ab", b"ba", b"cc", b"bac"],
]


def _bits(mask: np.ndarray) -> list[int]:
    return [i for i in range(len(mask) * 32) if mask.view(np.uint32)[i // 32] >> np.uint32(i % 32) & 1]


def _matcher(pattern: str, end_token_ids: tuple[int, ...] = (END,)) -> Matcher:
    return compile_grammar(RegexSpec(pattern)).matcher(Vocabulary(PIECES), end_token_ids)


def _id(piece: bytes) -> int:
    return PIECES.index(piece)


def test_end_token_is_allowed_exactly_where_the_text_is_complete() -> None:
    matcher = _matcher("ab?")
    assert _bits(matcher.bitmask()) == [_id(b"a"), _id(b"ab")]
    assert not matcher.accept(END)
    assert matcher.accept(_id(b"a"))
    assert matcher.is_accepting() and not matcher.is_finished
    assert _bits(matcher.bitmask()) == [END, _id(b"b")]
    assert matcher.accept(END)
    assert matcher.is_finished and not matcher.is_accepting() and not matcher.is_dead_end
    assert _bits(matcher.bitmask()) == []
    assert not matcher.accept(_id(b"b")) and not matcher.accept(END)


def test_end_token_that_has_bytes_is_never_text() -> None:
    matcher = _matcher("[ab]+", end_token_ids=(_id(b"a"),))
    assert _bits(matcher.bitmask()) == [_id(b"b"), _id(b"ab"), _id(b"aba"), _id(b"a" * 20)]
    assert not matcher.accept(_id(b"a"))


def test_refused_token_leaves_the_matcher_where_it_was() -> None:
    matcher = _matcher("ab")
    assert not matcher.accept(_id(b"b")) and not matcher.accept(_id(b"")) and not matcher.accept(24)
    assert matcher.accept(_id(b"ab")) and matcher.is_finished


def test_finished_is_complete_text_with_nothing_to_follow() -> None:
    matcher = _matcher("ab*", end_token_ids=())
    matcher.accept(_id(b"a"))
    assert matcher.is_accepting() and not matcher.is_finished
    beyond_the_vocabulary = _matcher("a(?:Z*)", end_token_ids=())
    beyond_the_vocabulary.accept(_id(b"a"))
    assert beyond_the_vocabulary.is_finished


def test_dead_end_is_incomplete_text_that_no_token_continues() -> None:
    matcher = _matcher("aZ")
    assert not matcher.is_dead_end
    assert matcher.accept(_id(b"a"))
    assert matcher.is_dead_end and not matcher.is_finished
    assert not matcher.bitmask().any()


def test_rollback_returns_to_the_earlier_masks() -> None:
    matcher = _matcher("(?:ab)+1")
    masks = [matcher.bitmask().copy()]
    for piece in (b"ab", b"a", b"b", b"1"):
        assert matcher.accept(_id(piece))
        masks.append(matcher.bitmask().copy())
    assert matcher.accept(END)
    matcher.rollback(1)
    assert matcher.is_accepting()
    for mask in reversed(masks[:-1]):
        matcher.rollback(1)
        assert (matcher.bitmask() == mask).all()
    matcher.rollback(0)
    with pytest.raises(AssertionError):
        matcher.rollback(1)


@pytest.mark.parametrize("num_tokens", [0, 1, 31, 32, 33, 64, 99, 100])
def test_rollback_from_afar_leads_to_the_place_that_there_was(num_tokens: int) -> None:
    matcher = _matcher("(?:[ab]{3}1)+")
    tokens = [_id(piece) for piece in (b"aba", b"1", b"ab", b"a", b"1")] * 20
    twin = matcher.copy()
    for number, token_id in enumerate(tokens):
        assert matcher.accept(token_id)
        if number < 100 - num_tokens:
            assert twin.accept(token_id)
    for _ in range(2):
        matcher.rollback(num_tokens)
        assert matcher.cursor == twin.cursor
        for token_id in tokens[100 - num_tokens :]:
            assert matcher.accept(token_id)


def test_finished_asks_for_no_mask_where_a_single_byte_may_follow() -> None:
    vocabulary = Vocabulary(PIECES)
    matcher = compile_grammar(RegexSpec("a[ab]*")).matcher(vocabulary, ())
    matcher.accept(_id(b"a"))
    assert not matcher.is_finished and vocabulary.masks.size_bytes == 0
    ended = compile_grammar(RegexSpec("a")).matcher(vocabulary, ())
    ended.accept(_id(b"a"))
    assert ended.is_finished and vocabulary.masks.size_bytes == 0


def test_accepted_tokens_leave_nothing_to_the_garbage_collector() -> None:
    matcher = _matcher("(?:[ab]{3}1)+")
    tokens = [_id(piece) for piece in (b"aba", b"1", b"ab", b"a", b"1")]
    gc.disable()
    try:
        before = gc.get_count()[0]
        for token_id in tokens * 200:
            assert matcher.accept(token_id) and matcher.is_finished is False
        assert gc.get_count()[0] - before < 50
    finally:
        gc.enable()


def test_token_that_moves_nothing_leaves_the_same_cursor() -> None:
    matcher = _matcher("a[ab]*1")
    matcher.accept(_id(b"a"))
    cursor = matcher.cursor
    assert matcher.accept(_id(b"aba")) and matcher.cursor is cursor
    assert matcher.accept(_id(b"1")) and matcher.cursor != cursor


def test_copy_moves_on_its_own() -> None:
    matcher = _matcher("a+b")
    matcher.accept(_id(b"a"))
    twin = matcher.copy()
    assert twin.accept(_id(b"b")) and twin.is_finished
    assert not matcher.is_finished and matcher.accept(_id(b"a"))
    twin.rollback(2)
    assert _bits(twin.bitmask()) == _bits(_matcher("a+b").bitmask())
    ended = matcher.copy()
    assert not ended.accept(END) and ended.accept(_id(b"b")) and ended.accept(END)
    assert ended.copy().is_finished and not matcher.is_finished


def test_token_split_inside_a_character_is_followed() -> None:
    matcher = _matcher("aéé")
    for piece in (b"a\xc3", b"\xa9", b"\xc3", b"\xa9"):
        assert _id(piece) in _bits(matcher.bitmask())
        assert matcher.accept(_id(piece))
    assert matcher.is_finished


def test_forced_bytes_are_those_that_every_text_goes_on_with() -> None:
    matcher = _matcher("ab(?:aé|aè)?12*")
    assert matcher.forced_bytes() == b"ab"
    matcher.accept(_id(b"ab"))
    assert matcher.forced_bytes() == b""  # a or 1
    matcher.accept(_id(b"a\xc3"))
    assert matcher.forced_bytes() == b""  # either second byte
    matcher.accept(_id(b"\xa9"))
    assert matcher.forced_bytes() == b"1"
    matcher.accept(_id(b"1"))
    assert matcher.is_accepting() and matcher.forced_bytes() == b""
    matcher.accept(END)
    assert matcher.forced_bytes() == b""


def test_forced_bytes_are_bounded() -> None:
    assert _matcher("a{5000}").forced_bytes() == b"a" * MAX_FORCED_LEN


def test_forced_tokens_leave_what_a_longer_token_could_spell() -> None:
    pieces = [b"x", b"y", b"z", b"xy", b"zz", b"\xc3", "é".encode()]
    vocabulary = Vocabulary(pieces)

    def forced(pattern: str, *accepted: bytes) -> list[bytes]:
        matcher = compile_grammar(RegexSpec(pattern)).matcher(vocabulary)
        assert all(matcher.accept(pieces.index(piece)) for piece in accepted)
        tokens = matcher.forced_tokens(lambda text: [pieces.index(part.encode()) for part in re.findall("xy|.", text)])
        assert all(matcher.accept(token_id) for token_id in tokens)
        return [pieces[token_id] for token_id in tokens]

    assert forced("xyxyy[xz]") == [b"xy", b"xy", b"y"]
    assert forced("xyxyx[xyz]") == [b"xy", b"xy"]  # the last x may become xy
    assert forced("yz[xz]z") == [b"y"]
    assert forced("[xz]y") == []
    assert forced("xéy(?:x|y)", b"x", b"\xc3") == []  # inside a character
    assert forced("xéy(?:x|y)", b"x") == ["é".encode(), b"y"]


@settings(max_examples=150, deadline=None)
@given(automata(), st.data())
def test_random_walks_agree_with_a_list_of_texts(automaton: Automaton, data: st.DataObject) -> None:
    pieces = data.draw(st.sampled_from(VOCABULARIES))
    matchers = [(automaton.matcher(Vocabulary(pieces), (0,)), [[b""]])]  # with the text after each accepted token
    for _ in range(15):
        matcher, texts = data.draw(st.sampled_from(matchers))
        text, is_ended = texts[-1][0], len(texts[-1]) > 1
        is_complete = not is_ended and automaton.accepts(text)
        followers = [
            i for i, piece in enumerate(pieces)
            if piece and not is_ended and automaton.walker.advance(automaton.walker.start, text + piece)
        ]  # fmt: skip
        assert _bits(matcher.bitmask()) == [0] * is_complete + followers
        assert matcher.is_accepting() == is_complete
        assert matcher.is_finished == (is_ended or (is_complete and not followers))
        assert matcher.is_dead_end == (not is_ended and not is_complete and not followers)
        match data.draw(st.sampled_from(["accept", "accept", "accept", "rollback", "copy"])):
            case "accept":
                token_id = data.draw(st.integers(0, len(pieces) - 1))
                is_allowed = token_id in followers or (token_id == 0 and is_complete)
                assert matcher.accept(token_id) == is_allowed
                if is_allowed:
                    texts.append([text + (pieces[token_id] or b"")] + [b"end"] * (token_id == 0))
            case "rollback":
                count = data.draw(st.integers(0, len(texts) - 1))
                matcher.rollback(count)
                del texts[len(texts) - count :]
            case "copy":
                matchers.append((matcher.copy(), list(texts)))
