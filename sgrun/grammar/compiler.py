"""From a grammar spec to an automaton: the pure function, and the service that runs it where it can be stopped."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from sgrun.errors import (
    EngineClosedError,
    EngineError,
    GrammarTooLargeError,
)
from sgrun.grammar.assemble import assemble
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.choices import parse_choices
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.pack import packed_procedure
from sgrun.grammar.process import WorkerLostError, WorkerProcess
from sgrun.grammar.regex import parse_regex
from sgrun.grammar.regular import dfa_procedure, regular_procedure
from sgrun.grammar.schema.values import compile_json_schema
from sgrun.types import (
    ChoicesSpec,
    DfaSpec,
    GbnfSpec,
    GrammarSpec,
    JsonSchemaSpec,
    LarkSpec,
    RegexSpec,
    SequenceSpec,
    TriggeredSpec,
)

DEFAULT_LIMITS = CompileLimits()


def compile_grammar(spec: GrammarSpec, limits: CompileLimits = DEFAULT_LIMITS) -> Automaton:
    """The byte automaton of a constraint.

    Raises InvalidGrammarError (malformed, or it matches nothing), UnsupportedGrammarError, GrammarTooLargeError.
    """
    with _collection_paused():
        return _compiled(spec, Budget(limits))


@contextmanager
def _collection_paused() -> Iterator[None]:
    """A compile makes many objects that live to its end: looking for garbage among them would take a third of its
    time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _compiled(spec: GrammarSpec, budget: Budget) -> Automaton:
    match spec:
        case RegexSpec(pattern):
            return packed_procedure(regular_procedure(parse_regex(pattern, budget), budget), budget)
        case ChoicesSpec(choices):
            return packed_procedure(regular_procedure(parse_choices(choices, budget), budget), budget)
        case DfaSpec():
            return assemble("root", lambda _: dfa_procedure(spec), budget)
        case JsonSchemaSpec():
            return compile_json_schema(spec, budget)
        case LarkSpec() | GbnfSpec() | SequenceSpec() | TriggeredSpec():
            from sgrun.grammar.compose import compile_composed  # loads the lark library

            return compile_composed(spec, budget)


