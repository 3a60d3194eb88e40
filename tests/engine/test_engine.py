"""The engine on a tiny model: what is reused, what is the same however requests run, and what fails alone."""

from __future__ import annotations

import gc
import random
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from sgrun.engine.client import Engine
from sgrun.engine.generation import SampleTask
from sgrun.engine.sampler import NOT_FINITE, Sampled
from sgrun.engine.scheduler import Row
from sgrun.engine.scoring import ScoreTask
from sgrun.engine.steps import StepResult
from sgrun.errors import (
    AbortedError,
    ContextLengthError,
    EmptyPromptError,
    EngineClosedError,
    EngineError,
    GrammarDeadEndError,
    InvalidGrammarError,
    InvalidParameterError,
    NonFiniteLogitsError,
)
from sgrun.models.inputs import ForwardInputs
from sgrun.types import Chunk, GenerationResult, JsonSchemaSpec, RegexSpec, SamplingParams, ScoreResult

OpenEngine = Callable[..., Engine]
GREEDY = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)


def open_with(engine: Engine, token_ids: Sequence[int], **options: object) -> int:
    seq_id = engine.open(**options)  # type: ignore[arg-type]
    engine.append_ids(seq_id, token_ids)
    return seq_id


def random_ids(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(3, 290), k=length)


def ids_of(future: Future[GenerationResult]) -> tuple[int, ...]:
    return future.result(timeout=60).completions[0].token_ids


def generate(engine: Engine, token_ids: Sequence[int], params: SamplingParams = GREEDY) -> tuple[int, ...]:
    seq_id = open_with(engine, token_ids)
    result = ids_of(engine.generate(seq_id, params))
    engine.close(seq_id)
    return result


def computed(engine: Engine) -> int:
    return engine.stats.extend_tokens + engine.stats.decode_tokens


def first(result: ScoreResult) -> int:
    return 0


# Reuse, counted


def test_fork_of_a_cold_prompt_computes_the_prompt_once_and_each_suffix_once(tiny_engine: Engine) -> None:
    parent = open_with(tiny_engine, random_ids(0, 512))
    children = tiny_engine.fork(parent, 8)
    futures = []
    for number, child in enumerate(children):
        tiny_engine.append_ids(child, [3 + number, *random_ids(number, 5)])
        futures.append(tiny_engine.generate(child, SamplingParams(max_tokens=1, temperature=0.0)))
    for future in futures:
        future.result(timeout=60)
    assert tiny_engine.stats.extend_tokens == 512 + 8 * 6


def test_requests_that_arrive_together_compute_their_cold_prefix_once_tail_page_included(tiny_engine: Engine) -> None:
    prefix = random_ids(0, 403)  # 25 pages of 16 and 3 tokens
    futures = [
        tiny_engine.generate(open_with(tiny_engine, [*prefix, 3 + i, *random_ids(i, 7)]), GREEDY) for i in range(16)
    ]
    for future in futures:
        future.result(timeout=60)
    assert tiny_engine.stats.extend_tokens == 403 + 16 * 8


def test_second_turn_computes_only_what_is_new(tiny_engine: Engine) -> None:
    seq_id = open_with(tiny_engine, random_ids(0, 100))
    tiny_engine.generate(seq_id, GREEDY).result(timeout=60)
    tiny_engine.append_ids(seq_id, random_ids(1, 20))
    second = tiny_engine.generate(seq_id, GREEDY).result(timeout=60)
    assert second.stats.prompt_tokens == 132
    # 100 + 11 of the first turn are cached; its last token has never been through the model
    assert (second.stats.cached_tokens, second.stats.computed_tokens) == (111, 21)
    assert computed(tiny_engine) == 100 + 11 + 21 + 11


def test_samples_of_one_prompt_share_it(tiny_engine: Engine) -> None:
    seq_id = open_with(tiny_engine, random_ids(0, 200))
    params = SamplingParams(max_tokens=5, n=4, seed=1, ignore_eos=True)
    completions = tiny_engine.generate(seq_id, params).result(timeout=60).completions
    assert len({completion.token_ids for completion in completions}) == 4
    assert tiny_engine.stats.extend_tokens == 200 + 3  # each sample needs the last token's logits


