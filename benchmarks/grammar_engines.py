"""Owns sgrun's grammar engine and its peers behind one interface, for the benchmark alone."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from grammar_suites import Notation

from sgrun.errors import GrammarError
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.masks import MaskCache
from sgrun.grammar.vocabulary import DEFAULT_MASK_BYTES, Vocabulary
from sgrun.types import GbnfSpec, GrammarSpec, JsonSchemaSpec, LarkSpec, RegexSpec

SERVICE_LIMIT_S = 5.0  # where sgrun's compile service ends a compile


class Tokens:
    """A vocabulary as every engine reads it: the bytes of each token (None: special), and the one that ends a text."""

    def __init__(self, data: Sequence[bytes | None], end: int) -> None:
        self.data = data
        self.end = end
        self._ids = {token: token_id for token_id, token in reversed(list(enumerate(data))) if token}
        self._max_len = max(map(len, self._ids))

    def encode(self, data: bytes) -> list[int]:
        """The longest token each time: not as the tokenizer splits, but the same for every engine."""
        ids = []
        while data:
            piece = next(data[:n] for n in range(min(self._max_len, len(data)), 0, -1) if data[:n] in self._ids)
            ids.append(self._ids[piece])
            data = data[len(piece) :]
        return ids


BYTES = Tokens([*(bytes([byte]) for byte in range(256)), None], 256)


class Refused(Exception):
    """The engine says that it does not take the constraint."""


class Generation(Protocol):
    def mask(self) -> bool:
        """Computes the mask; whether it was computed anew (engines that keep none: always)."""

    def allows(self, token_id: int) -> bool:
        """Whether the mask computed last has the token."""

    def accept(self, token_id: int) -> bool: ...

    def is_accepting(self) -> bool: ...


class Compiled(Protocol):
    checked_afterwards: bool
    num_states: int
    size_bytes: int

    def start(self) -> Generation: ...


class Engine(Protocol):
    def compile(self, text: str, notation: Notation, *, formats: bool = True) -> Compiled:
        """`formats` False: `format` is an annotation, in engines that have the choice."""


def accepts(compiled: Compiled, tokens: Sequence[int]) -> bool:
    """Whether the tokens are a complete text."""
    generation = compiled.start()
    return all(generation.accept(token) for token in tokens) and generation.is_accepting()


@dataclass
class SgrunGeneration:
    vocabulary: Vocabulary
    automaton: Automaton

    def __post_init__(self) -> None:
        self.matcher = self.automaton.matcher(self.vocabulary)
        self.accept = self.matcher.accept
        self.is_accepting = self.matcher.is_accepting

    def mask(self) -> bool:
        before = self.vocabulary.masks.size_bytes
        self.bits = self.matcher.bitmask()
        return self.vocabulary.masks.size_bytes != before

    def allows(self, token_id: int) -> bool:
        return bool(self.bits[token_id // 32] >> token_id % 32 & 1)


@dataclass
class SgrunCompiled:
    vocabulary: Vocabulary
    automaton: Automaton

    def __post_init__(self) -> None:
        self.checked_afterwards = bool(self.automaton.checked_afterwards)
        self.num_states = self.automaton.num_states
        self.size_bytes = self.automaton.size_bytes

    def start(self) -> SgrunGeneration:
        return SgrunGeneration(self.vocabulary, self.automaton)


class Sgrun:
    def __init__(self, tokens: Tokens) -> None:
        self.vocabulary = Vocabulary(tokens.data, [tokens.end])

    def compile(self, text: str, notation: Notation, *, formats: bool = True) -> SgrunCompiled:
        self.vocabulary.masks = MaskCache(self.vocabulary, DEFAULT_MASK_BYTES)
        started = time.process_time()
        try:
            automaton = compile_grammar(_spec(text, notation, formats))
        except GrammarError as error:
            raise Refused(f"{type(error).__name__}: {error}") from error
        if time.process_time() - started > SERVICE_LIMIT_S:
            raise Refused(f"more than {SERVICE_LIMIT_S} s")
        return SgrunCompiled(self.vocabulary, automaton)


def _spec(text: str, notation: Notation, formats: bool) -> GrammarSpec:
    match notation:
        case "json schema":
            return JsonSchemaSpec(text, strict=False, formats=formats)
        case "regex":
            return RegexSpec(text)
        case "lark":
            return LarkSpec(text)
        case "gbnf":
            return GbnfSpec(text)


class _LlguidanceTokens:
    """What llguidance asks for of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokens: Tokens) -> None:
        self.eos_token_id = tokens.end
        self.tokens = [data or b"<special>" for data in tokens.data]
        self.special_token_ids = [token_id for token_id, data in enumerate(tokens.data) if not data]
        self._encode = tokens.encode

    def __call__(self, text: bytes) -> list[int]:
        return self._encode(text)


