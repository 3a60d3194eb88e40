"""Owns the start of an engine: the model is found and loaded, device, dtype and sizes are chosen."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sgrun.config import EngineConfig
from sgrun.engine.limits import Limits
from sgrun.engine.runner import ModelRunner
from sgrun.engine.steps import HostSteps, Steps
from sgrun.engine.tokenizer import Tokenizer
from sgrun.errors import ConfigError, UnsupportedModelError
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.models.decoder import Decoder
from sgrun.models.load import load_model
from sgrun.models.piece_graphs import PieceGraphs
from sgrun.models.source import resolve_model
from sgrun.types import MAX_STOP_TOKEN_IDS
from sgrun_kernels.rows import MAX_STOP_IDS

CPU_KV_BYTES = 2**30
CUDA_MEMORY_SHARE = 0.9  # of what is free once the weights are loaded, and of that all but
CUDA_RESERVED_BYTES = 2 * 2**30  # for activations, logits, state of rows, captured graphs
CPU_TOKEN_BUDGET = 512
CUDA_TOKEN_BUDGET = 8192


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """`vocabulary` has one entry for each of the model's logits."""

    steps: Steps
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    limits: Limits
    device: torch.device


def load_engine(config: EngineConfig, on_progress: Callable[[str, float], None] | None = None) -> LoadedEngine:
    """Finds and loads the model and sizes everything that the config leaves open."""
    device = _device(config)
    dtype = _dtype(config, device)
    path = resolve_model(
        None if config.model is None else os.fspath(config.model), revision=config.revision, on_progress=on_progress
    )
    tokenizer = Tokenizer.load(path if config.tokenizer is None else Path(config.tokenizer).expanduser())
    decoder = load_model(
        path, dtype=dtype, device=device, is_dummy=config.load_format == "dummy", on_progress=on_progress
    )
    model = decoder.config
    context_len = config.context_len or model.context_len
    if context_len > model.context_len:
        raise ConfigError(f"context_len is {context_len}; allowed: at most the model's own {model.context_len}")
    kv_bytes = 2 * model.num_layers * model.num_kv_heads * model.head_dim * dtype.itemsize  # of a token
    num_pages = config.num_pages or _num_pages(device, config.page_size * kv_bytes)
    limits = Limits(
        vocab_size=model.vocab_size,
        context_len=context_len,
        page_size=config.page_size,
        num_pages=num_pages,
        token_budget=config.token_budget or (CPU_TOKEN_BUDGET if device.type == "cpu" else CUDA_TOKEN_BUDGET),
        max_running=config.max_running,
        max_wait_s=config.max_wait_s,
    )
    token_bytes = tokenizer.token_bytes[: model.vocab_size]
    padding = [None] * (model.vocab_size - len(token_bytes))
    vocabulary = Vocabulary([*token_bytes, *padding], tokenizer.eos_token_ids)
    return LoadedEngine(_steps(decoder, vocabulary, limits), tokenizer, vocabulary, limits, device)


def _steps(decoder: Decoder, vocabulary: Vocabulary, limits: Limits) -> Steps:
    """Samples on the host for a CPU, on the device for a GPU."""
    model, is_cuda = decoder.config, decoder.device.type == "cuda"
    num_pages = limits.num_pages + is_cuda  # one for the K/V of spare rows
    shape = (model.num_layers, 2, num_pages, limits.page_size, model.num_kv_heads, model.head_dim)
    kv = torch.empty(shape, dtype=decoder.dtype, device=decoder.device)
    if not is_cuda:
        return HostSteps(ModelRunner(decoder, kv), limits.page_size, decoder.device)
    # Triton is loaded for a GPU alone.
    from sgrun.engine.device_steps import DeviceSteps
    from sgrun.engine.triton_kernels import TRITON_KERNELS

    max_ends = MAX_STOP_IDS - MAX_STOP_TOKEN_IDS
    if len(vocabulary.end_token_ids) > max_ends:
        raise UnsupportedModelError(f"the model has {len(vocabulary.end_token_ids)} end tokens; allowed: {max_ends}")
    pieces = PieceGraphs(decoder, kv, limits.num_pages * limits.page_size, limits.token_budget)
    return DeviceSteps(ModelRunner(decoder, kv, pieces), vocabulary, limits, TRITON_KERNELS)


def _device(config: EngineConfig) -> torch.device:
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(config.device)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"device is {config.device!r}, but torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _dtype(config: EngineConfig, device: torch.device) -> torch.dtype:
    if config.dtype == "auto":
        has_bfloat16 = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if has_bfloat16 else torch.float32
    dtype = getattr(torch, config.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _num_pages(device: torch.device, page_bytes: int) -> int:
    if device.type == "cpu":
        return max(CPU_KV_BYTES // page_bytes, 1)
    free, _ = torch.cuda.mem_get_info(device)
    num_pages = (int(free * CUDA_MEMORY_SHARE) - CUDA_RESERVED_BYTES) // page_bytes
    if num_pages < 1:
        raise ConfigError(
            f"{device} has {free / 2**30:.1f} GiB free beside the weights, which leaves no room for the KV cache; "
            "free memory, take a smaller model or dtype, or say num_pages"
        )
    return num_pages