def test_score_computes_every_node_of_the_choices_trie_once(tiny_engine: Engine) -> None:
    seq_id = open_with(tiny_engine, random_ids(0, 50))
    result = tiny_engine.select(seq_id, ["the answer", "the land", "the", "some"], first).result(timeout=60)
    paths = {choice.token_ids[:depth] for choice in result.choices for depth in range(1, len(choice.token_ids))}
    assert tiny_engine.stats.extend_tokens == 50 + len(paths)


def test_tenants_with_different_salts_share_nothing(tiny_engine: Engine) -> None:
    prompt = random_ids(0, 64)
    for salt, cached in (("a", 0), ("b", 0), ("a", 63)):
        seq_id = open_with(tiny_engine, prompt, cache_salt=salt)
        assert tiny_engine.generate(seq_id, GREEDY).result(timeout=60).stats.cached_tokens == cached


# The same tokens, however they are computed


def mixed_requests() -> list[tuple[list[int], SamplingParams]]:
    """32 requests: lengths from 1 to 200, some with shared prefixes, greedy and seeded with every option."""
    shared = random_ids(99, 75)
    requests = []
    for i in range(32):
        prompt = random_ids(i, 1 + 13 * i % 200)
        if i % 3 == 0:
            prompt = shared + prompt
        params = SamplingParams(max_tokens=8 + i, temperature=0.0, ignore_eos=True)
        if i % 2:
            params = SamplingParams(
                max_tokens=8 + i,
                temperature=0.9,
                seed=i,
                top_p=0.9 if i % 4 == 1 else 1.0,
                top_k=20 if i % 5 == 0 else -1,
                min_p=0.05 if i % 7 == 0 else 0.0,
                repetition_penalty=1.1 if i % 3 == 1 else 1.0,
                frequency_penalty=0.3 if i % 3 == 2 else 0.0,
                ignore_eos=True,
            )
        requests.append((prompt, params))
    return requests


@pytest.fixture(scope="module")
def alone(tiny_model: Path) -> list[tuple[int, ...]]:
    results = []
    with Engine(tiny_model, dtype="float32", num_pages=256) as engine:
        for prompt, params in mixed_requests():
            results.append(generate(engine, prompt, params))
            engine.flush_cache()
    return results


def together(engine: Engine) -> list[tuple[int, ...]]:
    futures = []
    for prompt, params in mixed_requests():
        seq_id = open_with(engine, prompt)
        futures.append(engine.generate(seq_id, params))
        engine.close(seq_id)
    return [ids_of(future) for future in futures]


def test_batched_requests_give_the_tokens_of_each_alone(tiny_engine: Engine, alone: list[tuple[int, ...]]) -> None:
    assert together(tiny_engine) == alone
    assert together(tiny_engine) == alone  # and again from a warm cache