class GrammarCompiler:
    """Compiles in worker processes and keeps results, least recently used first out. May be used from any thread.

    Requests for the same spec share one compile. Errors are not kept: a later request compiles again. A compile that
    takes longer than `time_limit_s`, or whose process would need more than `max_memory_bytes` of address space, ends
    in GrammarTooLargeError, and its process is replaced; the others go on beside it. `num_workers` processes at most,
    of which one is started with the compiler.
    """

    def __init__(
        self,
        limits: CompileLimits = DEFAULT_LIMITS,
        max_cache_bytes: int = 256 * 2**20,
        *,
        time_limit_s: float = 5.0,
        max_memory_bytes: int = 2 * 2**30,
        num_workers: int = 2,
    ) -> None:
        self._limits = limits
        self._max_cache_bytes = max_cache_bytes
        self._time_limit_s = time_limit_s
        self._max_memory_bytes = max_memory_bytes
        self._lock = threading.Lock()
        self._done: OrderedDict[GrammarSpec, Automaton] = OrderedDict()
        self._running: dict[GrammarSpec, Future[Automaton]] = {}
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="sgrun-grammar")
        self._idle = [self._new_worker()]
        self._busy: set[WorkerProcess] = set()
        self._is_closed = False
        self.cache_bytes = 0

    def submit(self, spec: GrammarSpec) -> Future[Automaton]:
        """A future of the spec's automaton, the caller's own to cancel. Raises EngineClosedError after `close`, and
        GrammarTooLargeError for specs within specs that are too many to be looked at."""
        Budget(self._limits).check("max_nesting", _nesting(spec))
        answer: Future[Automaton] = Future()
        with self._lock:
            self._check_open()
            if spec in self._done:
                self._done.move_to_end(spec)
                answer.set_result(self._done[spec])
                return answer
            shared = self._running.get(spec)
            if shared is None:
                shared = self._running[spec] = self._threads.submit(self._compile, spec)
                is_first = True
            else:
                is_first = False
        if is_first:
            shared.add_done_callback(lambda done: self._keep(spec, done))
        shared.add_done_callback(lambda done: _pass_on(done, answer))
        return answer

    def close(self) -> None:
        """Kills the workers; requests that run or wait fail with EngineClosedError."""
        with self._lock:
            self._is_closed = True
            workers = [*self._idle, *self._busy]
            self._idle.clear()
        for worker in workers:
            worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _compile(self, spec: GrammarSpec) -> Automaton:
        """On one of the threads. A process may end for reasons of its own (the machine is out of memory, someone kills
        it, also while it waits for work): that a spec is to blame is known when it happens twice."""
        Budget(self._limits).check("max_source_len", _source_len(spec))
        try:
            return self._compile_once(spec)
        except WorkerLostError:
            pass
        try:
            return self._compile_once(spec)
        except WorkerLostError as error:
            raise GrammarTooLargeError(f"the process that compiled the constraint ended twice ({error})") from error

    def _compile_once(self, spec: GrammarSpec) -> Automaton:
        with self._lock:
            self._check_open()
            worker = self._idle.pop() if self._idle else self._new_worker()
            self._busy.add(worker)
        try:
            return worker.compile(spec, self._limits)
        finally:
            self._put_back(worker)

    def _put_back(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._busy.discard(worker)
            if not self._is_closed:
                self._idle.append(worker if worker.is_usable else self._new_worker())
                return
        worker.kill()

    def _new_worker(self) -> WorkerProcess:
        try:
            return WorkerProcess(self._time_limit_s, self._max_memory_bytes)
        except OSError as error:
            raise EngineError(f"the process that compiles constraints cannot be started: {error}") from error

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineClosedError("the grammar compiler has been closed")

    def _keep(self, spec: GrammarSpec, done: Future[Automaton]) -> None:
        with self._lock:
            del self._running[spec]
            if done.cancelled() or done.exception() is not None:
                return
            self._done[spec] = done.result()
            self.cache_bytes += _kept_bytes(spec, done.result())
            while self.cache_bytes > self._max_cache_bytes:
                self.cache_bytes -= _kept_bytes(*self._done.popitem(last=False))


def _nesting(spec: GrammarSpec) -> int:
    """How deep specs are within specs, found without recursion."""
    nesting, level = -1, [spec]
    while level:
        nesting += 1
        level = [inner for outer in level for inner in _inner(outer)]
    return nesting


def _inner(spec: GrammarSpec) -> list[GrammarSpec]:
    match spec:
        case SequenceSpec(parts):
            return [part.spec for part in parts if not isinstance(part, str)]
        case TriggeredSpec(triggers):
            return [trigger.spec for trigger in triggers]
        case _:
            return []


def _source_len(spec: GrammarSpec) -> int:
    match spec:
        case RegexSpec(text) | JsonSchemaSpec(text) | LarkSpec(text) | GbnfSpec(text):
            return len(text)
        case ChoicesSpec(choices):
            return sum(map(len, choices))
        case DfaSpec(byte_classes, transitions):
            return len(byte_classes) + sum(map(len, transitions))
        case SequenceSpec(parts):
            return sum(len(part) if isinstance(part, str) else _source_len(part.spec) for part in parts)
        case TriggeredSpec(triggers):
            return sum(len(trigger.begin) + _source_len(trigger.spec) + len(trigger.end) for trigger in triggers)


def _kept_bytes(spec: GrammarSpec, automaton: Automaton) -> int:
    return automaton.size_bytes + _source_len(spec)


def _pass_on(done: Future[Automaton], answer: Future[Automaton]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    if done.cancelled():
        answer.set_exception(EngineClosedError("the grammar compiler was closed before this constraint was compiled"))
        return
    error = done.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
