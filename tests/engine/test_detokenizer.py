from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrun.engine.detokenizer import Detokenizer

# few different bytes, so that stop strings do occur: letters, the bytes of é (C3 A9) and € (E2 82 AC), a bad byte
_BYTES = st.lists(
    st.sampled_from([b"a", b"b", b"\xc3", b"\xa9", b"\xe2", b"\x82", b"\xac", b"\xff", "é".encode(), "€".encode()]),
    max_size=4,
).map(b"".join)
_VOCAB = st.lists(st.one_of(st.none(), _BYTES), min_size=1, max_size=8)
_STOPS = st.lists(st.text(alphabet="abé€\ufffd", min_size=1, max_size=4), max_size=4).map(tuple)


def naive_cut(text: str, stops: tuple[str, ...]) -> tuple[int, str] | None:
    found = [(text.find(stop), order, stop) for order, stop in enumerate(stops) if stop in text]
    return (min(found)[0], min(found)[2]) if found else None


def decode_complete(data: bytes) -> str:
    """The text without an incomplete character at its end."""
    for tail_len in range(1, min(3, len(data)) + 1):
        tail = data[-tail_len:]
        needed = 2 if 0xC2 <= tail[0] <= 0xDF else 3 if tail[0] & 0xF0 == 0xE0 else 4 if 0xF0 <= tail[0] <= 0xF4 else 0
        if needed > tail_len and tail.decode(errors="replace") == "\ufffd":
            return data[:-tail_len].decode(errors="replace")
    return data.decode(errors="replace")


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_stream_equals_the_naive_definition(data: st.DataObject) -> None:
    vocab = data.draw(_VOCAB)
    ids = data.draw(st.lists(st.integers(0, len(vocab)), max_size=12))  # one id past the table
    stops = data.draw(_STOPS)
    pieces = [vocab[i] or b"" if i < len(vocab) else b"" for i in ids]

    detokenizer = Detokenizer(vocab, stops)
    streamed, pushed, expected = "", 0, None
    for token_id in ids:
        streamed += detokenizer.push(token_id)
        pushed += 1
        assert detokenizer.text == streamed
        so_far = decode_complete(b"".join(pieces[:pushed]))
        assert so_far.startswith(streamed)
        expected = naive_cut(so_far, stops)
        assert (detokenizer.matched is not None) == (expected is not None)
        if expected is not None:
            break
        held = max((n for s in stops for n in range(len(s)) if so_far.endswith(s[:n])), default=0)
        assert streamed == so_far[: len(so_far) - held]
    streamed += detokenizer.flush()
    assert detokenizer.text == streamed

    whole = b"".join(pieces[:pushed])
    text = decode_complete(whole)
    if expected is None:
        text = whole.decode(errors="replace")
        expected = naive_cut(text, stops)
    if expected is None:
        assert (streamed, detokenizer.matched) == (text, None)
        assert (detokenizer.kept_tokens, detokenizer.tail_text) == (pushed, "")
        return
    cut, stop = expected
    assert (streamed, detokenizer.matched) == (text[:cut], stop)
    kept = max(
        n for n in range(pushed + 1) if is_whole(pieces[:n]) and len(decode_complete(b"".join(pieces[:n]))) <= cut
    )
    assert detokenizer.kept_tokens == kept
    assert b"".join(pieces[:kept]).decode(errors="replace") + detokenizer.tail_text == text[:cut]


def is_whole(pieces: list[bytes]) -> bool:
    data = b"".join(pieces)
    return decode_complete(data) == data.decode(errors="replace")


def tokens(*parts: bytes | None, stop: tuple[str, ...]) -> tuple[Detokenizer, list[str]]:
    detokenizer = Detokenizer(parts, stop)
    pushed = []
    for i in range(len(parts)):
        pushed.append(detokenizer.push(i))
        if detokenizer.matched is not None:
            break
    return detokenizer, pushed


