"""The decoder against transformers, logit by logit, over pages that hold NaN wherever nothing was stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paged_pool import Pool, Row
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sgrun.models.decoder import Decoder
from sgrun.models.load import load_model

SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=6, num_key_value_heads=2))


def _llama_tied_biased() -> PreTrainedModel:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    switches = {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    return LlamaForCausalLM(LlamaConfig(**SIZES, **heads, **switches))


def _llama_linear_rope() -> PreTrainedModel:
    rope = {"rope_type": "linear", "rope_theta": 20000.0, "factor": 3.0}
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=3, num_key_value_heads=1, rope_parameters=rope))


def _llama3() -> PreTrainedModel:
    config = LlamaConfig(**SIZES, num_attention_heads=3, num_key_value_heads=1, rope_parameters=LLAMA3_ROPE)
    return LlamaForCausalLM(config)


def _mistral() -> PreTrainedModel:
    config = MistralConfig(
        **SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=None, rms_norm_eps=1e-5
    )
    return MistralForCausalLM(config)


def _qwen2() -> PreTrainedModel:
    return Qwen2ForCausalLM(
        Qwen2Config(**SIZES, num_attention_heads=6, num_key_value_heads=3, tie_word_embeddings=True)
    )


def _qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, num_attention_heads=4, num_key_value_heads=1, head_dim=32))


MODELS = (_llama, _llama_tied_biased, _llama_linear_rope, _llama3, _mistral, _qwen2, _qwen3)


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__.strip("_"))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, PreTrainedModel]:
    """A tiny model with random weights (norms and biases included), in sgrun and in transformers."""
    torch.manual_seed(7)
    theirs = request.param().eval().float()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    return load_model(folder, dtype=torch.float32, device=torch.get_default_device()), theirs


def _tokens(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, SIZES["vocab_size"], (length,), generator=generator, device="cpu").tolist()


@torch.no_grad()
def _expected(theirs: PreTrainedModel, token_ids: list[int]) -> Tensor:
    return theirs(torch.tensor([token_ids])).logits[0]


def _assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == torch.float32
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max().item() <= 1e-4


@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_ragged_extends_match_transformers(pair: tuple[Decoder, PreTrainedModel], page_size: int) -> None:
    ours, theirs = pair
    pool = Pool(ours, page_size)
    rows = [pool.add(_tokens(length, length)) for length in (1, 17, 5, 16)]
    logits = pool.forward([(row, len(row.token_ids)) for row in rows])
    _assert_close(logits, torch.cat([_expected(theirs, row.token_ids) for row in rows]))


@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_chunks_over_cached_prefixes_mixed_with_decodes_match(
    pair: tuple[Decoder, PreTrainedModel], page_size: int
) -> None:
    ours, theirs = pair
    pool = Pool(ours, page_size, num_pages=128)
    long, short, first, second = (pool.add(_tokens(length, length)) for length in (37, 9, 21, 6))
    pool.forward([(long, 18), (first, 20), (second, 5)])
    logits = pool.forward([(long, 1), (short, 9)], [first, second])
    expected = [_expected(theirs, row.token_ids) for row in (long, short, first, second)]
    _assert_close(logits, torch.cat([expected[0][18:19], expected[1], expected[2][20:], expected[3][5:]]))
    pool.grow(first, 11)
    logits = pool.forward([(long, 18)], [first])
    _assert_close(logits, torch.cat([expected[0][19:], _expected(theirs, first.token_ids)[21:]]))


def test_only_wanted_logits_come_back(pair: tuple[Decoder, PreTrainedModel]) -> None:
    ours, theirs = pair
    pool = Pool(ours)
    row = pool.add(_tokens(13))
    _assert_close(pool.forward([(row, 13)], logits_rows=[12, 3]), _expected(theirs, row.token_ids)[[12, 3]])
    row.cached_len = 0
    every = replace(pool.inputs([(row, 13)]), logits_rows=None)
    _assert_close(ours.forward(every, pool.kv), _expected(theirs, row.token_ids))
    logits = pool.forward([(row, 13)], logits_rows=[])
    assert logits.shape == (0, SIZES["vocab_size"])


def test_decodes_alone_match_one_by_one(pair: tuple[Decoder, PreTrainedModel]) -> None:
    ours, theirs = pair
    pool = Pool(ours)
    rows = [pool.add(_tokens(length, length)) for length in (1, 8, 30)]
    pool.forward([(row, len(row.token_ids)) for row in rows])
    for token_id in (5, 9, 40, 41, 42):
        for row in rows:
            pool.grow(row, token_id)
        logits = pool.forward([], rows)
        _assert_close(logits, torch.cat([_expected(theirs, row.token_ids)[-1:] for row in rows]))


def test_64_greedy_tokens_are_those_of_transformers(pair: tuple[Decoder, PreTrainedModel]) -> None:
    ours, theirs = pair
    pool = Pool(ours)
    row = pool.add(_tokens(10))
    _generate(pool, row, 64)
    prompt = torch.tensor([_tokens(10)])
    options = {"do_sample": False, "max_new_tokens": 64, "min_new_tokens": 64, "pad_token_id": 0, "eos_token_id": None}
    assert row.token_ids == theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **options)[0].tolist()


def _generate(pool: Pool, row: Row, num_tokens: int) -> None:
    logits = pool.forward([(row, len(row.token_ids))])
    pool.grow(row, int(logits[-1].argmax()))
    for _ in range(num_tokens - 1):
        pool.grow(row, int(pool.forward([], [row]).argmax()))


def test_a_row_reads_pages_that_another_fills_in_the_same_step(pair: tuple[Decoder, PreTrainedModel]) -> None:
    ours, theirs = pair
    pool = Pool(ours, page_size=4)
    prefix = _tokens(10, 1)
    first = pool.add(prefix + _tokens(5, 2))
    # The follower shares the two full pages and a copy of the first two places of the third.
    follower = pool.add(prefix + _tokens(6, 3), pages=first.pages[:2], cached_len=10)
    copies = [(pool.slot(first, position), pool.slot(follower, position)) for position in (8, 9)]
    assert first.pages[2] != follower.pages[2]
    logits = pool.forward([(first, 15), (follower, 6)], copies=copies)
    _assert_close(logits, torch.cat([_expected(theirs, first.token_ids), _expected(theirs, follower.token_ids)[10:]]))


def test_a_copied_tail_page_serves_a_decode_row_of_the_same_step(pair: tuple[Decoder, PreTrainedModel]) -> None:
    ours, theirs = pair
    pool = Pool(ours, page_size=4)
    first = pool.add(_tokens(10, 1))
    follower = pool.add([*_tokens(9, 1), 33], pages=first.pages[:2], cached_len=9)
    copies = [(pool.slot(first, 8), pool.slot(follower, 8))]
    logits = pool.forward([(first, 10)], [follower], copies=copies)
    _assert_close(logits[-1], _expected(theirs, follower.token_ids)[-1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(
    pair: tuple[Decoder, PreTrainedModel], dtype: torch.dtype, tmp_path: Path
) -> None:
    theirs = pair[1]
    theirs.save_pretrained(tmp_path)
    pool = Pool(load_model(tmp_path, dtype=dtype, device=torch.get_default_device()))
    row = pool.add(_tokens(20))
    extended = pool.forward([(row, 19)])
    logits = torch.cat([extended, pool.forward([], [row])])
    expected = _expected(theirs, row.token_ids)
    assert logits.dtype == dtype
    assert (logits - expected).norm() / expected.norm() < (0.05 if dtype == torch.bfloat16 else 0.01)