@dataclass
class LlguidanceGeneration:
    matcher: Any

    def mask(self) -> bool:
        self.bits = self.matcher.compute_bitmask()
        return True

    def allows(self, token_id: int) -> bool:
        return bool(self.bits[token_id // 8] >> token_id % 8 & 1)

    def accept(self, token_id: int) -> bool:
        return bool(self.matcher.try_consume_tokens([token_id]) == 1)

    def is_accepting(self) -> bool:
        return bool(self.matcher.is_accepting())


@dataclass
class LlguidanceCompiled:
    matcher: Any
    checked_afterwards = False
    num_states = size_bytes = 0

    def start(self) -> LlguidanceGeneration:
        return LlguidanceGeneration(self.matcher.deep_copy())


class Llguidance:
    def __init__(self, tokens: Tokens, *, is_lenient: bool) -> None:
        module = importlib.import_module("llguidance")
        self.converter = importlib.import_module("llguidance.gbnf_to_lark")
        self.matcher = module.LLMatcher
        self.tokenizer = module.LLTokenizer(module.TokenizerWrapper(_LlguidanceTokens(tokens)))
        self.options = {"lenient": True} if is_lenient else None

    def compile(self, text: str, notation: Notation, *, formats: bool = True) -> LlguidanceCompiled:
        try:
            grammar = self._grammar(text, notation)
        except (ValueError, self.converter.GbnfToLarkError) as error:
            raise Refused(str(error)) from error
        matcher = self.matcher(self.tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise Refused(matcher.get_error())
        return LlguidanceCompiled(matcher)

    def _grammar(self, text: str, notation: Notation) -> Any:
        match notation:
            case "json schema":
                return self.matcher.grammar_from_json_schema(text, overrides=self.options)
            case "regex":
                return self.matcher.grammar_from_regex(text)
            case "lark":
                return self.matcher.grammar_from_lark(text)
            case "gbnf":
                return self.matcher.grammar_from_lark(self.converter.gbnf_to_lark(text))


@dataclass
class XgrammarGeneration:
    matcher: Any
    num_tokens: int

    def __post_init__(self) -> None:
        self.bits = np.zeros((1, (self.num_tokens + 31) // 32), dtype=np.int32)
        self.accept = self.matcher.accept_token

    def mask(self) -> bool:
        self.matcher.fill_next_token_bitmask(self.bits)
        return True

    def allows(self, token_id: int) -> bool:
        return bool(self.bits[0, token_id // 32] >> token_id % 32 & 1)

    def is_accepting(self) -> bool:
        return bool(self.matcher.is_completed())


@dataclass
class XgrammarCompiled:
    new_matcher: Callable[[Any], Any]
    grammar: Any
    num_tokens: int
    checked_afterwards = False
    num_states = size_bytes = 0

    def start(self) -> XgrammarGeneration:
        return XgrammarGeneration(self.new_matcher(self.grammar), self.num_tokens)


class Xgrammar:
    """Its warnings go nowhere: the judgements show what they are about. Needs a process of its own."""

    def __init__(self, tokens: Tokens, *, is_strict: bool) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        self.module = importlib.import_module("xgrammar")
        # A token without bytes is one that xgrammar takes for special.
        info = self.module.TokenizerInfo(
            [data or b"" for data in tokens.data], self.module.VocabType.RAW, stop_token_ids=[tokens.end]
        )
        self.num_tokens = len(tokens.data)
        self.compiler = self.module.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.is_strict = is_strict

    def compile(self, text: str, notation: Notation, *, formats: bool = True) -> XgrammarCompiled:
        try:
            grammar = self._compiled(text, notation)
        except (RuntimeError, ValueError) as error:
            raise Refused(re.sub(r"^\[[\d:]+\] \S+ ", "", str(error))) from error  # without the time of day
        return XgrammarCompiled(self.module.GrammarMatcher, grammar, self.num_tokens)

    def _compiled(self, text: str, notation: Notation) -> Any:
        match notation:
            case "json schema":
                return self.compiler.compile_json_schema(text, strict_mode=self.is_strict)
            case "regex":
                return self.compiler.compile_regex(text)
            case "lark":
                return self.compiler.compile_lark(text)
            case "gbnf":
                return self.compiler.compile_grammar(text)


NewEngine = Callable[[Tokens], Engine]

ENGINES: Mapping[str, NewEngine] = {
    "sgrun": Sgrun,
    "llguidance": functools.partial(Llguidance, is_lenient=False),
    "llguidance, lenient": functools.partial(Llguidance, is_lenient=True),
    "xgrammar": functools.partial(Xgrammar, is_strict=True),
    "xgrammar, not strict": functools.partial(Xgrammar, is_strict=False),
}


def installed(*, variants: bool = True) -> dict[str, NewEngine]:
    """The engines whose packages are here. Nothing is imported. `variants`: with other options than the defaults, which
    are all about JSON schemas, too."""
    return {
        name: new
        for name, new in ENGINES.items()
        if importlib.util.find_spec(name.split(",")[0]) and (variants or "," not in name)
    }


def versions() -> dict[str, str]:
    """Of the peers and of what the figures depend on besides sgrun."""
    peers = dict.fromkeys(name.split(",")[0] for name in installed() if name != "sgrun")
    return {name: importlib.metadata.version(name) for name in [*peers, "numpy"]}
