"""The default model's real weights: the GGUF file read by sgrun and by transformers gives one and the same model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from sgrun.models.decoder import Decoder
from sgrun.models.inputs import ForwardInputs
from sgrun.models.load import load_model

PROMPT = [1, 504, 3575, 282, 4649, 314, 1, 198, 4093, 198, 2683, 359, 253, 5356, 5646, 11173, 30]
PAGE_SIZE = 16


@pytest.fixture(scope="module")
def ours(smollm2_gguf: Path) -> Decoder:
    return load_model(smollm2_gguf, dtype=torch.float32, device=torch.get_default_device())


@pytest.fixture(scope="module")
def theirs(smollm2_gguf: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    checkpoint = load_gguf_checkpoint(str(smollm2_gguf), return_tensors=True, model_to_load=model)
    problems = model.load_state_dict(checkpoint["tensors"], strict=False)
    assert (problems.missing_keys, problems.unexpected_keys) == (["lm_head.weight"], [])  # tied
    return model


def _ids(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _inputs(token_ids: list[int], cached_len: int) -> ForwardInputs:
    """One row over pages 1, 2, ...: an extend, or a decode when one token is new."""
    seq_len, extend_len = len(token_ids), len(token_ids) - cached_len
    is_decode = extend_len == 1
    return ForwardInputs(
        token_ids=_ids(*token_ids[cached_len:]),
        positions=torch.arange(cached_len, seq_len),
        store_slots=torch.arange(cached_len, seq_len) + PAGE_SIZE,
        copy_src=_ids(),
        copy_dst=_ids(),
        page_tables=torch.arange(1, 2 + seq_len // PAGE_SIZE)[None],
        seq_lens=_ids(seq_len),
        extend_starts=_ids(0, extend_len),
        logits_rows=torch.arange(extend_len),
        num_extends=0 if is_decode else 1,
        seq_lens_host=[] if is_decode else [seq_len],
        extend_lens_host=[] if is_decode else [extend_len],
        max_decode_len=seq_len if is_decode else 0,
        decodes_share=False,
    )


def _empty_kv(decoder: Decoder) -> Tensor:
    config = decoder.config
    shape = (config.num_layers, 2, 8, PAGE_SIZE, config.num_kv_heads, config.head_dim)
    return torch.full(shape, float("nan"), dtype=decoder.dtype)


def test_config_is_that_of_smollm2(ours: Decoder) -> None:
    config = ours.config
    assert (config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim) == (30, 9, 3, 64)
    assert (config.vocab_size, config.context_len, config.tie_word_embeddings) == (49152, 8192, True)
    assert (config.rope.theta, config.bos_token_id, config.eos_token_ids) == (100000.0, 1, (2,))


@torch.no_grad()
def test_logits_are_those_of_transformers(ours: Decoder, theirs: PreTrainedModel) -> None:
    logits = ours.forward(_inputs(PROMPT, 0), _empty_kv(ours))
    expected = theirs(torch.tensor([PROMPT])).logits[0]
    assert (logits - expected).abs().max().item() <= 1e-4


def test_64_greedy_tokens_are_those_of_transformers(ours: Decoder, theirs: PreTrainedModel) -> None:
    token_ids, cached_len, kv = list(PROMPT), 0, _empty_kv(ours)
    for _ in range(64):
        logits = ours.forward(_inputs(token_ids, cached_len), kv)
        cached_len = len(token_ids)
        token_ids.append(int(logits[-1].argmax()))
    prompt = torch.tensor([PROMPT])
    options = {"do_sample": False, "max_new_tokens": 64, "min_new_tokens": 64, "pad_token_id": 0, "eos_token_id": None}
    assert token_ids == theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **options)[0].tolist()


def test_bfloat16_agrees_on_the_next_token(ours: Decoder, smollm2_gguf: Path) -> None:
    half = load_model(smollm2_gguf, dtype=torch.bfloat16, device=torch.get_default_device())
    logits = half.forward(_inputs(PROMPT, 0), _empty_kv(half))
    expected = ours.forward(_inputs(PROMPT, 0), _empty_kv(ours))
    # 0.030 away is transformers in bfloat16: weights and what passes between operations are rounded
    assert (logits - expected).norm() / expected.norm() < 0.032
    assert logits[-1].argmax() == expected[-1].argmax()
