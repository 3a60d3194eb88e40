"""Owns the engine's options: one frozen object, checked once, never changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from sgrun.errors import ConfigError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
LoadFormat = Literal["auto", "dummy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Options of one engine. None means: chosen from the model and the device when the engine starts.

    model: path of a Hugging Face folder or GGUF file, a hub name, or None for the embedded default model.
    revision: commit, tag or branch of a hub name.
    tokenizer: path of a folder or GGUF file whose tokenizer is used instead of the model's own.
    load_format: "dummy" makes up random weights in the shape that the model's config.json describes, for measurements.
    dtype: of weights and KV; "auto" is bfloat16 where the device multiplies it natively, else float32.
    device: "auto", "cpu", "cuda" or "cuda:N".
    page_size: tokens a page. num_pages: pages of the KV pool.
    token_budget: new tokens computed in one step, decodes and chunks of extends together.
    max_running: sequences computed in one step. max_wait_s: a request that has waited longer goes first.
    context_len: longest sequence; at most the model's own.
    check_invariants: check page accounting after every step (slow; for tests).
    """

    model: str | os.PathLike[str] | None = None
    revision: str | None = None
    tokenizer: str | os.PathLike[str] | None = None
    load_format: LoadFormat = "auto"
    dtype: Dtype = "auto"
    device: str = "auto"
    page_size: int = 16
    num_pages: int | None = None
    token_budget: int | None = None
    max_running: int = 256
    max_wait_s: float = 2.0
    context_len: int | None = None
    check_invariants: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Dtype):
            raise ConfigError(f"dtype is {self.dtype!r}; allowed: {', '.join(get_args(Dtype))}")
        if self.load_format not in get_args(LoadFormat):
            raise ConfigError(f"load_format is {self.load_format!r}; allowed: 'auto' and 'dummy'")
        kind, _, index = self.device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdecimal())):
            raise ConfigError(f'device is {self.device!r}; allowed: "auto", "cpu", "cuda", "cuda:N"')
        for name in ("page_size", "num_pages", "token_budget", "max_running", "context_len"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"{name} is {value!r}; allowed: an integer of at least 1")
        if not self.max_wait_s >= 0:
            raise ConfigError(f"max_wait_s is {self.max_wait_s!r}; allowed: seconds, 0 or more")
