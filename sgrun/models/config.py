"""What a decoder is made of: read from a Hugging Face config.json or from GGUF metadata, refused where it is outside
what sgrun computes. Knows nothing of weight files and executes nothing (`auto_map` is ignored)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sgrun.errors import UnsupportedModelError, WeightsError

SUPPORTED_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")

_BY_MODEL_TYPE = dict(zip(("llama", "mistral", "qwen2", "qwen3"), SUPPORTED_ARCHITECTURES, strict=True))
_BY_GGUF_NAME = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_MAX_SIZE = 1 << 24  # of any dimension: bounds what a hostile config makes us allocate before its weights are checked
_MAX_LAYERS = 1024

RopeKind: TypeAlias = Literal["default", "linear", "llama3", "factors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary positions. linear: frequencies / factor. llama3: only low ones, as in Llama 3.1.
    factors: each frequency / its own factor (`factors` has head_dim / 2 numbers)."""

    theta: float = 10000.0
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context_len: int = 8192
    factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes and switches of one decoder. qkv_bias, o_bias, mlp_bias: the projections that have a bias;
    qk_norm: an RMS norm over each query and key head before rotation."""

    architecture: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    rope: RopeConfig
    context_len: int
    tie_word_embeddings: bool
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise WeightsError(
                f"the config has {self.num_heads} heads and {self.num_kv_heads} key/value heads; "
                "allowed: a multiple of the key/value heads"
            )
        if self.head_dim % 2:
            raise WeightsError(f"the config's head_dim is {self.head_dim}; rotary positions need an even one")

    @classmethod
    def from_hf(
        cls, config: Mapping[str, object], generation_config: Mapping[str, object] | None = None
    ) -> ModelConfig:
        """From the dicts of config.json and generation_config.json (whose end tokens win).

        Raises UnsupportedModelError for what sgrun does not compute, WeightsError for missing or senseless values.
        """
        architecture = _hf_architecture(config)
        _refuse_hf_features(config)
        fields = _Fields(config, "config.json")
        num_heads = fields.size("num_attention_heads")
        hidden_size = fields.size("hidden_size")
        is_llama = architecture == "LlamaForCausalLM"
        is_qwen3 = architecture == "Qwen3ForCausalLM"
        context_len = fields.size("max_position_embeddings")
        has_attention_bias = (is_llama or is_qwen3) and fields.flag("attention_bias")
        return cls(
            architecture=architecture,
            vocab_size=fields.size("vocab_size"),
            hidden_size=hidden_size,
            num_layers=fields.size("num_hidden_layers", high=_MAX_LAYERS),
            num_heads=num_heads,
            num_kv_heads=fields.size("num_key_value_heads", default=num_heads if is_llama else None),
            head_dim=fields.size("head_dim", default=128 if is_qwen3 else hidden_size // num_heads),
            intermediate_size=fields.size("intermediate_size"),
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
            rope=_hf_rope(config, context_len),
            context_len=context_len,
            tie_word_embeddings=fields.flag("tie_word_embeddings"),
            qkv_bias=has_attention_bias or architecture == "Qwen2ForCausalLM",
            o_bias=has_attention_bias,
            mlp_bias=is_llama and fields.flag("mlp_bias"),
            qk_norm=is_qwen3,
            bos_token_id=next(iter(fields.token_ids("bos_token_id")), None),
            eos_token_ids=_Fields(generation_config or {}, "generation_config.json").token_ids("eos_token_id")
            or fields.token_ids("eos_token_id"),
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
        """From the metadata and the tensor shapes (row-major) of a GGUF file: biases and a missing output matrix show
        in the tensors only. The caller adds `rope_freqs.weight`. Raises as `from_hf` does."""
        name = metadata.get("general.architecture")
        if name not in _BY_GGUF_NAME:
            raise UnsupportedModelError(
                f"the GGUF file holds architecture {name!r}; sgrun runs {', '.join(_BY_GGUF_NAME)}"
            )
        fields = _Fields(metadata, "the GGUF metadata")
        hidden_size = fields.size(f"{name}.embedding_length")
        num_heads = fields.size(f"{name}.attention.head_count")
        head_dim = fields.size(f"{name}.attention.key_length", default=hidden_size // num_heads)
        context_len = fields.size(f"{name}.context_length")
        _refuse_gguf_features(str(name), fields, head_dim, context_len)
        eos_token_ids = [
            token_id for key in ("eos", "eot") for token_id in fields.token_ids(f"tokenizer.ggml.{key}_token_id")
        ]
        return cls(
            architecture=_BY_GGUF_NAME[str(name)],
            vocab_size=shapes.get("token_embd.weight", (0,))[0],
            hidden_size=hidden_size,
            num_layers=fields.size(f"{name}.block_count", high=_MAX_LAYERS),
            num_heads=num_heads,
            num_kv_heads=fields.size(f"{name}.attention.head_count_kv", default=num_heads),
            head_dim=head_dim,
            intermediate_size=fields.size(f"{name}.feed_forward_length"),
            rms_norm_eps=fields.number(f"{name}.attention.layer_norm_rms_epsilon"),
            rope=_gguf_rope(str(name), metadata),
            context_len=context_len,
            tie_word_embeddings="output.weight" not in shapes,
            qkv_bias="blk.0.attn_q.bias" in shapes,
            o_bias="blk.0.attn_output.bias" in shapes,
            mlp_bias="blk.0.ffn_gate.bias" in shapes,
            qk_norm=name == "qwen3",
            bos_token_id=next(iter(fields.token_ids("tokenizer.ggml.bos_token_id")), None),
            eos_token_ids=tuple(dict.fromkeys(eos_token_ids)),
        )


def _hf_architecture(config: Mapping[str, object]) -> str:
    named = config.get("architectures")
    if isinstance(named, list) and named:
        architecture = named[0]
    else:
        model_type = config.get("model_type")
        architecture = _BY_MODEL_TYPE.get(model_type, model_type) if isinstance(model_type, str) else None
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise UnsupportedModelError(
            f"config.json names architecture {architecture!r}; sgrun runs {', '.join(SUPPORTED_ARCHITECTURES)}"
        )
    return str(architecture)


def _refuse_hf_features(config: Mapping[str, object]) -> None:
    if config.get("quantization_config") is not None:
        raise UnsupportedModelError(
            "config.json has a quantization_config; sgrun runs unquantised safetensors, or a GGUF file"
        )
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise UnsupportedModelError(f"config.json names hidden_act {activation!r}; sgrun runs 'silu'")
    window, context_len = config.get("sliding_window"), config.get("max_position_embeddings")
    if not isinstance(window, int) or not isinstance(context_len, int) or window >= context_len:
        return
    layer_types = config.get("layer_types")
    if isinstance(layer_types, list):
        is_used = "sliding_attention" in layer_types
    else:
        is_used = config.get("use_sliding_window", config.get("model_type") == "mistral") is True
    if is_used:
        raise UnsupportedModelError(
            f"config.json has sliding_window {window}, shorter than the context of {context_len}; sgrun attends to "
            "the whole context (a window of at least max_position_embeddings, or null, is allowed)"
        )


def _hf_rope(config: Mapping[str, object], context_len: int) -> RopeConfig:
    """`rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (earlier)."""
    parameters = config.get("rope_parameters")
    if parameters is None:
        parameters = config.get("rope_scaling")
    if not isinstance(parameters, Mapping):
        parameters = {}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    fields = _Fields(parameters, "the rope parameters of config.json")
    theta = fields.number("rope_theta", _Fields(config, "config.json").number("rope_theta", 10000.0))
    if fields.number("partial_rotary_factor", 1.0) != 1.0 or config.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModelError("config.json has a partial_rotary_factor; sgrun rotates whole heads (1.0)")
    if kind == "default":
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig(theta=theta, kind="linear", factor=fields.number("factor"))
    if kind == "llama3":
        return RopeConfig(
            theta=theta,
            kind="llama3",
            factor=fields.number("factor"),
            low_freq_factor=fields.number("low_freq_factor"),
            high_freq_factor=fields.number("high_freq_factor"),
            original_context_len=fields.size("original_max_position_embeddings", default=context_len),
        )
    raise UnsupportedModelError(f"config.json has rope type {kind!r}; sgrun runs default, linear, llama3")


def _gguf_rope(name: str, metadata: Mapping[str, object]) -> RopeConfig:
    fields = _Fields(metadata, "the GGUF metadata")
    theta = fields.number(f"{name}.rope.freq_base", 10000.0)
    kind = metadata.get(f"{name}.rope.scaling.type", "none")
    if kind == "none":
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig(theta=theta, kind="linear", factor=fields.number(f"{name}.rope.scaling.factor"))
    raise UnsupportedModelError(f"the GGUF metadata has rope scaling {kind!r}; sgrun runs none, linear")


def _refuse_gguf_features(name: str, fields: _Fields, head_dim: int, context_len: int) -> None:
    if fields.values.get(f"{name}.expert_count"):
        raise UnsupportedModelError("the GGUF file holds a mixture of experts; sgrun runs dense models")
    if fields.size(f"{name}.rope.dimension_count", default=head_dim) != head_dim:
        raise UnsupportedModelError(f"the GGUF file rotates a part of each head; sgrun rotates all {head_dim} values")
    if fields.size(f"{name}.attention.value_length", default=head_dim) != head_dim:
        raise UnsupportedModelError("the GGUF file has value heads of another length than its keys; sgrun needs one")
    window = fields.values.get(f"{name}.attention.sliding_window")
    if isinstance(window, int) and 0 < window < context_len:
        raise UnsupportedModelError(
            f"the GGUF file has sliding_window {window}, shorter than its context of {context_len}; sgrun attends to "
            "the whole context"
        )


@dataclass(frozen=True, slots=True)
class _Fields:
    """Typed reads of an untrusted mapping; `source` is what messages call it."""

    values: Mapping[str, object]
    source: str

    def size(self, key: str, *, default: int | None = None, high: int = _MAX_SIZE) -> int:
        value = self.values.get(key)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
            raise WeightsError(f"{self.source}: {key} is {value!r}; allowed: an integer from 1 to {high}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key)
        if value is None:
            value = default
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e12:
            raise WeightsError(f"{self.source}: {key} is {value!r}; allowed: a positive number")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise WeightsError(f"{self.source}: {key} is {value!r}; allowed: true or false")
        return bool(value)

    def token_ids(self, key: str) -> tuple[int, ...]:
        value = self.values.get(key)
        items = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in items):
            raise WeightsError(f"{self.source}: {key} is {value!r}; allowed: a token id or a list of them")
        return tuple(items)
