"""Owns programs: functions that `@function` has turned into something to run once, in a batch, streamed or awaited."""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any, Literal, TypedDict, Unpack, cast, overload

from sgrun.errors import ChatTemplateError, InvalidParameterError
from sgrun.lang.backend import Backend
from sgrun.lang.batch import Item, OnError, collect, launch
from sgrun.lang.branch import Branch
from sgrun.lang.chat import ChatRenderer
from sgrun.lang.default import resolve_backend
from sgrun.lang.run import Run, current_run
from sgrun.lang.sampling import SamplingArguments, check_sampling, derive_seed
from sgrun.lang.state import ProgramState
from sgrun.lang.waiting import loop_for_bodies, run_in_greenlet

Renderers = dict[tuple[object, str], ChatRenderer]


class OwnRunArguments(TypedDict, total=False):
    """Arguments of a run besides those of `gen`.

    max_new_tokens: the run's name for the max_tokens of every `gen`. stream: run() returns at once, and generations
    come in pieces. cache_salt: runs share cached prefixes only under the same salt. priority: higher runs first.
    chat_template_kwargs: go to the chat template by name (enable_thinking=False).
    """

    max_new_tokens: int | None
    backend: Backend | None
    stream: bool | None
    cache_salt: str | None
    priority: int | None
    chat_template_kwargs: Mapping[str, object] | None


class RunArguments(SamplingArguments, OwnRunArguments, total=False):
    """Arguments of a run. Those of `gen` are the defaults of every generation in the program."""


RUN_ARGUMENTS = frozenset(RunArguments.__annotations__) - {"max_tokens"}


@overload
def function(func: Callable[..., Any]) -> Program: ...
@overload
def function(func: None = None) -> Callable[[Callable[..., Any]], Program]: ...
def function(func: Callable[..., Any] | None = None) -> Program | Callable[[Callable[..., Any]], Program]:
    """Makes a program of a function whose first parameter is the state. Also for methods, with or without ()."""
    return Program if func is None else Program(func)


