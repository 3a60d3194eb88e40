"""Makes a network deterministic: procedures whose every step is fixed by the next byte.

A state is a set of threads. A thread is a stack of positions: the last one reads on, those below it say where to go on
when the graph of the one above is done. Where all threads that can use a byte are about to call, or stand in a callee
already, the part above is left to a procedure of its own (CALL); otherwise a callee is followed within the state, until
the byte that tells the threads apart. A procedure is asked for several continuations at once; its label says which of
them the text just read was (bit i of label + 1: entry i), so alternatives that begin alike need no lookahead.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from sgrun.grammar.cfg import External, Terminal
from sgrun.grammar.explore import LazyCall, LazyEdge, LazyMove, Row, State
from sgrun.grammar.limits import Budget
from sgrun.grammar.network import Network, Watch
from sgrun.grammar.procedure import END, Return
from sgrun.grammar.rule_sets import ByteSet, RuleSets

MAX_FOLLOWED = 12  # callees within callees that one state follows
MAX_ENTRIES = 6  # continuations that one procedure is asked for

_Watches = tuple[Watch, ...]
_Stack = tuple[int, ...]
_Thread = tuple[int, _Stack, _Watches]  # which entry of the procedure it came from, where it stands
_Place = tuple[_Stack, _Watches]
_Entry = tuple[_Place, ...]  # places in one graph that lead to the same continuation


@dataclass(frozen=True, slots=True)
class ProcedureKey:
    """The procedure that recognises the rest of its entries. `is_root`: the empty text is not left to callers."""

    entries: tuple[_Entry, ...]
    is_root: bool = False


class Conflict(Exception):
    """The next byte does not tell whether a rule is over; `rules` could be written out to look further ahead."""

    def __init__(self, message: str, rules: set[str]) -> None:
        super().__init__(message)
        self.rules = rules


class Pushdown:
    """The procedures of a network, made state by state as they are needed."""

    def __init__(self, network: Network, sets: RuleSets, after: ByteSet, budget: Budget) -> None:
        """`after`: what may follow the whole text."""
        self.network = network
        self.budget = budget
        self.first = {name: _classes(network, sets.first[name]) for name in network.graphs if name}
        self.follow = {name: _classes(network, sets.follow[name] if name else after) for name in network.graphs}
        self.external_first: dict[Hashable, frozenset[int]] = {}
        self._sets = sets
        bytes_by_class = np.argsort(network.byte_classes, kind="stable")
        ends = np.cumsum(np.bincount(network.byte_classes, minlength=network.num_classes))[:-1]
        self.bytes_of = [*(part.tolist() for part in np.split(bytes_by_class, ends)), [END]]
        self._known: dict[ProcedureKey, DeterministicProcedure] = {}
        self._terminal_sets: dict[frozenset[Terminal], frozenset[Terminal]] = {}

    @property
    def root(self) -> ProcedureKey:
        """The procedure of the whole grammar."""
        place = ((self.network.graphs[""].start,), ())
        return ProcedureKey(((place,),), is_root=True)

    def procedure(self, key: ProcedureKey) -> DeterministicProcedure:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = DeterministicProcedure(key, self)
        return known

    def same_set(self, terminals: frozenset[Terminal]) -> frozenset[Terminal]:
        """One object for equal sets, which are looked up often."""
        return self._terminal_sets.setdefault(terminals, terminals)

    def first_of(self, callee: str | External) -> frozenset[int]:
        if isinstance(callee, str):
            return self.first[callee]
        known = self.external_first.get(callee.key)
        if known is None:
            known = self.external_first[callee.key] = _classes(self.network, self._sets.first_of(callee))
        return known


@dataclass(slots=True)
class _Users:
    """The threads that can use a byte."""

    reading: list[_Thread]
    calling: list[tuple[_Thread, str | External, int]]
    ended: int  # bit i: entry i is complete


class DeterministicProcedure:
    """One procedure; satisfies explore.Explorable."""

    def __init__(self, key: ProcedureKey, pushdown: Pushdown) -> None:
        self._key = key
        self._pushdown = pushdown
        self._network = pushdown.network
        self._closed: dict[frozenset[_Thread], frozenset[_Thread]] = {}
        self._rows: dict[State, Row] = {}

    def expand(self, state: State) -> Row:
        known = self._rows.get(state)
        if known is None:
            threads = self._start() if state == "start" else state
            assert isinstance(threads, frozenset)
            known = self._rows[state] = self._expanded(threads)
        return known

    def _start(self) -> frozenset[_Thread]:
        """Without threads that are over: callers offer the empty text themselves."""
        threads = self._closure((index, *place) for index, entry in enumerate(self._key.entries) for place in entry)
        if self._key.is_root:
            return threads
        return frozenset(thread for thread in threads if not self._is_over(thread))

    def _expanded(self, threads: frozenset[_Thread]) -> Row:
        by_class: dict[int, _Users] = {}
        beside: dict[_Stack, list[_Thread]] = {}
        for thread in threads:
            self._add_users(thread, by_class)
            if thread[1][-1] in self._network.starts:
                beside.setdefault((thread[0], *thread[1][:-1]), []).append(thread)
        columns: dict[int, list[int]] = {}
        edges: list[LazyEdge] = []
        numbers: dict[object, int] = {}
        for byte_class, users in by_class.items():
            what, edge = self._decide(users, byte_class, beside)
            number = numbers.setdefault(what, len(edges))
            if number == len(edges):
                edges.append(edge)
            columns.setdefault(number, []).extend(self._pushdown.bytes_of[byte_class])
        return Row([(tuple(columns[number]), edge) for number, edge in enumerate(edges)])

    def _add_users(self, thread: _Thread, by_class: dict[int, _Users]) -> None:
        index, stack, watches = thread
        position = stack[-1]

        def users(byte_class: int) -> _Users | None:
            if watches and any(self._network.watch_step(watch, byte_class) is None for watch in watches):
                return None
            return by_class.setdefault(byte_class, _Users([], [], 0))

        for byte_class, _ in self._network.moves[position]:
            found = users(byte_class)
            if found is not None:
                found.reading.append(thread)
        for call in self._network.calls.get(position, ()):
            for byte_class in self._pushdown.first_of(call.callee):
                found = users(byte_class)
                if found is not None:
                    found.calling.append((thread, call.callee, call.target))
        if self._is_over(thread):
            for byte_class in self._pushdown.follow[self._owner(index)]:
                if not any(self._network.watch_step(watch, byte_class) != 0 for watch in watches):
                    by_class.setdefault(byte_class, _Users([], [], 0)).ended |= 1 << index

    def _decide(self, users: _Users, byte_class: int, beside: dict[_Stack, list[_Thread]]) -> tuple[object, LazyEdge]:
        """What happens with a byte: something to compare it by, and the edge. `beside`: the threads of the state that
        are at the start of a terminal, by where they come from and what is below."""
        if users.ended and self._only_skips(users, byte_class):
            users.ended = 0
        if users.ended:
            if users.reading or users.calling:
                raise self._conflict(users, byte_class)
            return users.ended, Return(users.ended - 1, consumes=False)
        is_within = all(stack[-1] not in self._network.starts for _, stack, _ in users.reading)
        if all(len(stack) > 1 for _, stack, _ in users.reading) and (users.calling or not is_within):
            return self._call(users, byte_class, beside)
        reading = users.reading
        for thread, callee, after in users.calling:
            reading = [*reading, *self._followed(thread, callee, after, byte_class)]
        target = self._closure(self._read(reading, byte_class))
        return target, LazyMove(target)

    def _read(self, threads: list[_Thread], byte_class: int) -> Iterable[_Thread]:
        """The threads after a byte that all of them read."""
        starts = self._network.starts
        beginning = {stack[-1] for _, stack, _ in threads if stack[-1] in starts}
        terminals = self._pushdown.same_set(frozenset(starts[position].terminal for position in beginning))
        for index, stack, watches in threads:
            position = stack[-1]
            if len(terminals) > 1 and position in beginning:
                position = self._network.beside(position, terminals)
            left = self._watched(watches, byte_class)
            for read, target in self._network.moves[position]:
                if read == byte_class:
                    yield index, (*stack[:-1], target), left

    def _only_skips(self, users: _Users, byte_class: int) -> bool:
        """A byte above ASCII that may begin text to be skipped as well as what follows begins that text: the byte
        alone does not tell the two apart, and white space above ASCII is rare."""
        is_ascii = self._pushdown.bytes_of[byte_class][0] < 128
        skips = all(stack[-1] in self._network.skipping for _, stack, _ in users.reading)
        return not is_ascii and skips and not users.calling and bool(users.reading)

    def _call(self, users: _Users, byte_class: int, beside: dict[_Stack, list[_Thread]]) -> tuple[object, LazyEdge]:
        """Leaves the topmost graphs to a procedure; when it returns, the threads below go on.

        All that could begin beside a terminal goes along, so that one procedure serves whichever of them it is.
        """
        below: dict[_Place, set[_Thread]] = {}
        external: dict[External, set[_Thread]] = {}
        place: _Place
        for (index, stack, watches), callee, target in users.calling:
            rest: _Thread = (index, (*stack[:-1], target), ())
            if isinstance(callee, External):
                external.setdefault(callee, set()).add(rest)
            else:
                place = ((self._network.graphs[callee].start,), self._pending(watches, byte_class))
                below.setdefault(place, set()).add(rest)
        for index, stack, watches in users.reading:
            along = [(index, stack, watches)]
            if stack[-1] in self._network.starts:
                along = beside[index, *stack[:-1]]
            for _, (*_, position), along_watches in along:
                place = ((position,), self._pending(along_watches, byte_class))
                below.setdefault(place, set()).add((index, stack[:-1], ()))
        if external:
            if below or len(external) > 1:
                raise self._external_conflict(users, byte_class)
            [(called, rests)] = external.items()
            after_call = self._closure(rests)
            return (called, after_call), LazyCall(called.key, {0: after_call}.get)
        places: dict[tuple[frozenset[_Thread], str], list[_Place]] = {}
        for place, rests in below.items():
            owner = self._network.owner[place[0][0]]
            places.setdefault((self._closure(rests), owner), []).append(place)
        if len(places) > MAX_ENTRIES:
            raise self._conflict(users, byte_class)
        by_entry = sorted(((tuple(sorted(found)), rests) for (rests, _), found in places.items()), key=itemgetter(0))
        entries = tuple(entry for entry, _ in by_entry)
        rests_of = tuple(rests for _, rests in by_entry)

        def after(label: int) -> State:
            return frozenset().union(*(rests for index, rests in enumerate(rests_of) if label + 1 >> index & 1))

        return (entries, rests_of), LazyCall(ProcedureKey(entries), after)

    def _followed(self, thread: _Thread, callee: str | External, after: int, byte_class: int) -> list[_Thread]:
        """The threads within a callee that read a byte."""
        index, stack, watches = thread
        if isinstance(callee, External) or len(stack) >= MAX_FOLLOWED:
            raise self._external_conflict(_Users([], [(thread, callee, after)], 0), byte_class)
        inner = (*stack[:-1], after, self._network.graphs[callee].start)
        by_class: dict[int, _Users] = {}
        for begun in self._closure([(index, inner, watches)]):
            if len(begun[1]) >= len(inner):  # what is over already was offered beside the call
                self._add_users(begun, by_class)
        users = by_class.get(byte_class, _Users([], [], 0))
        found = list(users.reading)
        for begun, inner_callee, inner_after in users.calling:
            found += self._followed(begun, inner_callee, inner_after, byte_class)
        return found

    def _watched(self, watches: _Watches, byte_class: int) -> _Watches:
        """What is left to watch after a byte that was read."""
        steps = {self._network.watch_step(watch, byte_class) for watch in watches}
        return tuple(sorted(step for step in steps if step))

    def _pending(self, watches: _Watches, byte_class: int) -> _Watches:
        """The watches that a byte does not settle."""
        return tuple(watch for watch in watches if self._network.watch_step(watch, byte_class) != 0)

    def _closure(self, threads: Iterable[_Thread]) -> frozenset[_Thread]:
        kernel = frozenset(threads)
        known = self._closed.get(kernel)
        if known is None:
            known = self._closed[kernel] = self._closure_of(kernel)
        return known

    def _closure_of(self, kernel: frozenset[_Thread]) -> frozenset[_Thread]:
        """The threads that read, call or are over, after all that needs no byte."""
        found: set[_Thread] = set()
        seen = set(kernel)
        waiting = list(kernel)
        while waiting:
            index, stack, watches = waiting.pop()
            for reached in self._network.closure(stack[-1]):
                merged = tuple(sorted({*watches, *reached.watches})) if reached.watches else watches
                thread = (index, (*stack[:-1], reached.position), merged)
                if reached.position in self._network.final_of and len(stack) > 1:
                    thread = (index, stack[:-1], merged)
                    if thread not in seen:
                        seen.add(thread)
                        waiting.append(thread)
                else:
                    found.add(thread)
        self._pushdown.budget.spend("max_set_elements", len(seen) + len(found))
        return frozenset(found)

    def _is_over(self, thread: _Thread) -> bool:
        return len(thread[1]) == 1 and thread[1][0] in self._network.final_of

    def _owner(self, index: int) -> str:
        """The graph that an entry is in."""
        return self._network.owner[self._key.entries[index][0][0][0]]

    def _rules(self, users: _Users) -> set[str]:
        found = {self._network.owner[position] for _, stack, _ in users.reading for position in stack}
        for (_, stack, _), callee, _ in users.calling:
            found |= {self._network.owner[position] for position in stack}
            if isinstance(callee, str):
                found.add(callee)
        found |= {self._owner(index) for index in range(MAX_ENTRIES) if users.ended >> index & 1}
        return found - {""}

    def _conflict(self, users: _Users, byte_class: int) -> Conflict:
        rules = self._rules(users)
        return Conflict(
            f"after a text of {self._named(rules)}, {self._shown(byte_class)} may go on with it or belong to what "
            "follows, and no bounded lookahead tells which; make the rule end in a text of its own, or merge it with "
            "what follows",
            rules,
        )

    def _external_conflict(self, users: _Users, byte_class: int) -> Conflict:
        rules = self._rules(users)
        return Conflict(
            f"{self._shown(byte_class)} may begin different things in {self._named(rules)}, and no bounded lookahead "
            "tells which; let the alternatives begin differently",
            rules,
        )

    def _named(self, rules: set[str]) -> str:
        lines: dict[str, int] = {}
        for name in sorted(rules) or [""]:
            rule = self._network.graphs[name].rule
            lines[rule.name.partition("#")[0]] = rule.line
        return " and ".join(f"rule {name!r} (line {line})" for name, line in lines.items())

    def _shown(self, byte_class: int) -> str:
        byte = self._pushdown.bytes_of[byte_class][0]
        return repr(chr(byte)) if byte < 128 else f"byte 0x{byte:02x}"


def _classes(network: Network, found: ByteSet) -> frozenset[int]:
    """The byte classes of a set; the end of input counts as the last one."""
    classes = {int(network.byte_classes[byte]) for byte in range(END) if found >> byte & 1}
    return frozenset(classes | {network.num_classes} if found >> END & 1 else classes)
