"""From a grammar spec to an automaton: the pure function, and a worker that runs it off the engine's thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from sgrun.errors import EngineClosedError, InvalidGrammarError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.build import build_nfa
from sgrun.grammar.choices import parse_choices
from sgrun.grammar.dfa import atoms_of, determinize, minimize
from sgrun.grammar.json_schema import parse_json_schema
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.regex import parse_regex
from sgrun.grammar.syntax import Node
from sgrun.grammar.utf8 import to_bytes
from sgrun.types import ChoicesSpec, GrammarSpec, JsonSchemaSpec, RegexSpec

DEFAULT_LIMITS = CompileLimits()


def compile_grammar(spec: GrammarSpec, limits: CompileLimits = DEFAULT_LIMITS) -> Automaton:
    """The minimal byte automaton of a constraint.

    Raises InvalidGrammarError (malformed, or it matches nothing), UnsupportedGrammarError, GrammarTooLargeError.
    """
    budget = Budget(limits)
    nfa = build_nfa(_parse(spec, budget), budget)
    atoms = atoms_of(nfa.labels, budget)
    dfa = minimize(determinize(nfa, atoms, budget))
    if dfa.is_empty:
        raise InvalidGrammarError("the constraint matches nothing: there is no text that satisfies it")
    return to_bytes(dfa, atoms.sets, budget)


def _parse(spec: GrammarSpec, budget: Budget) -> Node:
    match spec:
        case RegexSpec(pattern):
            return parse_regex(pattern, budget)
        case JsonSchemaSpec(schema):
            return parse_json_schema(schema, budget)
        case ChoicesSpec(choices):
            return parse_choices(choices, budget)


class GrammarCompiler:
    """Compiles on one worker thread and keeps results, least recently used first out. May be used from any thread.

    Requests for the same spec share one compile. Errors are not kept: a later request compiles again.
    """

    def __init__(self, limits: CompileLimits = DEFAULT_LIMITS, max_cache_bytes: int = 256 * 2**20) -> None:
        self._limits = limits
        self._max_cache_bytes = max_cache_bytes
        self._lock = threading.Lock()
        self._done: OrderedDict[GrammarSpec, Automaton] = OrderedDict()
        self._running: dict[GrammarSpec, Future[Automaton]] = {}
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sgrun-grammar")
        self._is_closed = False
        self.cache_bytes = 0

    def submit(self, spec: GrammarSpec) -> Future[Automaton]:
        """A future of the spec's automaton, the caller's own to cancel. Raises EngineClosedError after `close`."""
        answer: Future[Automaton] = Future()
        with self._lock:
            if self._is_closed:
                raise EngineClosedError("the grammar compiler has been closed")
            if spec in self._done:
                self._done.move_to_end(spec)
                answer.set_result(self._done[spec])
                return answer
            shared = self._running.get(spec)
            if shared is None:
                shared = self._running[spec] = self._worker.submit(compile_grammar, spec, self._limits)
                is_first = True
            else:
                is_first = False
        if is_first:
            shared.add_done_callback(lambda done: self._keep(spec, done))
        shared.add_done_callback(lambda done: _pass_on(done, answer))
        return answer

    def close(self) -> None:
        """Ends the worker after the compile that is running; requests that wait fail with EngineClosedError."""
        with self._lock:
            self._is_closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _keep(self, spec: GrammarSpec, done: Future[Automaton]) -> None:
        with self._lock:
            del self._running[spec]
            if done.cancelled() or done.exception() is not None:
                return
            self._done[spec] = done.result()
            self.cache_bytes += done.result().size_bytes
            while self.cache_bytes > self._max_cache_bytes:
                _, evicted = self._done.popitem(last=False)
                self.cache_bytes -= evicted.size_bytes


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
