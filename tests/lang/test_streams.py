"""Streams come in order, complete, and without holding up their loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import sgrun as sg
from sgrun.lang.scripted import ScriptedBackend, split_tokens

ANSWER = " one two three four five"


@pytest.fixture
def streamed() -> Iterator[ScriptedBackend]:
    with ScriptedBackend(ANSWER, latency_s=0.02) as scripted:
        yield scripted


@sg.function
def program(s: sg.ProgramState) -> None:
    s += "a"
    s += "b" + sg.gen("x", return_logprob=True) + "c"
    assert s["x"] == ANSWER
    s["plain"] = 7
    s += sg.select("y", ["yes"]) + "."


def test_text_comes_piece_by_piece_in_order(streamed: ScriptedBackend) -> None:
    pieces = list(program.run(backend=streamed, stream=True).text_iter())
    assert pieces == ["a", "b", *split_tokens(ANSWER), "c", "yes", "."]


def test_variables_stream_alone(streamed: ScriptedBackend) -> None:
    state = program.run(backend=streamed, stream=True)
    assert list(state.text_iter("x")) == split_tokens(ANSWER)
    assert list(state.text_iter("y")) == ["yes"]
    assert list(state.text_iter("plain")) == ["7"]
    assert list(state.text_iter("x")) == split_tokens(ANSWER)


def test_run_returns_before_the_body_ends() -> None:
    with ScriptedBackend(latency_s=0.2) as slow:
        start = time.monotonic()
        state = program.run(backend=slow, stream=True)
        assert time.monotonic() - start < 0.15
        with pytest.raises(AssertionError):  # raised by the body, which expects another answer
            state.sync()


def test_first_piece_comes_before_the_last() -> None:
    with ScriptedBackend(ANSWER, latency_s=0.5) as slow:
        times = [time.monotonic() for _ in program.run(backend=slow, stream=True).text_iter("x")]
        assert times[-1] - times[0] > 0.2


def test_without_stream_generations_come_whole(streamed: ScriptedBackend) -> None:
    assert list(program.run(backend=streamed).text_iter()) == ["a", "b", ANSWER, "c", "yes", "."]


def test_stream_of_samples_is_the_first(streamed: ScriptedBackend) -> None:
    @sg.function
    def samples(s: sg.ProgramState) -> None:
        s += "a" + sg.gen("x", n=3)

    state = samples.run(backend=streamed, stream=True)
    assert "".join(state.text_iter()) == "a" + ANSWER
    assert state["x"] == [ANSWER] * 3


def test_async_stream_with_logprobs(streamed: ScriptedBackend) -> None:
    async def main() -> None:
        state = program.run(backend=streamed, stream=True)
        total = 0
        pieces = []
        async for piece, meta in state.text_async_iter("x", return_meta_data=True):
            pieces.append(piece)
            total += len(meta["output_token_logprobs"])
            assert meta["completion_tokens"] == meta["output_token_logprobs_length"] == total
        assert pieces == split_tokens(ANSWER)
        assert [piece async for piece in state.text_async_iter()][-1] == "."

    asyncio.run(main())


def test_reading_a_fork_as_a_stream(streamed: ScriptedBackend) -> None:
    @sg.function
    def forking(s: sg.ProgramState) -> list[str]:
        s += "a"
        forks = s.fork(2)
        forks += sg.gen("x")
        texts = ["".join(fork.text_iter()) for fork in forks]
        forks.join()
        return texts

    assert forking.run(backend=streamed, stream=True).ret_value == ["a" + ANSWER] * 2


def test_stream_leaves_the_loop_free() -> None:
    async def main(backend: ScriptedBackend) -> float:
        state = program.run(backend=backend, stream=True)
        largest = 0.0

        async def watch() -> None:
            nonlocal largest
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.001)
                largest = max(largest, time.monotonic() - before)

        watcher = asyncio.create_task(watch())
        assert "".join([piece async for piece in state.text_async_iter("x")]) == ANSWER
        watcher.cancel()
        return largest

    with ScriptedBackend(ANSWER, latency_s=0.5) as slow:
        assert asyncio.run(main(slow)) < 0.1  # one piece comes every 80 ms and one wait would last 500 ms


def test_many_readers_lose_no_piece_when_threads_switch_all_the_time() -> None:
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ScriptedBackend(ANSWER, latency_s=0.002) as scripted:
            for _ in range(50):
                state = program.run(backend=scripted, stream=True)
                texts: list[str] = []

                def read(state: sg.ProgramState = state, texts: list[str] = texts) -> None:
                    texts.append("".join(state.text_iter()))

                readers = [threading.Thread(target=read) for _ in range(4)]
                for reader in readers:
                    reader.start()
                for reader in readers:
                    reader.join(5)
                assert texts == [f"ab{ANSWER}cyes."] * 4
    finally:
        sys.setswitchinterval(old)