class Program:
    """A function of a state, to be run.

    Keyword arguments of `run` and `arun` that name a parameter of the function go to the function; the others are run
    arguments (`RunArguments`). Where both have the same name, `with_options` reaches the run's.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        bound: Mapping[str, Any] | None = None,
        options: RunArguments | None = None,
        renderers: Renderers | None = None,
    ) -> None:
        """`renderers`: shared with the program that this one derives from."""
        if not (inspect.isfunction(func) or inspect.ismethod(func)):
            raise InvalidParameterError(f"a program is made of {func!r}; allowed: a def or async def function")
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise InvalidParameterError(f"the program {func.__name__!r} holds a yield; append to the state instead")
        self._func = func
        self._bound = dict(bound or {})
        self._options: RunArguments = options or {}
        self._renderers = {} if renderers is None else renderers
        self._signature = inspect.signature(func)
        parameters = list(self._signature.parameters.values())
        if not parameters or parameters[0].kind not in _POSITIONAL:
            raise InvalidParameterError(f"the program {func.__name__!r} needs the state as its first parameter")
        self._parameters = [parameter.name for parameter in parameters[1:]]
        self._takes_any_keyword = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        self._is_async = inspect.iscoroutinefunction(func)
        functools.update_wrapper(cast(Callable[..., Any], self), func)

    def __repr__(self) -> str:
        return f"<program {self._func.__qualname__}>"

    def __get__(self, instance: object, owner: type | None = None) -> Program:
        return self if instance is None else self._derive(func=MethodType(self._func, instance))

    def bind(self, **arguments: Any) -> Program:
        """This program with some of its arguments given; a call may still override them."""
        for name in arguments:
            if name not in self._parameters and not self._takes_any_keyword:
                raise self._unknown(name, self._parameters)
        return self._derive(bound={**self._bound, **arguments})

    def with_options(self, **options: Unpack[RunArguments]) -> Program:
        """This program with other defaults for its run arguments."""
        return self._derive(options=self._merged(options))

    def run(self, /, *args: Any, **kwargs: Any) -> ProgramState:
        """Runs the body here and returns its state, whose generations may still be running; reading waits.

        With `stream=True`, and inside the body of another program, the body runs on the loop of the background thread
        (or of the other body), `run` returns at once, and the body's exception is raised where the state is read.
        Otherwise it is raised here. Raises InvalidParameterError, ProgramError.
        """
        arguments, options = self._split(kwargs)
        item = self._prepare(args, arguments, options)
        parent = _parent()
        if item.run.is_streaming or (parent is not None and not parent.runs_on_thread):
            item.run.spawn(item.body, self._is_async, loop_for_bodies())
        elif self._is_async:
            item.run.spawn(item.body, self._is_async, loop_for_bodies())
            item.run.wait_or_cancel()
        else:
            item.run.perform(item.body)
        return item.state

    __call__ = run

    async def arun(self, /, *args: Any, **kwargs: Any) -> ProgramState:
        """`run` on the running event loop; returns when the body has ended (with `stream=True` at once)."""
        arguments, options = self._split(kwargs)
        item = self._prepare(args, arguments, options)
        if item.run.is_streaming:
            item.run.spawn(item.body, self._is_async, asyncio.get_running_loop())
        elif self._is_async:
            await item.run.perform_async(item.body)
        else:
            await run_in_greenlet(lambda: item.run.perform(item.body))
        return item.state

    @overload
    def run_batch(
        self,
        batch: Sequence[Mapping[str, Any] | Sequence[Any]],
        *,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: Literal[False] = False,
        on_error: OnError = "return",
        **options: Unpack[RunArguments],
    ) -> list[ProgramState]: ...
    @overload
    def run_batch(
        self,
        batch: Sequence[Mapping[str, Any] | Sequence[Any]],
        *,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: Literal[True],
        on_error: OnError = "return",
        **options: Unpack[RunArguments],
    ) -> Iterator[ProgramState]: ...
    def run_batch(
        self,
        batch: Sequence[Mapping[str, Any] | Sequence[Any]],
        *,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        on_error: OnError = "return",
        **options: Unpack[RunArguments],
    ) -> list[ProgramState] | Iterator[ProgramState]:
        """Runs the program once per item of `batch` (a dict or tuple of its arguments), all of them at once.

        Returns the states in order, each when its body and operations are done; with `generator_style` an iterator that
        yields each as soon as it is. A failing item leaves the others alone: its error is raised where its state is
        read, or here after all have ended with `on_error="raise"`. `num_threads`: "auto" runs all bodies on one event
        loop, where code of their own that blocks holds up the others; a number runs them on that many threads.
        """
        items = self._prepare_batch(batch, options)
        launch(items, num_threads, self._is_async)
        states = collect(items, progress_bar=progress_bar, on_error=on_error)
        return states if generator_style else list(states)

    async def arun_batch(
        self,
        batch: Sequence[Mapping[str, Any] | Sequence[Any]],
        *,
        progress_bar: bool = False,
        on_error: OnError = "return",
        **options: Unpack[RunArguments],
    ) -> list[ProgramState]:
        """`run_batch` on the running event loop."""
        return await run_in_greenlet(
            lambda: self.run_batch(batch, progress_bar=progress_bar, on_error=on_error, **options)
        )

    def _derive(
        self,
        func: Callable[..., Any] | None = None,
        bound: Mapping[str, Any] | None = None,
        options: RunArguments | None = None,
    ) -> Program:
        return Program(func or self._func, bound or self._bound, options or self._options, self._renderers)

    def _merged(self, options: RunArguments) -> RunArguments:
        for name in options:
            if name not in RUN_ARGUMENTS:
                raise self._unknown(name, sorted(RUN_ARGUMENTS))
        return cast(RunArguments, {**self._options, **{k: v for k, v in options.items() if v is not None}})

    def _split(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], RunArguments]:
        """The program's own arguments and those of the run."""
        arguments, options = {}, {}
        for name, value in kwargs.items():
            if name in self._parameters:
                arguments[name] = value
            elif name in RUN_ARGUMENTS:
                options[name] = value
            elif self._takes_any_keyword:
                arguments[name] = value
            else:
                raise self._unknown(name, [*self._parameters, *RUN_ARGUMENTS])
        return arguments, cast(RunArguments, options)

    def _unknown(self, name: str, known: Sequence[str]) -> InvalidParameterError:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; allowed: {', '.join(known)}"
        return InvalidParameterError(f"the program {self._func.__name__!r} has no argument {name!r}{hint}")

    def _prepare_batch(self, batch: Sequence[Any], options: RunArguments) -> list[Item]:
        calls = [self._call_of(item, index) for index, item in enumerate(batch)]
        merged = self._merged(options)
        seed = _seed(merged)
        items = []
        for index, (args, kwargs) in enumerate(calls):
            own = merged if seed is None else cast(RunArguments, {**merged, "seed": derive_seed(seed, "item", index)})
            items.append(self._prepare(args, kwargs, own))
        return items

    def _call_of(self, item: Any, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if isinstance(item, Mapping):
            args, kwargs = (), dict(item)
        elif isinstance(item, (tuple, list)):
            args, kwargs = tuple(item), {}
        else:
            raise InvalidParameterError(f"batch item {index} is {item!r}; allowed: a dict or tuple of arguments")
        self._arguments(args, kwargs, f" (batch item {index})")
        return args, kwargs

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any], where: str = "") -> dict[str, Any]:
        """`kwargs` with the bound arguments that the call does not give itself."""
        taken = self._parameters[: len(args)]
        merged = {**{name: value for name, value in self._bound.items() if name not in taken}, **kwargs}
        try:
            self._signature.bind(None, *args, **merged)
        except TypeError as error:
            raise InvalidParameterError(f"the program {self._func.__name__!r}{where}: {error}") from error
        return merged

    def _prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: RunArguments) -> Item:
        arguments = self._arguments(args, kwargs)
        merged = self._merged(options)
        sampling = _sampling(merged)
        check_sampling(sampling)
        parent = _parent()
        backend = merged.get("backend")
        run = Run(
            self._func.__name__,
            inspect.unwrap(self._func).__code__,
            resolve_backend(parent.backend if backend is None and parent is not None else backend),
            sampling,
            seed=_seed(merged),
            is_streaming=bool(merged.get("stream")),
            chat=functools.partial(self._renderer, merged.get("chat_template_kwargs") or {}),
        )
        if parent is not None:
            run.runs_on_thread = parent.runs_on_thread
            parent.children.append(run)
        seq_id = run.backend.open(cache_salt=merged.get("cache_salt") or "", priority=merged.get("priority") or 0)
        state = ProgramState(Branch(run, seq_id))
        return Item(run, state, functools.partial(self._func, state, *args, **arguments))

    def _renderer(self, arguments: Mapping[str, object], backend: Backend) -> ChatRenderer:
        chat_format = backend.chat_format
        if chat_format is None:
            raise ChatTemplateError(
                "the model has no chat template, so roles cannot be used; append plain text, or use a chat model"
            )
        key = (chat_format, repr(sorted(arguments.items())))
        if key not in self._renderers:
            self._renderers[key] = ChatRenderer(chat_format, arguments)
        return self._renderers[key]


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _parent() -> Run | None:
    """The run whose body the caller is in."""
    run = current_run.get()
    return run if run is not None and not run.ended.done() else None


def _seed(options: RunArguments) -> int | None:
    """The run's own seed, or one derived from that of the run that it is started in."""
    seed, parent = options.get("seed"), _parent()
    if seed is None and parent is not None and parent.seed is not None:
        return derive_seed(parent.seed, "run", len(parent.children))
    return seed


def _sampling(options: RunArguments) -> SamplingArguments:
    """What every generation of the run inherits; its seed is derived instead."""
    names = SamplingArguments.__annotations__.keys() - {"seed"}
    sampling = {name: value for name, value in options.items() if name in names}
    sampling["max_tokens"] = options.get("max_new_tokens")
    return cast(SamplingArguments, sampling)