@pytest.mark.parametrize("page_size", [1, 5])
def test_other_page_sizes_give_the_same_tokens(
    open_tiny_engine: OpenEngine, alone: list[tuple[int, ...]], page_size: int
) -> None:
    assert together(open_tiny_engine(page_size=page_size, num_pages=8000 // page_size)) == alone


def test_chunks_of_seven_tokens_give_the_same_tokens(
    open_tiny_engine: OpenEngine, alone: list[tuple[int, ...]]
) -> None:
    assert together(open_tiny_engine(token_budget=7, num_pages=256)) == alone


def test_eviction_gives_the_same_tokens(open_tiny_engine: OpenEngine, alone: list[tuple[int, ...]]) -> None:
    engine = open_tiny_engine(num_pages=40)
    assert together(engine) == alone
    assert engine.stats.num_evicted_pages > 0


def test_retraction_under_a_pool_too_small_gives_the_same_tokens(
    open_tiny_engine: OpenEngine, alone: list[tuple[int, ...]]
) -> None:
    engine = open_tiny_engine(page_size=4, num_pages=84)
    assert together(engine) == alone
    assert engine.stats.num_retractions > 0


def test_forks_give_the_tokens_of_a_sequence_of_their_own(tiny_engine: Engine, alone: list[tuple[int, ...]]) -> None:
    futures = []
    for prompt, params in mixed_requests():
        parent = open_with(tiny_engine, prompt[: len(prompt) // 2 + 1])
        child, other = tiny_engine.fork(parent, 2)
        tiny_engine.append_ids(child, prompt[len(prompt) // 2 + 1 :])
        futures.append(tiny_engine.generate(child, params))
        tiny_engine.append_ids(other, random_ids(7, 3))
        tiny_engine.generate(other, GREEDY)
        for seq_id in (parent, child, other):
            tiny_engine.close(seq_id)
    assert [ids_of(future) for future in futures] == alone


def test_tokens_continue_after_a_generation_as_if_they_were_one_prompt(tiny_engine: Engine) -> None:
    seq_id = open_with(tiny_engine, random_ids(0, 30))
    ids = ids_of(tiny_engine.generate(seq_id, GREEDY))
    tiny_engine.append_ids(seq_id, [5, 6, 7])
    assert ids_of(tiny_engine.generate(seq_id, GREEDY)) == generate(
        tiny_engine, [*random_ids(0, 30), *ids, 5, 6, 7], GREEDY
    )


# How a generation ends


def text_of(engine: Engine, prompt: Sequence[int], params: SamplingParams) -> tuple[str, list[Chunk]]:
    chunks: list[Chunk] = []
    result = engine.generate(open_with(engine, prompt), params, on_chunk=chunks.append).result(timeout=60)
    return result.completions[0].text, chunks


def test_stop_string_is_cut_exactly_also_while_streaming(tiny_engine: Engine) -> None:
    params = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True)
    whole, _ = text_of(tiny_engine, random_ids(1, 9), params)
    checked = 0
    for start in range(2, len(whole) - 4):
        stop = whole[start : start + 3]
        text, chunks = text_of(
            tiny_engine,
            random_ids(1, 9),
            SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True, stop=(stop, "never seen")),
        )
        assert "�" in stop or text == whole[: whole.index(stop)]
        assert "".join(chunk.text for chunk in chunks) == text
        checked += "�" not in stop
    assert checked > 10


def test_sequence_goes_on_from_the_cut_text(tiny_engine: Engine) -> None:
    """What stays in the sequence after a stop is the text before it, whatever tokens it was sampled in."""
    params = SamplingParams(max_tokens=30, temperature=0.0, ignore_eos=True)
    whole, _ = text_of(tiny_engine, random_ids(1, 9), params)
    stop = next(whole[i : i + 2] for i in range(8, 40) if "�" not in whole[i : i + 2])
    seq_id = open_with(tiny_engine, random_ids(1, 9))
    cut = tiny_engine.generate(
        seq_id, SamplingParams(max_tokens=30, temperature=0.0, ignore_eos=True, stop=(stop,))
    ).result(timeout=60)
    (completion,) = cut.completions
    assert (completion.finish_reason, completion.stop_reason) == ("stop", stop)
    continued = ids_of(tiny_engine.generate(seq_id, GREEDY))
    assert continued == generate(tiny_engine, [*random_ids(1, 9), *completion.token_ids], GREEDY)


def test_stop_token_ends_the_generation_and_stays_out_of_the_sequence(tiny_engine: Engine) -> None:
    whole = generate(tiny_engine, random_ids(3, 10))
    stop_id = next(token_id for token_id in whole[3:] if token_id not in whole[:3])
    seq_id = open_with(tiny_engine, random_ids(3, 10))
    params = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True, stop_token_ids=(stop_id,))
    (completion,) = tiny_engine.generate(seq_id, params).result(timeout=60).completions
    assert completion.token_ids == whole[: whole.index(stop_id)]
    assert (completion.finish_reason, completion.stop_reason) == ("stop", stop_id)


def test_min_tokens_puts_off_the_stop_token(tiny_engine: Engine) -> None:
    whole = generate(tiny_engine, random_ids(3, 10))
    params = SamplingParams(
        max_tokens=12, min_tokens=6, temperature=0.0, ignore_eos=True, stop_token_ids=(whole[0], whole[1])
    )
    result = tiny_engine.generate(open_with(tiny_engine, random_ids(3, 10)), params).result(timeout=60)
    assert result.completions[0].completion_tokens >= 6


def test_bias_chooses_and_excludes_tokens(tiny_engine: Engine) -> None:
    params = SamplingParams(max_tokens=3, temperature=0.0, logit_bias={77: 100.0})
    assert generate(tiny_engine, random_ids(0, 5), params) == (77, 77, 77)


def test_tokens_of_other_rows_do_not_wait_for_a_sample_to_be_finished(tiny_engine: Engine) -> None:
    events: list[str] = []

    def start(name: str, max_tokens: int) -> Future[GenerationResult]:
        params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True, logprobs=True)
        seq_id = open_with(tiny_engine, random_ids(1, 9))
        future = tiny_engine.generate(seq_id, params, on_chunk=lambda chunk: events.extend(name * len(chunk.token_ids)))
        future.add_done_callback(lambda _: events.append(f"end of {name}"))
        return future

    for future in [start("a", 40), start("b", 80)]:
        future.result(timeout=60)
    end = events.index("end of a")
    assert events[:end].count("a") == 40 and events[end + 1 :].count("b") > 30
    assert events[end - 1] == "b"


def test_end_token_ends_the_generation(tiny_engine: Engine) -> None:
    params = SamplingParams(max_tokens=5, temperature=0.0, logit_bias={2: 100.0})
    (completion,) = tiny_engine.generate(open_with(tiny_engine, random_ids(0, 5)), params).result(60).completions
    assert (completion.token_ids, completion.finish_reason, completion.stop_reason) == ((), "stop", 2)


def test_logprobs_are_those_of_the_models_distribution(tiny_engine: Engine) -> None:
    params = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True, logprobs=True, top_logprobs=3)
    chunks: list[Chunk] = []
    future = tiny_engine.generate(open_with(tiny_engine, random_ids(0, 20)), params, on_chunk=chunks.append)
    (completion,) = future.result(timeout=60).completions
    assert [entry.token_id for entry in completion.logprobs] == list(completion.token_ids)
    assert tuple(entry for chunk in chunks for entry in chunk.logprobs) == completion.logprobs
    for entry in completion.logprobs:
        assert entry.top[0].token_id == entry.token_id and entry.top[0].logprob == pytest.approx(entry.logprob)
        assert len(entry.top) == 3 and entry.top[0].logprob >= entry.top[1].logprob >= entry.top[2].logprob


def test_scores_are_the_logprobs_of_generating_the_choice(tiny_engine: Engine) -> None:
    prompt = random_ids(0, 20)
    result = tiny_engine.select(open_with(tiny_engine, prompt), ["the answer", "some", "then"], first).result(60)
    for choice in result.choices:
        for index, (token_id, logprob) in enumerate(zip(choice.token_ids, choice.logprobs, strict=True)):
            params = SamplingParams(
                max_tokens=1, temperature=0.0, logit_bias={token_id: 100.0}, logprobs=True, ignore_eos=True
            )
            seq_id = open_with(tiny_engine, [*prompt, *choice.token_ids[:index]])
            (entry,) = tiny_engine.generate(seq_id, params).result(timeout=60).completions[0].logprobs
            assert entry.token_id == token_id and entry.logprob == pytest.approx(logprob, abs=1e-4)


def test_operations_after_a_selection_wait_for_the_chosen_tokens(tiny_engine: Engine) -> None:
    prompt = random_ids(0, 20)
    seq_id = open_with(tiny_engine, prompt)
    selected = tiny_engine.select(seq_id, ["some", "then"], lambda result: 1)
    tiny_engine.append_ids(seq_id, [9, 10])
    (child,) = tiny_engine.fork(seq_id, 1)
    tiny_engine.append_ids(child, [11])
    second = tiny_engine.select(child, ["to", "and"], first)
    tiny_engine.append_ids(child, [12])
    future = tiny_engine.generate(child, GREEDY)
    tiny_engine.close(child)
    then_ids = selected.result(timeout=60).choices[1].token_ids
    to_ids = second.result(timeout=60).choices[0].token_ids
    assert ids_of(future) == generate(tiny_engine, [*prompt, *then_ids, 9, 10, 11, *to_ids, 12], GREEDY)


# Constraints


def test_output_follows_the_regex_at_any_temperature(tiny_engine: Engine) -> None:
    for seed in range(6):
        params = SamplingParams(max_tokens=40, temperature=1.5, seed=seed)
        seq_id = open_with(tiny_engine, random_ids(seed, 8))
        future = tiny_engine.generate(seq_id, params, RegexSpec(r"[a-c]{2,5}=\d+;"))
        (completion,) = future.result(timeout=60).completions
        assert completion.finish_reason == "length" or re.fullmatch(r"[a-c]{2,5}=\d+;", completion.text)


def test_constraint_that_is_complete_ends_the_generation(tiny_engine: Engine) -> None:
    future = tiny_engine.generate(open_with(tiny_engine, [5]), GREEDY, RegexSpec("yes"))
    (completion,) = future.result(timeout=60).completions
    assert (completion.text, completion.finish_reason, completion.stop_reason) == ("yes", "stop", None)


def test_tokens_that_alone_are_allowed_are_counted(tiny_engine: Engine) -> None:
    params = SamplingParams(max_tokens=9, temperature=1.0, seed=3, logprobs=True)
    future = tiny_engine.generate(open_with(tiny_engine, [5]), params, RegexSpec("yyy[01]y"))
    (completion,) = future.result(timeout=60).completions
    assert (completion.text[:3], completion.completion_tokens) == ("yyy", 5)
    assert tiny_engine.stats.forced_tokens == 4


def test_constraint_whose_end_is_banned_fails_as_a_dead_end(tiny_engine: Engine) -> None:
    params = SamplingParams(max_tokens=9, min_tokens=9, temperature=0.0)
    future = tiny_engine.generate(open_with(tiny_engine, [5]), params, RegexSpec("(a|b)?"))
    assert future.exception(timeout=60) is None or isinstance(future.exception(), GrammarDeadEndError)


def test_invalid_constraints_fail_their_generation_and_nothing_else(tiny_engine: Engine) -> None:
    bad = tiny_engine.generate(open_with(tiny_engine, [5]), GREEDY, RegexSpec("a("))
    good = tiny_engine.generate(open_with(tiny_engine, [5]), GREEDY, JsonSchemaSpec('{"type": "boolean"}'))
    with pytest.raises(InvalidGrammarError, match="a\\("):
        bad.result(timeout=60)
    assert good.result(timeout=60).completions[0].text in ("true", "false")


# Failures


def test_bad_requests_fail_alone_with_a_typed_error(tiny_engine: Engine) -> None:
    long = SamplingParams(max_tokens=100000)
    cases = [
        (tiny_engine.generate(tiny_engine.open(), GREEDY), EmptyPromptError, "append some text"),
        (tiny_engine.generate(open_with(tiny_engine, random_ids(0, 5000)), GREEDY), ContextLengthError, "4096"),
        (tiny_engine.generate(open_with(tiny_engine, [5]), long), ContextLengthError, "100000"),
        (
            tiny_engine.generate(open_with(tiny_engine, [5]), SamplingParams(logit_bias={9999: 1.0})),
            InvalidParameterError,
            "9999",
        ),
    ]
    good = tiny_engine.generate(open_with(tiny_engine, [5]), GREEDY)
    for future, error, words in cases:
        with pytest.raises(error, match=words):
            future.result(timeout=60)
    good.result(timeout=60)
    with pytest.raises(InvalidParameterError, match="400000"):
        tiny_engine.append_ids(tiny_engine.open(), [400000])


def test_prompt_longer_than_the_pool_is_refused(tiny_model: Path) -> None:
    with Engine(tiny_model, dtype="float32", num_pages=4) as engine:
        future = engine.generate(open_with(engine, random_ids(0, 60)), GREEDY)
        with pytest.raises(ContextLengthError, match="page pool of 64"):
            future.result(timeout=60)
        assert generate(engine, random_ids(0, 52))


def test_operations_behind_a_failed_one_fail_with_the_same_error(tiny_engine: Engine) -> None:
    seq_id = open_with(tiny_engine, [5])
    first_error = tiny_engine.generate(seq_id, GREEDY, RegexSpec("(")).exception(timeout=60)
    (child,) = tiny_engine.fork(seq_id, 1)
    assert tiny_engine.generate(seq_id, GREEDY).exception(timeout=60) is first_error
    assert tiny_engine.generate(child, GREEDY).exception(timeout=60) is first_error


def test_a_raising_decision_fails_its_sequence_with_its_own_error(tiny_engine: Engine) -> None:
    def decide(result: ScoreResult) -> int:
        raise KeyError("mine")

    seq_id = open_with(tiny_engine, [5])
    selected = tiny_engine.select(seq_id, ["some", "then"], decide)
    (child,) = tiny_engine.fork(seq_id, 1)
    later = tiny_engine.generate(child, GREEDY)
    for future in (selected, later, tiny_engine.generate(seq_id, GREEDY)):
        assert isinstance(future.exception(timeout=60), KeyError)


def test_abort_ends_running_and_queued_operations_and_frees_their_pages(tiny_engine: Engine) -> None:
    seq_id = open_with(tiny_engine, random_ids(0, 100))
    running = tiny_engine.generate(seq_id, SamplingParams(max_tokens=3000, ignore_eos=True))
    queued = tiny_engine.generate(seq_id, GREEDY)
    tiny_engine.abort(seq_id)
    for future in (running, queued, tiny_engine.generate(seq_id, GREEDY)):
        assert isinstance(future.exception(timeout=60), AbortedError)
    tiny_engine.flush_cache()
    assert tiny_engine.stats.num_free_pages == tiny_engine.stats.num_pages


def test_abort_reaches_what_a_closed_sequence_still_runs(tiny_engine: Engine) -> None:
    seq_id = open_with(tiny_engine, random_ids(0, 100))
    running = tiny_engine.generate(seq_id, SamplingParams(max_tokens=3000, ignore_eos=True))
    tiny_engine.close(seq_id)
    tiny_engine.abort(seq_id)
    assert isinstance(running.exception(timeout=60), AbortedError)
    tiny_engine.abort(seq_id)


def test_a_closed_engine_keeps_no_memory(open_tiny_engine: OpenEngine) -> None:
    engine = open_tiny_engine(num_pages=64)
    kv = weakref.ref(engine._core.steps.forward.kv)
    generate(engine, random_ids(0, 40))
    engine.shutdown()
    assert kv() is None
    assert engine.stats.decode_tokens > 0


def test_the_garbage_collector_leaves_alone_what_lives_as_long_as_the_engine(open_tiny_engine: OpenEngine) -> None:
    """Going through it all takes as long as many steps. What is added later follows when the engine pauses."""
    engine = open_tiny_engine(num_pages=64)
    at_start = gc.get_freeze_count()
    assert at_start > 10_000
    added = [[number] for number in range(100_000)]
    generate(engine, random_ids(0, 4), SamplingParams(max_tokens=120, ignore_eos=True))
    deadline = time.monotonic() + 60
    while gc.get_freeze_count() < at_start + len(added) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gc.get_freeze_count() >= at_start + len(added)
    engine.shutdown()
    assert gc.get_freeze_count() == 0


def test_what_is_finished_is_not_left_to_the_garbage_collector(tiny_engine: Engine) -> None:
    """Its cycles would hold up steps when they are collected. The last one may still stand in its row."""
    gc.collect()
    gc.disable()
    try:
        for seed in range(5):
            generate(tiny_engine, random_ids(seed, 4))
            tiny_engine.select(open_with(tiny_engine, [5]), ["the answer", "some"], first).result(60)
        alive = [thing for thing in gc.get_objects() if isinstance(thing, SampleTask | ScoreTask)]
    finally:
        gc.enable()
    assert len(alive) <= 3


def test_closing_the_engine_fails_what_is_left(tiny_model: Path) -> None:
    engine = Engine(tiny_model, dtype="float32", num_pages=256)
    running = engine.generate(open_with(engine, [5]), SamplingParams(max_tokens=3000, ignore_eos=True))
    engine.shutdown()
    assert isinstance(running.exception(timeout=60), EngineClosedError)
    assert isinstance(engine.generate(engine.open(), GREEDY).exception(timeout=60), EngineClosedError)


def test_a_fault_of_the_engine_itself_ends_it_and_leaves_no_one_waiting(tiny_model: Path) -> None:
    def fail(*_: object) -> list[Row]:
        raise RuntimeError("a fault of the engine")

    engine = Engine(tiny_model, dtype="float32", num_pages=256)
    engine._core.scheduler.plan = fail
    engine._core._pins.remove = fail  # what is left behind cannot be closed in order either
    failed = engine.generate(open_with(engine, [5]), GREEDY)
    assert isinstance(failed.exception(timeout=60), EngineClosedError)
    assert isinstance(engine.generate(engine.open(), GREEDY).exception(timeout=60), EngineClosedError)
    with pytest.raises(EngineClosedError):
        engine.flush_cache()
    engine.shutdown()


def test_a_process_may_end_in_the_middle_of_a_generation(tiny_model: Path) -> None:
    code = (
        "import sys; from sgrun.engine.client import Engine; from sgrun.types import SamplingParams\n"
        "engine = Engine(sys.argv[1], dtype='float32', num_pages=256, device='cpu')\n"
        "seq_id = engine.open(); engine.append_ids(seq_id, [5, 6])\n"
        "engine.generate(seq_id, SamplingParams(max_tokens=3000, ignore_eos=True))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tiny_model)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_random_weights_run_with_a_tokenizer_from_elsewhere(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_model / "config.json").read_text())
    with Engine(tmp_path, load_format="dummy", tokenizer=tiny_model, dtype="float32", num_pages=64) as engine:
        assert len(generate(engine, [5, 6, 7])) == 12


class Faulty:
    """The real runner, but steps can be made to fail or to give NaN for the rows of one token id."""

    def __init__(self, engine: Engine) -> None:
        self.forward = engine._core.steps.forward
        self.raises_on: int | None = None
        self.nan_on: int | None = None
        engine._core.steps.forward = self

    def __call__(self, inputs: ForwardInputs) -> torch.Tensor:
        if inputs.logits_rows is None:  # a step launched ahead: it is captured, so that nothing may look at values
            return self.forward(inputs)
        if self.raises_on is not None and self.raises_on in inputs.token_ids.tolist():
            raise RuntimeError("out of luck")
        logits = self.forward(inputs)
        if self.nan_on is not None:
            is_hit = inputs.token_ids[inputs.logits_rows] == self.nan_on
            logits[is_hit] = float("nan")
        return logits


def test_a_step_that_raises_fails_its_sequences_and_leaves_no_trace_in_the_cache(tiny_engine: Engine) -> None:
    expected = generate(tiny_engine, [*random_ids(0, 40), 295])
    tiny_engine.flush_cache()
    fault = Faulty(tiny_engine)
    fault.raises_on = 295
    future = tiny_engine.generate(open_with(tiny_engine, [*random_ids(0, 40), 295]), GREEDY)
    with pytest.raises(EngineError, match="RuntimeError: out of luck"):
        future.result(timeout=60)
    fault.raises_on = None
    seq_id = open_with(tiny_engine, [*random_ids(0, 40), 295])
    result = tiny_engine.generate(seq_id, GREEDY).result(timeout=60)
    assert (result.stats.cached_tokens, result.completions[0].token_ids) == (0, expected)


def test_nan_logits_fail_one_row_and_its_neighbours_go_on(tiny_engine: Engine) -> None:
    expected = generate(tiny_engine, random_ids(5, 30))
    tiny_engine.flush_cache()
    fault = Faulty(tiny_engine)
    fault.nan_on = 296
    good = tiny_engine.generate(open_with(tiny_engine, random_ids(5, 30)), GREEDY)
    bad = tiny_engine.generate(open_with(tiny_engine, [*random_ids(0, 40), 296]), GREEDY)
    with pytest.raises(NonFiniteLogitsError):
        bad.result(timeout=60)
    assert ids_of(good) == expected
    fault.nan_on = None
    again = tiny_engine.generate(open_with(tiny_engine, [*random_ids(0, 40), 296]), GREEDY).result(timeout=60)
    assert again.stats.cached_tokens == 0


def test_sequences_that_shared_discarded_pages_compute_them_again(tiny_engine: Engine) -> None:
    """One of two sequences on the same cold prefix gives NaN in the step that fills it: the other one starts again."""
    prefix = random_ids(0, 40)
    expected = generate(tiny_engine, [*prefix, 9, 9])
    tiny_engine.flush_cache()
    Faulty(tiny_engine).nan_on = 296
    parent = open_with(tiny_engine, prefix)
    bad_id, good_id = tiny_engine.fork(parent, 2)
    tiny_engine.append_ids(bad_id, [296])
    tiny_engine.append_ids(good_id, [9, 9])
    bad, good = tiny_engine.generate(bad_id, GREEDY), tiny_engine.generate(good_id, GREEDY)
    assert isinstance(bad.exception(timeout=60), NonFiniteLogitsError)
    assert ids_of(good) == expected


def test_sample_that_ends_before_pages_that_it_shares_are_discarded_stays_finished(tiny_engine: Engine) -> None:
    """In one step the first row takes its last token, and the second, whose prompt it shares, fails."""
    prefix = random_ids(0, 40)
    expected = generate(tiny_engine, [*prefix, 9])
    tiny_engine.flush_cache()
    steps = tiny_engine._core.steps
    collect, num_hits = steps.collect, 0

    def collect_and_spoil() -> StepResult:
        nonlocal num_hits
        result = collect()
        ends = [task.seq.priority and task.num_outputs == len(expected) - 1 for _, task, _ in result.sampled]
        if ends == [True, False]:
            num_hits += 1
            row, task, _ = result.sampled[1]
            result.sampled[1] = row, task, Sampled(NOT_FINITE)
        return result

    # The engine is real but for one token: no input makes a row fail in just the step in which another ends.
    steps.collect = collect_and_spoil  # type: ignore[method-assign]
    has_begun = threading.Event()
    long = SamplingParams(max_tokens=200, temperature=0.0, ignore_eos=True)
    bad = tiny_engine.generate(open_with(tiny_engine, [*prefix, 8]), long, on_chunk=lambda _: has_begun.set())
    assert has_begun.wait(timeout=60)
    good = tiny_engine.generate(open_with(tiny_engine, [*prefix, 9], priority=1), GREEDY)
    assert ids_of(good) == expected
    assert isinstance(bad.exception(timeout=60), NonFiniteLogitsError) and num_hits == 1
    again = tiny_engine.generate(open_with(tiny_engine, [*prefix, 9]), GREEDY).result(timeout=60)
    assert (again.stats.cached_tokens, again.completions[0].token_ids) == (0, expected)
