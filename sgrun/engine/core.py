"""Owns the engine's state and its step: operations of sequences become tasks, tasks become rows, logits become tokens.

No threads here: a driver calls `handle` with each message and `step` until `has_work` is false. Everything that leaves
goes through `emit`. An exception belongs to the sequences whose work raised it; the others go on.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from sgrun.cache.prefix_cache import PrefixCache
from sgrun.engine.batch import build_batch
from sgrun.engine.detokenizer import Detokenizer
from sgrun.engine.messages import (
    Abort,
    Append,
    Close,
    EngineStats,
    Event,
    Failed,
    Finished,
    FlushCache,
    Fork,
    Generate,
    GrammarReady,
    Message,
    Open,
    Operation,
    Progress,
    Score,
    ScoreOutput,
)
from sgrun.engine.sampler import NOT_FINITE, NOTHING_ALLOWED, Sampled, SampleRow, sample
from sgrun.engine.scheduler import Row, Scheduler
from sgrun.engine.sequence import Generation, SampleTask, ScoreTask, Scoring, Sequence, Task, Timing, plan_score_tasks
from sgrun.engine.tokenizer import Tokenizer
from sgrun.errors import (
    AbortedError,
    ContextLengthError,
    EmptyPromptError,
    EngineClosedError,
    EngineError,
    GrammarDeadEndError,
    InvalidParameterError,
    NonFiniteLogitsError,
)
from sgrun.grammar.compiler import GrammarCompiler
from sgrun.grammar.matcher import GrammarMatcher, MaskCache
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.models.inputs import ForwardInputs
from sgrun.types import Chunk, Completion, FinishReason, GenerationResult, GrammarSpec, TokenLogprob

logger = logging.getLogger(__name__)

MASK_CACHE_BYTES = 64 * 2**20


class Forward(Protocol):
    """The model with its KV pool; logits [L, vocab] float32 for the wanted rows."""

    def __call__(self, inputs: ForwardInputs) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a sequence and a step, in tokens unless said."""

    vocab_size: int
    context_len: int
    page_size: int
    num_pages: int
    token_budget: int
    max_running: int
    max_wait_s: float