def test_stop_string_over_token_borders_is_held_back_and_cut() -> None:
    detokenizer, pushed = tokens(b"one ", b"two <", b"en", b"d> x", stop=("<end>",))
    assert pushed == ["one ", "two ", "", ""]
    assert (detokenizer.matched, detokenizer.text) == ("<end>", "one two ")
    assert (detokenizer.kept_tokens, detokenizer.tail_text) == (1, "two ")


def test_stop_string_inside_one_token() -> None:
    detokenizer, _ = tokens(b"a", b"bSTOPc", stop=("STOP",))
    assert (detokenizer.text, detokenizer.kept_tokens, detokenizer.tail_text) == ("ab", 1, "b")


def test_token_that_ends_at_the_cut_is_kept() -> None:
    detokenizer, _ = tokens(b"ab", b"STOP", stop=("STOP",))
    assert (detokenizer.kept_tokens, detokenizer.tail_text) == (1, "")


def test_token_that_ends_inside_a_character_before_the_cut_is_not_kept() -> None:
    detokenizer, _ = tokens(b"x", b"y\xc3", b"\xa9STOP", stop=("STOP",))
    assert (detokenizer.text, detokenizer.kept_tokens, detokenizer.tail_text) == ("xyé", 1, "yé")


def test_match_that_begins_first_wins_then_the_one_listed_first() -> None:
    assert tokens(b"abcd", stop=("cd", "bc"))[0].matched == "bc"
    assert tokens(b"abcd", stop=("bc", "b"))[0].matched == "bc"
    assert tokens(b"abcd", stop=("b", "bc"))[0].matched == "b"


def test_generation_ends_with_the_first_completed_stop_even_if_another_began_before() -> None:
    detokenizer, pushed = tokens(b"ab", b"c", b"d", stop=("abcd", "c"))
    assert (detokenizer.matched, pushed) == ("c", ["", "ab"])


def test_held_text_comes_with_the_token_that_rules_the_stop_out() -> None:
    _, pushed = tokens(b"a\n", b"\n", b"b", stop=("\n\n\n",))
    assert pushed == ["a", "", "\n\nb"]


def test_special_tokens_have_no_text_and_do_not_hide_a_stop() -> None:
    detokenizer, pushed = tokens(b"hi", None, b"ST", None, b"OP", stop=("STOP",))
    assert pushed == ["hi", "", "", "", ""]
    assert (detokenizer.matched, detokenizer.kept_tokens, detokenizer.tail_text) == ("STOP", 2, "")


def test_incomplete_character_becomes_a_replacement_only_at_the_end() -> None:
    detokenizer, pushed = tokens(b"a\xe2\x82", stop=())
    assert pushed == ["a"]
    assert (detokenizer.flush(), detokenizer.text, detokenizer.kept_tokens) == ("\ufffd", "a\ufffd", 1)


def test_stop_string_with_replacement_character_can_match_at_the_end() -> None:
    detokenizer, _ = tokens(b"a", b"\xe2", stop=("\ufffd",))
    assert (detokenizer.flush(), detokenizer.matched, detokenizer.kept_tokens) == ("", "\ufffd", 1)
    assert detokenizer.flush() == ""


def test_pushing_after_a_match_is_an_error() -> None:
    detokenizer, _ = tokens(b"x", stop=("x",))
    with pytest.raises(AssertionError, match="after the stop string 'x'"):
        detokenizer.push(0)


def test_cost_of_a_push_does_not_grow_with_the_text() -> None:
    """40 times the tokens take about 40 times as long, not 1,600 times; a stop string that always nearly matches."""
    detokenizer = Detokenizer([b"aaab"], ("a" * 200,))

    def seconds(num_tokens: int) -> float:
        begin = time.process_time()
        for _ in range(num_tokens):
            detokenizer.push(0)
        return time.process_time() - begin

    short = min(seconds(500) for _ in range(3))
    assert min(seconds(20_000) for _ in range(3)) < 40 * short * 10
