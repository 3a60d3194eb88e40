"""Owns the engine's state and its step: operations of sequences become tasks, tasks become rows, logits become tokens.

No threads here: a driver calls `handle` with each message and `step` until `has_work` is false. Everything that leaves
goes through `emit`. An exception belongs to the sequences whose work raised it; the others go on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import torch

from sgrun.cache.prefix_cache import Lease, PrefixCache
from sgrun.engine.counters import Counters
from sgrun.engine.generation import Ending, SampleTask, start_generation
from sgrun.engine.limits import Limits
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
)
from sgrun.engine.pins import Pins
from sgrun.engine.sampler import Sampled
from sgrun.engine.scheduler import Row, Scheduler
from sgrun.engine.scoring import ScoreTask, Scoring, start_scoring
from sgrun.engine.sequence import Sequence, Task, Timing, Work
from sgrun.engine.steps import Steps
from sgrun.engine.tokenizer import Tokenizer
from sgrun.errors import (
    AbortedError,
    EmptyPromptError,
    EngineClosedError,
    EngineError,
    NonFiniteLogitsError,
)
from sgrun.grammar.compiler import GrammarCompiler
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.types import GenerationResult, GrammarSpec

logger = logging.getLogger(__name__)


class EngineCore:
    """`post` hands a message of the core to itself, through the driver; it is called from other threads."""

    def __init__(
        self,
        steps: Steps,
        tokenizer: Tokenizer,
        vocabulary: Vocabulary,
        limits: Limits,
        emit: Callable[[Event], None],
        post: Callable[[Message], object],
        *,
        check_invariants: bool = False,
    ) -> None:
        self.steps = steps
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.limits = limits
        self.emit = emit
        self.post = post
        self.check_invariants = check_invariants
        self.cache = PrefixCache(limits.num_pages, limits.page_size)
        self._pins = Pins(self.cache.tree)
        self.scheduler = Scheduler(
            self.cache,
            token_budget=limits.token_budget,
            max_running=limits.max_running,
            max_wait_s=limits.max_wait_s,
            release_idle=self._pins.remove_oldest,
        )
        self.compiler = GrammarCompiler()
        self.sequences: dict[int, Sequence] = {}
        self._to_advance: dict[int, Sequence] = {}
        self._ended: deque[tuple[Row, SampleTask, Ending]] = deque()  # in the step that is committed
        self._num_tasks = 0
        self._counters = Counters()

    @property
    def has_work(self) -> bool:
        return bool(self._to_advance or self.scheduler.running or self.scheduler.waiting or self.steps.num_in_flight)

    @property
    def stats(self) -> EngineStats:
        counters = self._counters
        return EngineStats(
            num_steps=counters.num_steps,
            extend_tokens=counters.extend_tokens,
            decode_tokens=counters.decode_tokens,
            cached_tokens=counters.cached_tokens,
            forced_tokens=counters.forced_tokens,
            num_retractions=self.scheduler.num_retractions,
            num_evicted_pages=self.cache.num_evicted_pages,
            num_failures=counters.num_failures,
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
        """Advances sequences to their next task, starts what can be started, and commits the oldest step's results."""
        self._advance_all()
        while self.steps.num_in_flight <= self.steps.max_ahead and (rows := self.scheduler.plan()):
            self._launch(rows)
        if self.steps.num_in_flight:
            self._commit()
        if self.check_invariants:
            self.cache.check_invariant([task.lease for task in self.scheduler.running if task.lease is not None])

    def close(self) -> None:
        """Fails everything that is left and gives the memory of model and cache back."""
        try:
            for seq in list(self.sequences.values()):
                self._fail(seq, EngineClosedError("the engine was closed before this operation finished"))
            self.sequences.clear()
        finally:
            self.compiler.close()
            self.steps.close()
            del self.steps
            torch.cuda.empty_cache()  # torch keeps what is freed, another engine asks the driver; a no-op without CUDA

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
            if isinstance(op, Generate) and op.grammar is not None:
                self.compiler.submit(op.grammar)  # while the operations before it run

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
                    self._pins.renew(child)
                    self._to_advance[child.id] = child
            case Close():
                self._pins.remove(seq)
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
        if not seq.token_ids:
            raise EmptyPromptError("nothing to continue: the sequence is empty; append some text before generating")
        self.limits.check_length(len(seq.token_ids), op.params.max_tokens)
        self.limits.check_ids("logit_bias", op.params.logit_bias)
        self.limits.check_ids("stop_token_ids", op.params.stop_token_ids)
        compiled, seq.grammar = seq.grammar, None
        automaton = None if compiled is None else compiled.result()
        timing = Timing(time.monotonic())
        self._start(seq, start_generation(seq, op, timing, self._num_tasks, self.tokenizer, self.vocabulary, automaton))

    def _start_scoring(self, seq: Sequence, op: Score) -> None:
        self.limits.check_length(len(seq.token_ids), max(map(len, op.choices)))
        scoring = start_scoring(seq, op, time.monotonic(), self._num_tasks)
        self._start(seq, scoring)
        if not scoring.tasks:
            self._finish_scoring(scoring, seq)

    def _start(self, seq: Sequence, work: Work) -> None:
        seq.active = work
        self._num_tasks += len(work.tasks)
        for task in work.tasks:
            self.scheduler.add(task)

    # One step

    def _launch(self, rows: list[Row]) -> None:
        """Starts a planned step. If that fails, the sequences of its rows fail."""
        self._counters.num_steps += 1
        now = time.monotonic()
        for row in rows:
            timing = row.task.timing
            if not timing.first_scheduled:
                timing.first_scheduled = now
                timing.cached_tokens = row.start
        try:
            self.steps.launch(rows)
        except Exception as error:
            logger.exception("a step of %d rows failed", len(rows))
            self._fail_all([row.task for row in rows], error)

    def _commit(self) -> None:
        """Waits for the oldest step that runs and takes over its results."""
        try:
            result = self.steps.collect()
        except Exception as error:
            logger.exception("a step failed")
            self._fail_all(list(self.scheduler.running), error)
            return
        for row in result.rows:
            if row.is_current:
                row.task.num_computed += row.num_tokens
                self._counters.add_computed(row)
        for row, scored, position, logits in result.scored:
            self._guard(row, partial(scored.take, position, logits))
        for row in result.rows:
            if row.is_current and isinstance(row.task, ScoreTask) and row.task.num_computed == len(row.task.tokens):
                self._finish_score(row.task)
        for row, task, sampled in result.sampled:
            self._guard(row, partial(self._commit_sample, row, task, sampled))
        self._finish_ended()

    def _guard(self, row: Row, commit: Callable[[], None]) -> None:
        """Commits what a row has computed, unless its task failed or was sent back meanwhile."""
        if row.task.seq.error is not None or not row.is_current:
            return
        try:
            commit()
        except Exception as error:  # noqa: BLE001 - the engine's border: one row fails its own sequence
            self._finish_ended()  # they may share what is discarded
            self._fail(row.task.seq, error, discard=isinstance(error, NonFiniteLogitsError))

    def _finish_score(self, task: ScoreTask) -> None:
        assert task.lease is not None
        self._end_task(task, task.lease)
        task.scoring.num_pending -= 1
        if task.scoring.num_pending == 0:
            self._finish_scoring(task.scoring, task.seq)

    def _commit_sample(self, row: Row, task: SampleTask, sampled: Sampled) -> None:
        text, ending = task.take(sampled)
        self._counters.forced_tokens += sampled.is_forced
        task.timing.first_sampled = task.timing.first_sampled or time.monotonic()
        if task.generation.op.wants_chunks and (text or (ending is not None and task.params.logprobs)):
            self.emit(Progress(task.generation.op.op_id, task.chunk(text)))
        if ending is not None:
            self._ended.append((row, task, ending))

    def _finish_ended(self) -> None:
        """Finishes the samples that have ended: behind the tokens of all other rows, which need not wait for it."""
        while self._ended:
            row, task, ending = self._ended.popleft()
            self._guard(row, partial(self._finish_sample, task, ending))

    def _finish_sample(self, task: SampleTask, ending: Ending) -> None:
        kept, num_sampled = task.kept_tokens()
        assert task.lease is not None
        self.cache.publish(task.lease, kept, min(task.num_computed, num_sampled))
        self._end_task(task, task.lease)
        generation, seq = task.generation, task.seq
        generation.completions[task.index] = task.completion(kept, ending)
        if len(generation.completions) == generation.op.params.n:
            completions = tuple(generation.completions[index] for index in range(generation.op.params.n))
            seq.token_ids += completions[0].token_ids
            stats = generation.timing.stats(task.prompt_len, time.monotonic())
            self._finish(seq, Finished(generation.op.op_id, GenerationResult(completions, stats)))

    def _finish_scoring(self, scoring: Scoring, seq: Sequence) -> None:
        self._finish(seq, Finished(scoring.op.op_id, scoring.output(len(seq.token_ids), time.monotonic())))

    def _end_task(self, task: Task, lease: Lease) -> None:
        self.scheduler.remove(task)
        self.cache.release(lease)
        task.lease = None

    def _finish(self, seq: Sequence, event: Finished) -> None:
        assert seq.active is not None
        seq.active.tasks.clear()  # they refer back to it: else all they hold would be left to the garbage collector
        seq.active = None
        seq.is_started = True
        self._pins.renew(seq)
        self._to_advance[seq.id] = seq
        self.emit(event)

    # Failures

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
            self._counters.num_failures += 1
        active, seq.active = seq.active, None
        if active is not None:
            for task in active.tasks:
                self._drop(task, discard)
            active.tasks.clear()
            self.emit(Failed(active.op.op_id, error))
        while seq.ops:
            self._fail_operation(seq.ops.popleft(), error)
        self._pins.remove(seq)

    def _fail_all(self, tasks: list[Task], error: Exception) -> None:
        for task in tasks:
            name = type(error).__name__
            failure = EngineError(f"the step that this sequence was part of failed: {name}: {error}")
            failure.__cause__ = error
            self._fail(task.seq, failure, discard=True)

    def _drop(self, task: Task, discard: bool) -> None:
        if task.lease is not None:
            if discard:
                self.cache.discard(task.lease)
            self._end_task(task, task.lease)
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
