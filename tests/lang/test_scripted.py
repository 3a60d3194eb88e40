"""The scripted backend keeps the promises of the protocol that programs rely on."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import pytest

from sgrun.errors import AbortedError, EmptyPromptError, EngineClosedError
from sgrun.lang.backend import Backend
from sgrun.lang.scripted import ScriptedBackend, split_tokens
from sgrun.types import Chunk, SamplingParams, Segment

PARAMS = SamplingParams()


def text_after(prompt: str, params: SamplingParams) -> str:
    return f"<{prompt}>"


def text_of(future: Future[Any]) -> str:
    text: str = future.result(5).completions[0].text
    return text


def test_operations_of_a_sequence_run_in_order() -> None:
    with ScriptedBackend(text_after, latency_s=0.01) as scripted:
        backend: Backend = scripted
        seq_id = backend.open()
        assert backend.append(seq_id, [Segment("a b")]) == 2
        first = backend.generate(seq_id, PARAMS)
        backend.append(seq_id, [Segment("c")])
        second = backend.generate(seq_id, PARAMS)
        assert not first.done()
        assert (text_of(first), text_of(second)) == ("<a b>", "<a b<a b>c>")


def test_sequences_run_side_by_side() -> None:
    with ScriptedBackend(latency_s=0.1) as backend:
        start = time.monotonic()
        futures = []
        for _ in range(50):
            seq_id = backend.open()
            backend.append(seq_id, [Segment("a")])
            futures.append(backend.generate(seq_id, PARAMS))
        assert [text_of(future) for future in futures] == [" ok"] * 50
        assert time.monotonic() - start < 1.0


def test_fork_copies_what_was_submitted_before_it() -> None:
    with ScriptedBackend(text_after, latency_s=0.01) as backend:
        seq_id = backend.open()
        backend.append(seq_id, [Segment("a")])
        backend.generate(seq_id, PARAMS)
        left, right = backend.fork(seq_id, 2)
        backend.append(seq_id, [Segment("later")])
        backend.append(left, [Segment("L")])
        assert text_of(backend.generate(left, PARAMS)) == "<a<a>L>"
        assert text_of(backend.generate(right, PARAMS)) == "<a<a>>"


def test_failure_fails_the_sequence_and_its_forks() -> None:
    def answer(prompt: str, params: SamplingParams) -> str:
        raise ValueError("scripted")

    with ScriptedBackend(answer) as backend:
        seq_id = backend.open()
        backend.append(seq_id, [Segment("a")])
        failed = backend.generate(seq_id, PARAMS)
        (branch,) = backend.fork(seq_id, 1)
        later = backend.select(branch, ["a"], lambda scores: 0)
        with pytest.raises(ValueError, match="scripted") as caught:
            later.result(5)
        assert caught.value is failed.exception(5)
        backend.close(seq_id)
        backend.close(seq_id)
        backend.close(branch)
        assert _is_empty(backend)


def test_empty_sequence_cannot_generate() -> None:
    with ScriptedBackend() as backend, pytest.raises(EmptyPromptError):
        backend.generate(backend.open(), PARAMS).result(5)


def test_chunks_come_before_the_result_and_make_it_up() -> None:
    with ScriptedBackend(" one two three") as backend:
        seq_id = backend.open()
        backend.append(seq_id, [Segment("a")])
        chunks: list[Chunk] = []
        future = backend.generate(seq_id, SamplingParams(logprobs=True), None, chunks.append)
        completion = future.result(5).completions[0]
        assert "".join(chunk.text for chunk in chunks) == completion.text
        assert tuple(token for chunk in chunks for token in chunk.token_ids) == completion.token_ids
        assert [len(chunk.logprobs) for chunk in chunks] == [1, 1, 1]


def test_stop_and_length_end_an_answer() -> None:
    with ScriptedBackend(" one two three") as backend:
        seq_id = backend.open()
        backend.append(seq_id, [Segment("a")])
        stopped = backend.generate(seq_id, SamplingParams(stop=("three", "two"))).result(5).completions[0]
        assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == (" one ", "stop", "two")
        cut = backend.generate(seq_id, SamplingParams(max_tokens=2)).result(5).completions[0]
        assert (cut.text, cut.finish_reason, len(cut.token_ids)) == (" one two", "length", 2)


def test_abort_fails_what_runs_and_what_waits() -> None:
    with ScriptedBackend(latency_s=30) as backend:
        seq_id = backend.open()
        backend.append(seq_id, [Segment("a")])
        futures = [backend.generate(seq_id, PARAMS), backend.generate(seq_id, PARAMS)]
        backend.abort(seq_id)
        for future in (*futures, backend.generate(seq_id, PARAMS)):
            with pytest.raises(AbortedError):
                future.result(5)
        assert _is_empty(backend)


def test_shutdown_fails_everything() -> None:
    backend = ScriptedBackend(latency_s=30)
    seq_id = backend.open()
    backend.append(seq_id, [Segment("a")])
    future = backend.generate(seq_id, PARAMS)
    backend.shutdown()
    for failed in (future, backend.generate(seq_id, PARAMS)):
        with pytest.raises(EngineClosedError):
            failed.result(5)
    backend.close(seq_id)
    backend.abort(seq_id)
    with pytest.raises(EngineClosedError):
        backend.open()


def test_tokens_make_up_their_text() -> None:
    assert split_tokens(" a  b\nc ") == [" a", "  b", "\nc", " "]


def _is_empty(backend: ScriptedBackend) -> bool:
    deadline = time.monotonic() + 1
    while backend.num_open and time.monotonic() < deadline:
        time.sleep(0.001)
    return backend.num_open == 0
