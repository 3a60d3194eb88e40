"""Fixtures that several folders of tests use."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

# Models, kernels and engines of these tests run on the GPU where there is one, kernels elsewhere under Triton's
# interpreter, which has to be chosen before anything imports triton: transformers does.
if torch.cuda.is_available():
    torch.set_default_device("cuda")
else:
    os.environ["TRITON_INTERPRET"] = "1"

import tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from sgrun.engine.client import Engine
from sgrun.engine.device_steps import DeviceSteps, SamplingKernels
from sgrun.engine.runner import ModelRunner
from sgrun.models.piece_graphs import PieceGraphs
from sgrun.models.source import default_model_path
from sgrun_kernels.reference_automaton import row_masks_
from sgrun_kernels.reference_sampling import sample_, top_logprobs
from sgrun_kernels.reference_step import commit_step_, decode_inputs_

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct, fetched once into the user's cache."""
    return default_model_path()


@pytest.fixture(scope="session")
def engine(smollm2_gguf: Path) -> Iterator[Engine]:
    """The default model in fp32, so that greedy and seeded texts do not depend on what else runs or is cached."""
    with Engine(smollm2_gguf, device="cpu", dtype="float32", num_pages=1024, check_invariants=True) as engine:
        yield engine


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a random two-layer Llama and a byte-level BPE of about 300 tokens."""
    path = tmp_path_factory.mktemp("tiny-llama")
    vocab_size = _write_tokenizer(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        eos_token_id=2,
        initializer_range=0.3,  # large enough for greedy choices to be far apart
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(params=["host", "device"])
def open_tiny_engine(tiny_model: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Engine]]:
    """Opens engines of the tiny model in fp32 that check their invariants after each step; once as they sample on a
    CPU, and once as on a GPU, with the kernels' twins where there is none."""
    with contextlib.ExitStack() as engines:

        def open_engine(**options: int) -> Engine:
            engine = engines.enter_context(Engine(tiny_model, dtype="float32", check_invariants=True, **options))
            if request.param == "device" and engine.device.type == "cpu":
                sample_as_on_a_gpu(engine)
            return engine

        yield open_engine


@pytest.fixture
def tiny_engine(open_tiny_engine: Callable[..., Engine]) -> Engine:
    return open_tiny_engine(num_pages=256)


def sample_as_on_a_gpu(engine: Engine) -> None:
    """Gives a new engine on the CPU the steps of a GPU."""
    core = engine._core
    num_layers, _, num_pages, *shape = core.steps.forward.kv.shape
    kv = torch.full((num_layers, 2, num_pages + 1, *shape), float("nan"), dtype=torch.float32)
    decoder, limits = core.steps.forward.decoder, core.limits
    pieces = PieceGraphs(decoder, kv, limits.num_pages * limits.page_size, limits.token_budget)
    kernels = SamplingKernels(row_masks_, sample_, top_logprobs, commit_step_, decode_inputs_)
    core.steps = DeviceSteps(ModelRunner(decoder, kv, pieces), core.vocabulary, core.limits, kernels)


def _write_tokenizer(path: Path) -> int:
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=specials,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["the capital of the land is the answer to the question and then some"] * 4, trainer)
    core.save(str(path / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "chat_template": CHATML, "tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return core.get_vocab_size()
