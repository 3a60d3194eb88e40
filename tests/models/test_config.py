"""What config.json and GGUF metadata turn into, and what is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sgrun.errors import ModelError, UnsupportedModelError, WeightsError
from sgrun.models.config import ModelConfig, RopeConfig
from sgrun.models.decoder import rope_frequencies

LLAMA: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
}
MISTRAL = {**LLAMA, "architectures": ["MistralForCausalLM"], "num_key_value_heads": 2}
QWEN2 = {**MISTRAL, "architectures": ["Qwen2ForCausalLM"]}
QWEN3 = {**MISTRAL, "architectures": ["Qwen3ForCausalLM"]}
GGUF: dict[str, object] = {
    "general.architecture": "llama",
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 4096,
    "llama.block_count": 2,
    "llama.feed_forward_length": 96,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256}


def test_a_minimal_llama_config_gets_the_defaults_of_its_family() -> None:
    config = ModelConfig.from_hf(LLAMA)
    assert (config.num_kv_heads, config.head_dim, config.rms_norm_eps) == (4, 16, 1e-6)
    assert (config.context_len, config.rope, config.tie_word_embeddings) == (4096, RopeConfig(), False)
    assert (config.qkv_bias, config.o_bias, config.mlp_bias, config.qk_norm) == (False, False, False, False)
    assert (config.bos_token_id, config.eos_token_ids) == (None, ())


def test_families_differ_in_biases_and_head_norms() -> None:
    biased = ModelConfig.from_hf({**LLAMA, "attention_bias": True, "mlp_bias": True})
    assert (biased.qkv_bias, biased.o_bias, biased.mlp_bias) == (True, True, True)
    qwen2, qwen3 = ModelConfig.from_hf(QWEN2), ModelConfig.from_hf(QWEN3)
    assert (qwen2.qkv_bias, qwen2.o_bias, qwen2.qk_norm) == (True, False, False)
    assert (qwen3.qkv_bias, qwen3.o_bias, qwen3.qk_norm, qwen3.head_dim) == (False, False, True, 128)


def test_model_type_names_the_family_where_architectures_is_missing() -> None:
    config = ModelConfig.from_hf({**QWEN3, "architectures": None, "model_type": "qwen3"})
    assert config.architecture == "Qwen3ForCausalLM"


def test_end_tokens_of_the_generation_config_win() -> None:
    config = {**LLAMA, "eos_token_id": 2, "bos_token_id": 1}
    assert ModelConfig.from_hf(config).eos_token_ids == (2,)
    assert ModelConfig.from_hf(config, {"eos_token_id": [5, 7]}).eos_token_ids == (5, 7)
    assert ModelConfig.from_hf(config, {"temperature": 0.6}).eos_token_ids == (2,)
    assert ModelConfig.from_hf(config).bos_token_id == 1


@pytest.mark.parametrize(
    "layout",
    [
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
    ],
)
def test_rope_is_read_in_all_layouts(layout: dict[str, object]) -> None:
    rope = ModelConfig.from_hf({**LLAMA, **layout}).rope
    assert rope == RopeConfig(theta=5e5, kind="llama3", factor=8.0, original_context_len=256)


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_rope_frequencies_are_those_of_transformers(kind: str) -> None:
    parameters = {"rope_type": kind, "rope_theta": 10000.0, **(LLAMA3 if kind == "llama3" else {"factor": 3.0})}
    theirs, _ = ROPE_INIT_FUNCTIONS[kind](LlamaConfig(head_dim=64, rope_parameters=parameters))
    ours = rope_frequencies(ModelConfig.from_hf({**LLAMA, "rope_parameters": parameters}).rope, 64)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    assert not torch.equal(ours, rope_frequencies(RopeConfig(), 64))


@pytest.mark.parametrize("rope_type", ["yarn", "dynamic", "longrope", "mrope"])
def test_other_rope_types_are_refused_by_name(rope_type: str) -> None:
    scaling = {"rope_type": rope_type, "factor": 4.0}
    for layout in ({"rope_scaling": scaling}, {"rope_parameters": {**scaling, "rope_theta": 1e4}}):
        with pytest.raises(UnsupportedModelError, match=rope_type):
            ModelConfig.from_hf({**LLAMA, **layout})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*LlamaForCausalLM"),
        ({"architectures": ["MyModel"], "auto_map": {"AutoModelForCausalLM": "modeling.MyModel"}}, "MyModel"),
        ({"architectures": None, "model_type": "mamba"}, "mamba"),
        ({"architectures": None, "model_type": None}, "None"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ],
)
def test_what_is_not_computed_is_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        ModelConfig.from_hf({**LLAMA, **change})


@pytest.mark.parametrize(
    "config",
    [
        {**MISTRAL, "model_type": "mistral", "sliding_window": 1024},
        {**QWEN2, "model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": True},
        {**QWEN2, "sliding_window": 1024, "layer_types": ["full_attention", "sliding_attention"]},
    ],
)
def test_a_window_shorter_than_the_context_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(UnsupportedModelError, match="sliding_window 1024"):
        ModelConfig.from_hf(config)


@pytest.mark.parametrize(
    "config",
    [
        {**MISTRAL, "model_type": "mistral", "sliding_window": 4096},
        {**MISTRAL, "model_type": "mistral", "sliding_window": None},
        {**QWEN2, "model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": False},
        {**QWEN2, "sliding_window": 1024, "layer_types": ["full_attention", "full_attention"]},
    ],
)
def test_a_window_that_never_cuts_is_allowed(config: dict[str, object]) -> None:
    assert ModelConfig.from_hf(config).context_len == 4096


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"num_key_value_heads": 3}, "4 heads and 3 key/value heads"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rope_scaling": {"type": "linear"}}, "factor is None"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
    ],
)
def test_senseless_values_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(WeightsError, match=named):
        ModelConfig.from_hf({**LLAMA, **change})


def test_gguf_metadata_and_tensors_make_a_config() -> None:
    metadata = {**GGUF, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.eot_token_id": 9}
    config = ModelConfig.from_gguf(metadata, {"token_embd.weight": (100, 64)})
    assert (config.architecture, config.vocab_size, config.num_kv_heads) == ("LlamaForCausalLM", 100, 2)
    assert (config.tie_word_embeddings, config.qkv_bias, config.eos_token_ids) == (True, False, (2, 9))
    shapes = {"token_embd.weight": (100, 64), "output.weight": (100, 64), "blk.0.attn_q.bias": (64,)}
    config = ModelConfig.from_gguf(GGUF, shapes)
    assert (config.tie_word_embeddings, config.qkv_bias, config.o_bias) == (False, True, False)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"general.architecture": "gemma3"}, "gemma3"),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.rope.scaling.type": "yarn"}, "yarn"),
        ({"llama.rope.dimension_count": 8}, "rotates a part"),
        ({"llama.attention.value_length": 8}, "value heads"),
        ({"llama.attention.sliding_window": 512}, "sliding_window 512"),
        ({"llama.block_count": None}, "block_count is None"),
    ],
)
def test_gguf_refusals_name_their_reason(change: dict[str, object], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        ModelConfig.from_gguf({**GGUF, **change}, {"token_embd.weight": (100, 64)})


def test_gguf_linear_rope_is_read() -> None:
    metadata = {**GGUF, "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    rope = ModelConfig.from_gguf(metadata, {"token_embd.weight": (100, 64)}).rope
    assert (rope.kind, rope.factor) == ("linear", 4.0)
