"""Owns the sampling arguments of the language: their names, which one wins, and seeds derived for each generation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from sgrun.errors import InvalidParameterError
from sgrun.types import SamplingParams


class SamplingArguments(TypedDict, total=False):
    """Arguments of `gen`; None inherits from the run, whose own default is that of SamplingParams."""

    max_tokens: int | None
    min_tokens: int | None
    n: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    ignore_eos: bool | None
    return_logprob: bool | None
    logprob_start_len: int | None
    top_logprobs_num: int | None
    return_text_in_logprobs: bool | None


def sampling_params(
    *layers: SamplingArguments, extra_stop: tuple[str, ...] = (), seed: int | None = None
) -> SamplingParams:
    """The parameters in force when later `layers` override earlier ones. `seed` is used where no layer names one.

    Raises InvalidParameterError.
    """
    chosen: dict[str, Any] = {}
    for layer in layers:
        chosen.update({name: value for name, value in layer.items() if value is not None})
    start = chosen.pop("logprob_start_len", -1)
    if start != -1:
        raise InvalidParameterError(
            f"logprob_start_len is {start!r}; allowed: None or -1 (log-probabilities of the output only)"
        )
    chosen.pop("return_text_in_logprobs", None)  # decides how get_meta_info shows them, not what is computed
    top = chosen.pop("top_logprobs_num", 0)
    return SamplingParams(
        logprobs=chosen.pop("return_logprob", bool(top)),
        top_logprobs=top,
        stop=_strings(chosen.pop("stop", ())) + extra_stop,
        stop_token_ids=_sequence("stop_token_ids", chosen.pop("stop_token_ids", ())),
        logit_bias=_mapping(chosen.pop("logit_bias", {})),
        seed=chosen.pop("seed", seed),
        **chosen,
    )


def check_sampling(arguments: SamplingArguments) -> None:
    """Raises InvalidParameterError if `arguments` cannot work whatever they inherit."""
    if any(value is not None for value in arguments.values()):
        unlimited: SamplingArguments = {"max_tokens": 2**31 - 1}
        sampling_params(unlimited, arguments)


def derive_seed(seed: int, *path: object) -> int:
    """A seed (64 bits) that depends on `seed` and on every element of `path`, the same in every process."""
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _strings(stop: Any) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else _sequence("stop", stop)


def _sequence(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise InvalidParameterError(f"{name} is {value!r}; allowed: a list")
    return tuple(value)


def _mapping(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise InvalidParameterError(f"logit_bias is {value!r}; allowed: a dict from token id to bias")
    return dict(value)
