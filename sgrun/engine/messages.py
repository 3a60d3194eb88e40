"""Owns what client and engine core say to each other: plain values, so that a socket can stand between them."""

from __future__ import annotations

from dataclasses import dataclass

from sgrun.types import Chunk, GenerationResult, GrammarSpec, OpStats, SamplingParams


@dataclass(frozen=True, slots=True)
class Open:
    seq_id: int
    priority: int = 0
    cache_salt: str = ""


@dataclass(frozen=True, slots=True)
class Append:
    seq_id: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Generate:
    seq_id: int
    op_id: int
    params: SamplingParams
    grammar: GrammarSpec | None = None
    wants_chunks: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probabilities of each choice's tokens after the sequence, which stays as it is."""

    seq_id: int
    op_id: int
    choices: tuple[tuple[int, ...], ...]
    unconditional: bool = False


@dataclass(frozen=True, slots=True)
class Fork:
    seq_id: int
    child_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Close:
    seq_id: int


@dataclass(frozen=True, slots=True)
class Abort:
    seq_id: int


@dataclass(frozen=True, slots=True)
class FlushCache:
    """Evicts what no sequence uses. The result is the number of pages freed."""

    op_id: int


@dataclass(frozen=True, slots=True)
class GrammarReady:
    """A sequence that waited for a grammar can go on."""

    seq_id: int


Operation = Append | Generate | Score | Fork | Close
Message = Open | Operation | Abort | FlushCache | GrammarReady


@dataclass(frozen=True, slots=True)
class ScoreOutput:
    logprobs: tuple[tuple[float, ...], ...]
    unconditional_logprobs: tuple[tuple[float, ...], ...]
    stats: OpStats


@dataclass(frozen=True, slots=True)
class Progress:
    op_id: int
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Finished:
    op_id: int
    result: GenerationResult | ScoreOutput | int


@dataclass(frozen=True, slots=True)
class Failed:
    op_id: int
    error: Exception


Event = Progress | Finished | Failed


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the engine started. `extend_tokens` were computed to start generations and scores,
    `decode_tokens` one by one while sampling; `cached_tokens` were found in the cache instead of computed. Of the
    sampled tokens, `forced_tokens` were the only ones that their constraints allowed."""

    num_steps: int = 0
    extend_tokens: int = 0
    decode_tokens: int = 0
    cached_tokens: int = 0
    forced_tokens: int = 0
    num_retractions: int = 0
    num_evicted_pages: int = 0
    num_failures: int = 0
    num_pages: int = 0
    num_free_pages: int = 0
    num_running: int = 0
    num_waiting: int = 0
