"""Owns one running `generate`: what a sampled token does to its text, its constraint and its end. Knows nothing of
pages or of other sequences."""

from __future__ import annotations

import secrets
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from sgrun.engine.detokenizer import Detokenizer
from sgrun.engine.messages import Generate
from sgrun.engine.sampler import NOT_FINITE, NOTHING_ALLOWED, Sampled, SampleRow
from sgrun.engine.sequence import Sequence, Task, Timing, Work
from sgrun.engine.tokenizer import Tokenizer
from sgrun.errors import GrammarDeadEndError, NonFiniteLogitsError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.matcher import Matcher
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.types import Chunk, Completion, FinishReason, SamplingParams, TokenLogprob

SEED_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the seeds of one generation's samples lie far apart


@dataclass(slots=True, eq=False)
class Generation(Work):
    """A running generate operation and the samples that have ended, by index."""

    op: Generate
    seed: int
    completions: dict[int, Completion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ending:
    """`num_sampled` counts the end token, which stays out of the text and of the sequence."""

    reason: FinishReason
    stop_reason: str | int | None
    num_sampled: int


@dataclass(slots=True, eq=False, kw_only=True)
class SampleTask(Task):
    """One sample: extends the prompt, then takes one token a step until it ends."""

    generation: Generation
    index: int
    tokenizer: Tokenizer
    detokenizer: Detokenizer
    matcher: Matcher | None
    stop_ids: tuple[int, ...]  # the tokens that end the sample and stay out of its text
    logprobs: list[TokenLogprob] = field(default_factory=list)
    num_sent: int = 0  # output tokens, and with logprobs their entries, that chunks have carried

    @property
    def params(self) -> SamplingParams:
        return self.generation.op.params

    @property
    def num_outputs(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def seed(self) -> int:
        return (self.generation.seed + self.index * SEED_STEP) % 2**64

    @property
    def max_len(self) -> int:
        return self.prompt_len + self.params.max_tokens - 1  # the last token that is sampled is not computed

    def sample_row(self) -> SampleRow:
        """What the sampler has to know for the next token."""
        params = self.params
        banned: tuple[int, ...] = ()
        if self.num_outputs < params.min_tokens:
            banned = self.stop_ids
        has_repetition_penalty = params.repetition_penalty != 1.0
        needs_outputs = bool(params.frequency_penalty or params.presence_penalty or has_repetition_penalty)
        return SampleRow(
            params=params,
            seed=self.seed,
            position=self.num_outputs,
            prompt_ids=self.tokens[: self.prompt_len] if has_repetition_penalty else [],
            output_ids=self.tokens[self.prompt_len :] if needs_outputs else [],
            bitmask=None if self.matcher is None else self.matcher.bitmask(),
            banned_ids=banned,
        )

    def take(self, sampled: Sampled) -> tuple[str, Ending | None]:
        """Takes the sampled token: returns the text that became final, and the ending if this was the last.

        Raises NonFiniteLogitsError, GrammarDeadEndError.
        """
        token_id = self._checked(sampled)
        params = self.params
        if params.logprobs:
            self.logprobs.append(self._token_logprob(token_id, sampled))
        if token_id in self.stop_ids:
            return self._end(Ending("stop", token_id, self.num_outputs + 1), "")
        self.tokens.append(token_id)
        if self.matcher is not None:
            is_accepted = self.matcher.accept(token_id)
            assert is_accepted, f"the constraint refuses token {token_id} that its bitmask allowed"
        text = self.detokenizer.push(token_id)
        if self.detokenizer.matched is not None or (self.matcher is not None and self.matcher.is_finished):
            return self._end(Ending("stop", None, self.num_outputs), text)
        if self.num_outputs == params.max_tokens:
            return self._end(Ending("length", None, self.num_outputs), text)
        return text, None

    def chunk(self, text: str) -> Chunk:
        """`text` with the tokens sampled since the chunk before."""
        start, self.num_sent = self.num_sent, max(self.num_outputs, len(self.logprobs))
        return Chunk(text, tuple(self.tokens[self.prompt_len + start :]), tuple(self.logprobs[start:]), self.index)

    def kept_tokens(self) -> tuple[list[int], int]:
        """The tokens that stay in the sequence, prompt included, and how many of them are as they were sampled.

        A stop string cuts the text: tokens wholly before the cut stay, what is left of the one it fell into is spelled
        anew.
        """
        if self.detokenizer.matched is None:
            return self.tokens, len(self.tokens)
        kept = self.tokens[: self.prompt_len + self.detokenizer.kept_tokens]
        tail = self.detokenizer.tail_text
        return kept + (self.tokenizer.encode_text(tail) if tail else []), len(kept)

    def completion(self, kept: list[int], ending: Ending) -> Completion:
        """What the sample has come to, `kept` being its `kept_tokens`."""
        return Completion(
            text=self.detokenizer.text,
            token_ids=tuple(kept[self.prompt_len :]),
            finish_reason=ending.reason,
            stop_reason=ending.stop_reason,
            logprobs=tuple(self.logprobs),
            completion_tokens=ending.num_sampled,
        )

    def _checked(self, sampled: Sampled) -> int:
        if sampled.token_id == NOT_FINITE:
            raise NonFiniteLogitsError(f"the model gave NaN or infinite logits after {len(self.tokens)} tokens")
        if sampled.token_id == NOTHING_ALLOWED:
            raise GrammarDeadEndError(
                f"no token may follow after {self.num_outputs} tokens of output "
                f"{self.detokenizer.text[-40:]!r}: constraint, min_tokens and logit_bias exclude all of them"
            )
        return sampled.token_id

    def _end(self, ending: Ending, text: str) -> tuple[str, Ending]:
        text += self.detokenizer.flush()
        if self.detokenizer.matched is not None:  # also one that only the flush completed
            ending = Ending("stop", self.detokenizer.matched, ending.num_sampled)
        return text, ending

    def _token_logprob(self, token_id: int, sampled: Sampled) -> TokenLogprob:
        token_bytes = self.tokenizer.token_bytes
        top = tuple(TokenLogprob(i, _text(token_bytes, i), logprob) for i, logprob in sampled.top)
        return TokenLogprob(token_id, _text(token_bytes, token_id), sampled.logprob, top)


def start_generation(
    seq: Sequence,
    op: Generate,
    timing: Timing,
    first_arrival: int,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    automaton: Automaton | None,
) -> Generation:
    """The samples of `op` after the sequence, each under the constraint from its start."""
    params = op.params
    seed = secrets.randbits(64) if params.seed is None else params.seed
    generation = Generation(op, timing, seed)
    end_token_ids = () if params.ignore_eos else None
    ends = () if params.ignore_eos else sorted(tokenizer.eos_token_ids)
    for index in range(params.n):
        task = SampleTask(
            seq=seq,
            tokens=list(seq.token_ids),
            prompt_len=len(seq.token_ids),
            arrival=first_arrival + index,
            timing=timing,
            generation=generation,
            index=index,
            tokenizer=tokenizer,
            detokenizer=Detokenizer(tokenizer.token_bytes, params.stop),
            matcher=None if automaton is None else automaton.matcher(vocabulary, end_token_ids),
            stop_ids=(*ends, *params.stop_token_ids),
        )
        generation.tasks.append(task)
    return generation


def _text(token_bytes: Seq[bytes | None], token_id: int) -> str:
    data = token_bytes[token_id] if token_id < len(token_bytes) else None
    return (data or b"").decode("utf-8", errors="replace")