class EngineCore:
    """`post` hands a message of the core to itself, through the driver; it is called from other threads."""

    def __init__(
        self,
        forward: Forward,
        tokenizer: Tokenizer,
        limits: Limits,
        device: torch.device,
        emit: Callable[[Event], None],
        post: Callable[[Message], object],
        *,
        check_invariants: bool = False,
    ) -> None:
        self.forward = forward
        self.tokenizer = tokenizer
        self.limits = limits
        self.device = device
        self.emit = emit
        self.post = post
        self.check_invariants = check_invariants
        self.cache = PrefixCache(limits.num_pages, limits.page_size)
        self.scheduler = Scheduler(
            self.cache,
            token_budget=limits.token_budget,
            max_running=limits.max_running,
            max_wait_s=limits.max_wait_s,
            release_idle=self._release_idle,
        )
        self.compiler = GrammarCompiler()
        self.sequences: dict[int, Sequence] = {}
        self._pinned: dict[int, Sequence] = {}  # sequences with a pin, longest pinned first
        self._to_advance: dict[int, Sequence] = {}
        self._masks = MaskCache(MASK_CACHE_BYTES)
        token_bytes = tokenizer.token_bytes[: limits.vocab_size]
        self._vocabulary = Vocabulary([*token_bytes, *[None] * (limits.vocab_size - len(token_bytes))])
        self._token_bytes = token_bytes
        self._num_tasks = 0
        self._num_steps = 0
        self._num_failures = 0
        self._extend_tokens = 0
        self._decode_tokens = 0
        self._cached_tokens = 0

    @property
    def has_work(self) -> bool:
        return bool(self._to_advance or self.scheduler.running or self.scheduler.waiting)

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            num_steps=self._num_steps,
            extend_tokens=self._extend_tokens,
            decode_tokens=self._decode_tokens,
            cached_tokens=self._cached_tokens,
            num_retractions=self.scheduler.num_retractions,
            num_evicted_pages=self.cache.num_evicted_pages,
            num_failures=self._num_failures,
            num_pages=self.limits.num_pages,
            num_free_pages=self.cache.pool.num_free,
            num_running=len(self.scheduler.running),
            num_waiting=len(self.scheduler.waiting),
        )

    def handle(self, message: Message) -> None:
        """Takes one message. Operations are queued on their sequence; opening and aborting act at once."""
        match message:
            case Open():
                assert message.seq_id not in self.sequences, f"sequence {message.seq_id} is open already"
                self.sequences[message.seq_id] = Sequence(message.seq_id, message.priority, message.cache_salt)
            case Abort():
                self._abort(message.seq_id)
            case FlushCache():
                self._advance_all()  # what was closed before is not in use
                self.emit(Finished(message.op_id, self.cache.flush()))
            case GrammarReady():
                if message.seq_id in self.sequences:
                    self._to_advance[message.seq_id] = self.sequences[message.seq_id]
            case _:
                self._queue_operation(message)

    @torch.inference_mode()
    def step(self) -> None:
        """Advances sequences to their next task, runs one batch, and commits its results."""
        self._advance_all()
        rows = self.scheduler.plan()
        if rows:
            self._run(rows)
        if self.check_invariants:
            self.cache.check_invariant([task.lease for task in self.scheduler.running if task.lease is not None])

    def close(self) -> None:
        """Fails everything that is left."""
        for seq in list(self.sequences.values()):
            self._fail(seq, EngineClosedError("the engine was closed before this operation finished"))
        self.sequences.clear()
        self.compiler.close()

    # Operations

    def _queue_operation(self, op: Operation) -> None:
        seq = self.sequences[op.seq_id]
        if isinstance(op, Fork):
            for child_id in op.child_ids:
                self.sequences[child_id] = Sequence(child_id, seq.priority, seq.cache_salt, is_ready=False)
        if seq.error is not None:
            self._fail_operation(op, seq.error)
        else:
            seq.ops.append(op)
            self._to_advance[seq.id] = seq

    def _advance_all(self) -> None:
        while self._to_advance:
            self._advance(self._to_advance.pop(next(iter(self._to_advance))))

    def _advance(self, seq: Sequence) -> None:
        """Carries out the queued operations up to the next one that has to wait for tokens."""
        while seq.ops and seq.active is None and seq.is_ready:
            op = seq.ops[0]
            if isinstance(op, Generate) and op.grammar is not None and not self._is_grammar_ready(seq, op.grammar):
                return
            seq.ops.popleft()
            try:
                self._carry_out(seq, op)
            except Exception as error:  # noqa: BLE001 - the engine's border: one operation fails its own sequence
                seq.ops.appendleft(op)
                self._fail(seq, error)

    def _carry_out(self, seq: Sequence, op: Operation) -> None:
        match op:
            case Append():
                seq.token_ids.extend(op.token_ids)
            case Generate():
                self._start_generation(seq, op)
            case Score():
                self._start_scoring(seq, op)
            case Fork():
                for child in self._children(op):
                    child.token_ids = list(seq.token_ids)
                    child.is_started = seq.is_started
                    child.is_ready = True
                    self._repin(child)
                    self._to_advance[child.id] = child
            case Close():
                self._unpin(seq)
                del self.sequences[seq.id]

    def _children(self, op: Fork) -> list[Sequence]:
        """The branches of a fork that have not been aborted before it was reached."""
        return [self.sequences[child_id] for child_id in op.child_ids if child_id in self.sequences]

    def _is_grammar_ready(self, seq: Sequence, spec: GrammarSpec) -> bool:
        """Whether the constraint of the operation at the head of the queue is compiled, or has failed to."""
        if seq.grammar is None:
            seq.grammar = self.compiler.submit(spec)
            seq.grammar.add_done_callback(lambda _: self.post(GrammarReady(seq.id)))
        return seq.grammar.done()

    def _start_generation(self, seq: Sequence, op: Generate) -> None:
        params = op.params
        if not seq.token_ids:
            raise EmptyPromptError("nothing to continue: the sequence is empty; append some text before generating")
        self._check_length(len(seq.token_ids), params.max_tokens)
        self._check_ids("logit_bias", params.logit_bias)
        self._check_ids("stop_token_ids", params.stop_token_ids)
        compiled, seq.grammar = seq.grammar, None
        automaton = None if compiled is None else compiled.result()
        timing = Timing(submitted=time.monotonic())
        generation = Generation(op, timing)
        seed = secrets.randbits(64) if params.seed is None else params.seed
        end_ids = () if params.ignore_eos else tuple(self.tokenizer.eos_token_ids)
        for index in range(params.n):
            matcher = None
            if automaton is not None:
                matcher = GrammarMatcher(automaton, self._vocabulary, self._masks, end_token_ids=end_ids)
            task = SampleTask(
                seq=seq,
                tokens=list(seq.token_ids),
                prompt_len=len(seq.token_ids),
                arrival=self._num_tasks,
                timing=timing,
                cache_salt=seq.cache_salt,
                generation=generation,
                index=index,
                seed=(seed + index * 0x9E3779B97F4A7C15) % 2**64,  # samples of one generation draw apart
                detokenizer=Detokenizer(self._token_bytes, params.stop),
                matcher=matcher,
            )
            generation.tasks.append(task)
            self._num_tasks += 1
            self.scheduler.add(task)
        seq.active = generation

    def _start_scoring(self, seq: Sequence, op: Score) -> None:
        self._check_length(len(seq.token_ids), max(map(len, op.choices)))
        logprobs = [[0.0] * len(choice) for choice in op.choices]
        unconditional = [[0.0] * len(choice) for choice in op.choices] if op.unconditional else []
        scoring = Scoring(op, Timing(submitted=time.monotonic()), logprobs, unconditional)
        prefixes = [(seq.token_ids, logprobs)]
        if op.unconditional:
            prefixes.append(([], unconditional))
        for prefix, out in prefixes:
            tasks = plan_score_tasks(scoring, seq, prefix, out, seq.cache_salt, self._num_tasks)
            self._num_tasks += len(tasks)
            scoring.tasks.extend(tasks)
        scoring.num_pending = len(scoring.tasks)
        for task in scoring.tasks:
            self.scheduler.add(task)
        seq.active = scoring
        if not scoring.tasks:
            self._finish_scoring(scoring, seq)

    def _check_length(self, num_tokens: int, max_tokens: int) -> None:
        pool_len = self.limits.num_pages * self.limits.page_size
        for limit, name in ((self.limits.context_len, "the context"), (pool_len, "the page pool")):
            if num_tokens + max_tokens > limit:
                raise ContextLengthError(
                    f"{num_tokens} tokens so far and up to {max_tokens} more are over {name} of {limit} tokens; "
                    "shorten the prompt or lower max_tokens"
                )

    def _check_ids(self, name: str, token_ids: Iterable[int]) -> None:
        for token_id in token_ids:
            if token_id >= self.limits.vocab_size:
                raise InvalidParameterError(
                    f"{name} names token {token_id}; allowed: 0 to {self.limits.vocab_size - 1}"
                )

    # One step

    def _run(self, rows: list[Row]) -> None:
        self._num_steps += 1
        now = time.monotonic()
        for row in rows:
            self._count(row, now)
        try:
            batch = build_batch(rows, self.limits.page_size, self.device)
            logits = self.forward(batch.inputs)
        except Exception as error:
            logger.exception("a step of %d rows failed", len(rows))
            for row in rows:
                self._fail(row.task.seq, _engine_error(error), discard=True)
            return
        for row in rows:
            row.task.num_computed += row.num_tokens
        scored = [(i, task, position) for i, (task, position) in enumerate(batch.wanted) if isinstance(task, ScoreTask)]
        sampled = [(i, task) for i, (task, _) in enumerate(batch.wanted) if isinstance(task, SampleTask)]
        for index, score_task, position in scored:
            self._guard(score_task, partial(self._commit_score, score_task, position, logits[index]))
        for row in rows:
            if isinstance(row.task, ScoreTask) and row.task.lease is not None and row.task.num_remaining == 0:
                self._finish_score_task(row.task)
        if sampled:
            self._sample(logits[[i for i, _ in sampled]], [task for _, task in sampled])

    def _count(self, row: Row, now: float) -> None:
        task, timing = row.task, row.task.timing
        if not timing.first_scheduled:
            timing.first_scheduled = now
            timing.cached_tokens = row.start
        if row.num_tokens == 1 and row.start >= task.prompt_len:
            self._decode_tokens += 1
            return
        self._extend_tokens += row.num_tokens
        if not task.is_counted:
            task.is_counted = True
            self._cached_tokens += row.start
        timing.computed_tokens += row.num_tokens

    def _sample(self, logits: Tensor, tasks: list[SampleTask]) -> None:
        for task, outcome in zip(tasks, sample(logits, [self._sample_row(task) for task in tasks]), strict=True):
            self._guard(task, partial(self._commit_sample, task, outcome))

    def _guard(self, task: Task, commit: Callable[[], None]) -> None:
        if task.seq.error is not None or task.lease is None:
            return
        try:
            commit()
        except Exception as error:  # noqa: BLE001 - the engine's border: one row fails its own sequence
            self._fail(task.seq, error, discard=isinstance(error, NonFiniteLogitsError))

    def _sample_row(self, task: SampleTask) -> SampleRow:
        params = task.generation.op.params
        num_sampled = task.num_outputs
        banned: tuple[int, ...] = ()
        if num_sampled < params.min_tokens:
            banned = (*self.tokenizer.eos_token_ids, *params.stop_token_ids)
        needs_output = bool(params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1.0)
        return SampleRow(
            params=params,
            seed=task.seed,
            position=num_sampled,
            prompt_ids=task.tokens[: task.prompt_len] if params.repetition_penalty != 1.0 else [],
            output_ids=task.tokens[task.prompt_len :] if needs_output else [],
            bitmask=None if task.matcher is None else task.matcher.bitmask(),
            banned_ids=banned,
        )

    def _commit_sample(self, task: SampleTask, outcome: Sampled) -> None:
        if outcome.token_id == NOT_FINITE:
            raise NonFiniteLogitsError(f"the model gave NaN or infinite logits after {len(task.tokens)} tokens")
        if outcome.token_id == NOTHING_ALLOWED:
            raise GrammarDeadEndError(
                f"no token may follow after {task.num_outputs} tokens of output "
                f"{task.detokenizer.text[-40:]!r}: constraint, min_tokens and logit_bias exclude all of them"
            )
        params = task.generation.op.params
        task.timing.first_sampled = task.timing.first_sampled or time.monotonic()
        token_id = outcome.token_id
        if params.logprobs:
            entry = self._token_logprob(token_id, outcome.logprob, outcome.top)
            task.logprobs.append(entry)
            task.chunk_logprobs.append(entry)
        is_end = token_id in self.tokenizer.eos_token_ids and not params.ignore_eos
        if is_end or token_id in params.stop_token_ids:
            self._finish_sample(task, "stop", token_id, num_sampled=task.num_outputs + 1)
            return
        task.tokens.append(token_id)
        task.chunk_token_ids.append(token_id)
        if task.matcher is not None:
            is_accepted = task.matcher.accept(token_id)
            assert is_accepted, f"the constraint refuses token {token_id} that its bitmask allowed"
        text = task.detokenizer.push(token_id)
        if task.detokenizer.matched is not None or (task.matcher is not None and task.matcher.is_finished):
            self._finish_sample(task, "stop", None, last_text=text)
        elif task.num_outputs == params.max_tokens:
            self._finish_sample(task, "length", None, last_text=text)
        elif text:
            self._emit_chunk(task, text)

    def _token_logprob(self, token_id: int, logprob: float, top: tuple[tuple[int, float], ...]) -> TokenLogprob:
        def text(i: int) -> str:
            data = self._token_bytes[i] if i < len(self._token_bytes) else None
            return (data or b"").decode("utf-8", errors="replace")

        return TokenLogprob(token_id, text(token_id), logprob, tuple(TokenLogprob(i, text(i), p) for i, p in top))

    def _emit_chunk(self, task: SampleTask, text: str) -> None:
        if task.generation.op.wants_chunks:
            chunk = Chunk(text, tuple(task.chunk_token_ids), tuple(task.chunk_logprobs), task.index)
            self.emit(Progress(task.generation.op.op_id, chunk))
        task.chunk_token_ids = []
        task.chunk_logprobs = []

    def _finish_sample(
        self,
        task: SampleTask,
        reason: FinishReason,
        stop_reason: str | int | None,
        *,
        last_text: str = "",
        num_sampled: int | None = None,
    ) -> None:
        detokenizer = task.detokenizer
        num_sampled = task.num_outputs if num_sampled is None else num_sampled
        last_text += detokenizer.flush()
        if detokenizer.matched is not None:
            reason, stop_reason = "stop", detokenizer.matched
        if last_text or task.chunk_logprobs:
            self._emit_chunk(task, last_text)
        kept = task.tokens
        if detokenizer.matched is not None:
            # A stop string cut the text: tokens wholly before the cut stay, what is left of the one it fell into is
            # spelled anew.
            kept = task.tokens[: task.prompt_len + detokenizer.kept_tokens]
        num_valid = min(task.num_computed, len(kept))
        if detokenizer.matched is not None and detokenizer.tail_text:
            kept = kept + self.tokenizer.encode_text(detokenizer.tail_text)
        assert task.lease is not None
        self.cache.publish(task.lease, kept, num_valid)
        self.scheduler.remove(task)
        self.cache.release(task.lease)
        task.lease = None
        generation = task.generation
        generation.completions[task.index] = Completion(
            text=detokenizer.text,
            token_ids=tuple(kept[task.prompt_len :]),
            finish_reason=reason,
            stop_reason=stop_reason,
            logprobs=tuple(task.logprobs),
            completion_tokens=num_sampled,
        )
        if len(generation.completions) == generation.op.params.n:
            self._finish_generation(generation, task.seq, task.prompt_len)

    def _finish_generation(self, generation: Generation, seq: Sequence, prompt_len: int) -> None:
        completions = tuple(generation.completions[i] for i in range(generation.op.params.n))
        seq.token_ids = seq.token_ids[:prompt_len] + list(completions[0].token_ids)
        stats = generation.timing.stats(prompt_len, time.monotonic())
        self._finish(seq, Finished(generation.op.op_id, GenerationResult(completions, stats)))

    def _commit_score(self, task: ScoreTask, position: int, logits: Tensor) -> None:
        logprobs = torch.log_softmax(logits, dim=-1)
        if not bool(logprobs.sum().isfinite()):
            raise NonFiniteLogitsError(f"the model gave NaN or infinite logits after {position + 1} tokens")
        for wanted in task.wanted[position]:
            wanted.out[wanted.choice][wanted.index] = float(logprobs[wanted.token_id])

    def _finish_score_task(self, task: ScoreTask) -> None:
        assert task.lease is not None
        self.scheduler.remove(task)
        self.cache.release(task.lease)
        task.lease = None
        scoring = task.scoring
        scoring.num_pending -= 1
        if scoring.num_pending == 0:
            self._finish_scoring(scoring, task.seq)

    def _finish_scoring(self, scoring: Scoring, seq: Sequence) -> None:
        output = ScoreOutput(
            tuple(map(tuple, scoring.logprobs)),
            tuple(map(tuple, scoring.unconditional_logprobs)),
            scoring.timing.stats(len(seq.token_ids), time.monotonic()),
        )
        self._finish(seq, Finished(scoring.op.op_id, output))

    def _finish(self, seq: Sequence, event: Finished) -> None:
        seq.active = None
        seq.is_started = True
        self._repin(seq)
        self._to_advance[seq.id] = seq
        self.emit(event)

    # Pins and failures

    def _repin(self, seq: Sequence) -> None:
        """Keeps what is cached of the sequence's tokens from eviction while it is idle."""
        node = self.cache.tree.match_prefix(seq.token_ids, len(seq.token_ids), seq.cache_salt).node
        self.cache.tree.lock(node)
        self._unpin(seq)
        seq.pin = node
        self._pinned[seq.id] = seq

    def _unpin(self, seq: Sequence) -> None:
        if seq.pin is not None:
            self.cache.tree.unlock(seq.pin)
            seq.pin = None
            del self._pinned[seq.id]

    def _release_idle(self) -> bool:
        if not self._pinned:
            return False
        self._unpin(next(iter(self._pinned.values())))
        return True

    def _abort(self, seq_id: int) -> None:
        seq = self.sequences.get(seq_id)
        if seq is None:
            return
        self._fail(seq, AbortedError("the operation was aborted"))
        del self.sequences[seq_id]

    def _fail(self, seq: Sequence, error: Exception, *, discard: bool = False) -> None:
        """Ends all that the sequence runs and has queued with `error`. `discard`: what it computed is not valid."""
        if seq.error is not None:
            return
        seq.error = error
        if not isinstance(error, (AbortedError, EngineClosedError)):
            self._num_failures += 1
        active, seq.active = seq.active, None
        if active is not None:
            for task in active.tasks:
                self._drop(task, discard)
            self.emit(Failed(active.op.op_id, error))
        while seq.ops:
            self._fail_operation(seq.ops.popleft(), error)
        self._unpin(seq)

    def _drop(self, task: Task, discard: bool) -> None:
        if task.lease is not None:
            self.scheduler.remove(task)
            if discard:
                self.cache.discard(task.lease)
            self.cache.release(task.lease)
            task.lease = None
            if discard:
                self.scheduler.requeue_orphans()
        elif task in self.scheduler.waiting:
            self.scheduler.remove(task)

    def _fail_operation(self, op: Operation, error: Exception) -> None:
        match op:
            case Generate() | Score():
                self.emit(Failed(op.op_id, error))
            case Fork():
                for child in self._children(op):
                    self._fail(child, error)
            case Close():
                del self.sequences[op.seq_id]
            case Append():
                pass


def _engine_error(error: Exception) -> EngineError:
    wrapped = EngineError(f"the step that this sequence was part of failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
