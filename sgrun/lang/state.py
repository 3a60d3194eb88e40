"""Owns what a program's author sees of a branch: appending with `+=`, reading by name, roles, forks, streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, overload

from sgrun.errors import ProgramError
from sgrun.lang.branch import Branch
from sgrun.lang.expr import Expr, RoleBegin, RoleEnd, check_name
from sgrun.lang.group import ProgramStateGroup
from sgrun.lang.op import caller_line
from sgrun.lang.trace import OpNode, trace_run
from sgrun.lang.transcript import text_of
from sgrun.lang.variable import assigned, output_token_logprobs, scoped
from sgrun.lang.waiting import run_in_greenlet
from sgrun.types import Chunk


class ProgramState:
    """What a program appends to (`s += ...`) and reads from (`s["name"]`).

    Appending never waits. Reading waits for just what it reads, and raises the error of that. An `async def` program
    reads with `aget`, `aget_meta_info`, `atext`, `amessages`, `async_sync` and `text_async_iter`.
    """

    def __init__(self, branch: Branch) -> None:
        self._branch = branch
        self._run = branch.run

    def __iadd__(self, expr: Expr | str) -> ProgramState:
        """Appends. Raises ProgramError, ClosedStateError, InvalidRequestError."""
        self._branch.append(expr, caller_line())
        return self

    # Roles

    @overload
    def system(self) -> RoleScope: ...
    @overload
    def system(self, expr: Expr | str) -> None: ...
    def system(self, expr: Expr | str | None = None) -> RoleScope | None:
        """Appends a system message; without `expr`, `with s.system():` holds its content."""
        return self._role("system", expr)

    @overload
    def user(self) -> RoleScope: ...
    @overload
    def user(self, expr: Expr | str) -> None: ...
    def user(self, expr: Expr | str | None = None) -> RoleScope | None:
        """Appends a user message; without `expr`, `with s.user():` holds its content."""
        return self._role("user", expr)

    @overload
    def assistant(self) -> RoleScope: ...
    @overload
    def assistant(self, expr: Expr | str) -> None: ...
    def assistant(self, expr: Expr | str | None = None) -> RoleScope | None:
        """Appends an assistant message; without `expr`, `with s.assistant():` holds its content."""
        return self._role("assistant", expr)

    def _role(self, role: str, expr: Expr | str | None) -> RoleScope | None:
        if expr is None:
            return RoleScope(self._branch, role)
        self._branch.append(RoleBegin(role) + expr + RoleEnd(role), caller_line())
        return None

    def var_scope(self, name: str) -> VarScope:
        """`with s.var_scope(name):` stores all text appended inside as a variable."""
        check_name(name)
        return VarScope(self._branch, name)

    # Reading

    def __getitem__(self, name: str) -> Any:
        """The value of a variable. Waits for it; raises its error, or UnknownVariableError."""
        return self._branch.variable(name).read()

    def get_var(self, name: str) -> Any:
        """The same as `s[name]`."""
        return self[name]

    async def aget(self, name: str) -> Any:
        """`s[name]`, awaited."""
        return await run_in_greenlet(lambda: self[name])

    def __setitem__(self, name: str, value: Any) -> None:
        """Stores a value under `name`; the text does not change."""
        check_name(name)
        self._branch.define(name, assigned(value))

    def set_var(self, name: str, value: Any) -> None:
        """The same as `s[name] = value`."""
        self[name] = value

    def __contains__(self, name: object) -> bool:
        """Whether an operation or assignment defines `name`, finished or not."""
        return name in self._branch.variables

    def get_meta_info(self, name: str) -> Any:
        """Text, token counts, finish reason and log-probabilities of a generated variable; None for an assigned one.

        A list of them where the variable is a list. Waits; raises like `s[name]`.
        """
        return self._branch.variable(name).meta_info()

    async def aget_meta_info(self, name: str) -> Any:
        """`get_meta_info`, awaited."""
        return await run_in_greenlet(lambda: self.get_meta_info(name))

    def captures(self, name: str) -> Any:
        """The pieces of a variable that was generated under a SequenceSpec or a TriggeredSpec.

        Of a sequence: a dict from the names of its parts to their values. Of a text with triggers: a list with a
        `Captured` (`trigger`, `value`) for each that was met. The value of a piece under a JSON schema is what its JSON
        says; of a nested sequence or triggered text its pieces; of any other its text. Waits; raises like `s[name]`,
        and ProgramError if the text was cut short or has no such constraint.
        """
        captures = self._branch.variable(name).captures
        if captures is None:
            raise ProgramError(f"the variable {name!r} has no pieces; its gen needs a SequenceSpec or TriggeredSpec")
        return captures()

    async def acaptures(self, name: str) -> Any:
        """`captures`, awaited."""
        return await run_in_greenlet(lambda: self.captures(name))

    def text(self) -> str:
        """All text so far, chat markers included. Waits for the program; raises its first error."""
        self._wait_for_body()
        return text_of(self._branch.transcript.parts)

    async def atext(self) -> str:
        """`text`, awaited."""
        return await run_in_greenlet(self.text)

    def messages(self) -> list[dict[str, str]]:
        """The messages so far as `{"role", "content"}`. Waits for the program; raises its first error."""
        self._wait_for_body()
        return [{"role": each.role, "content": text_of(each.content)} for each in self._branch.transcript.messages]

    async def amessages(self) -> list[dict[str, str]]:
        """`messages`, awaited."""
        return await run_in_greenlet(self.messages)

    def sync(self) -> None:
        """Waits for the program and all operations of this state. Raises their first error."""
        self._wait_for_body()
        for op in self._branch.ops():
            op.result()

    async def async_sync(self) -> None:
        """`sync`, awaited."""
        await run_in_greenlet(self.sync)

    def error(self) -> BaseException | None:
        """Waits like `sync`; returns the error instead of raising it."""
        self._run.wait_for_end()
        if self._run.error is not None:
            return self._run.error
        failures = (op.failure() for op in self._branch.ops())
        return next((failure for failure in failures if failure is not None), None)

    @property
    def ret_value(self) -> Any:
        """What the program returned. Waits for its body; raises its error."""
        self._wait_for_body()
        if not self._run.ended.done():
            raise ProgramError("ret_value was read inside the program, before it has returned")
        return self._run.value

    def _wait_for_body(self) -> None:
        self._run.wait_for_end()
        if self._run.error is not None:
            raise self._run.error

    # Streaming

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        """The text of the state, or of one variable, piece by piece as it comes. Raises the error that ends it.

        The pieces are small where the program runs with stream=True, else whole generations.
        """
        return (chunk.text for chunk in self._chunks(var_name) if chunk.text)

    @overload
    def text_async_iter(self, var_name: str | None = None) -> AsyncIterator[str]: ...
    @overload
    def text_async_iter(
        self, var_name: str | None = None, *, return_meta_data: bool
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]: ...
    async def text_async_iter(
        self, var_name: str | None = None, *, return_meta_data: bool = False
    ) -> AsyncIterator[Any]:
        """`text_iter` for a running event loop. With `return_meta_data`: pairs of text and the counts so far,
        `completion_tokens` and `output_token_logprobs_length`, with this piece's own `output_token_logprobs`."""
        chunks = self._chunks(var_name)
        num_tokens = num_logprobs = 0
        while (chunk := await run_in_greenlet(lambda: next(chunks, None))) is not None:
            num_tokens += len(chunk.token_ids)
            num_logprobs += len(chunk.logprobs)
            if return_meta_data:
                meta_info = {
                    "completion_tokens": num_tokens,
                    "output_token_logprobs": output_token_logprobs(chunk.logprobs),
                    "output_token_logprobs_length": num_logprobs,
                }
                yield chunk.text, meta_info
            elif chunk.text:
                yield chunk.text

    def _chunks(self, var_name: str | None) -> Iterator[Chunk]:
        return self._chunks_of_text() if var_name is None else self._chunks_of_variable(var_name)

    def _chunks_of_text(self) -> Iterator[Chunk]:
        branch, parts = self._branch, self._branch.transcript.parts
        seen = 0
        while True:
            branch.wait_for_part(seen)
            if seen == len(parts):
                break
            part = parts[seen]
            seen += 1
            if isinstance(part, str):
                yield Chunk(part)
            else:
                yield from part.stream()
        self._wait_for_body()

    def _chunks_of_variable(self, name: str) -> Iterator[Chunk]:
        variable = self._branch.variable(name)
        if variable.op is not None:
            yield from variable.op.stream()
        else:
            yield Chunk(str(variable.read()))

    # Branches

    def fork(self, size: int = 1) -> ProgramStateGroup:
        """`size` branches that go on from here side by side. Raises ProgramError, ClosedStateError."""
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ProgramError(f"fork size is {size!r}; allowed: an integer of at least 1")
        branches = self._branch.fork(size, caller_line())
        return ProgramStateGroup(self._branch, [ProgramState(branch) for branch in branches])

    def copy(self) -> CopyScope:
        """`with s.copy() as branch:` is a fork of one that is joined at the end."""
        return CopyScope(self)

    def cancel(self) -> None:
        """Aborts what this state and its forks run and have queued; reading that raises AbortedError.

        On the state that a run returned it also ends the program's body.
        """
        if self._branch.path:
            self._branch.cancel()
        else:
            self._run.cancel()

    def trace(self) -> OpNode:
        """What the program asked of the backend from here on and what it cost, as a tree. Does not wait."""
        return trace_run(self._branch)


class RoleScope:
    """`with s.user():` opens the role and closes it, also when the block raises."""

    def __init__(self, branch: Branch, role: str) -> None:
        self._branch = branch
        self._role = role

    def __enter__(self) -> None:
        self._branch.append(RoleBegin(self._role), caller_line())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_open = self._branch.transcript.open_role == self._role and not self._branch.is_closed
        if error is None or is_open:  # a second error would hide the first
            self._branch.append(RoleEnd(self._role), caller_line())


class VarScope:
    """`with s.var_scope(name):` makes the text appended inside a variable."""

    def __init__(self, branch: Branch, name: str) -> None:
        self._branch = branch
        self._name = name

    def __enter__(self) -> None:
        self._start = len(self._branch.transcript.parts)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._branch.define(self._name, scoped(self._branch.transcript.parts[self._start :]))


class CopyScope:
    """`with s.copy() as branch:` forks once and joins at the end."""

    def __init__(self, state: ProgramState) -> None:
        self._state = state

    def __enter__(self) -> ProgramState:
        self._group = self._state.fork(1)
        return self._group[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._group.join()
