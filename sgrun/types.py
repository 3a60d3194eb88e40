"""The values that cross the border between programs and the engine. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sgrun.errors import InvalidParameterError

FinishReason = Literal["stop", "length"]
Whitespace = Literal["compact", "space", "free"]
PropertyOrder = Literal["schema", "sorted", "any"]

MAX_STOP_STRINGS = 32
MAX_STOP_TOKEN_IDS = 24
MAX_TOP_LOGPROBS = 128
MAX_N = 1024


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of constant text. `special`: the text of special tokens in it stands for those tokens
    (chat template markers, raw prompts); otherwise it is spelled out as ordinary text. `template`: the piece comes
    from a chat template, which spells its own begin-of-sequence token; raw text at the start of a sequence gets it."""

    text: str
    special: bool = False
    template: bool = False


@dataclass(frozen=True, slots=True)
class RegexSpec:
    """The whole output matches `pattern` (Python `re` syntax, full match)."""

    pattern: str

    def __post_init__(self) -> None:
        _text("pattern", self.pattern)


@dataclass(frozen=True, slots=True)
class JsonSchemaSpec:
    """The whole output is a JSON text valid under `schema` (the schema as JSON text).

    `whitespace` between its tokens: "compact" none, "space" at most one after comma and colon, "free" any. `strict`:
    keywords that the automaton cannot enforce are refused; otherwise its `checked_afterwards` lists them, and checking
    the finished text is the caller's. `open_objects`: an object whose schema lists properties and says nothing of
    others may have others, as the standard has it; False: they are not generated. `formats`: `format` constrains, and
    in draft 7 `contentEncoding` and `contentMediaType`; False: they are annotations, which is the standard's default.
    `property_order` of the names that a schema lists: "schema" as there, "sorted" by code point, "any" for objects
    of at most six, among which others may come too. `plain_integers`: integers are digits only, never `1.0` or `1e2`.
    """

    schema: str
    whitespace: Whitespace = "space"
    strict: bool = True
    open_objects: bool = True
    formats: bool = True
    property_order: PropertyOrder = "schema"
    plain_integers: bool = False

    def __post_init__(self) -> None:
        _text("schema", self.schema)
        for name, allowed in (("whitespace", Whitespace), ("property_order", PropertyOrder)):
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise InvalidParameterError(f"{name} is {value!r}; allowed: {', '.join(map(repr, get_args(allowed)))}")
        for name in ("strict", "open_objects", "formats", "plain_integers"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise InvalidParameterError(f"{name} is {value!r}; allowed: True and False")


@dataclass(frozen=True, slots=True)
class LarkSpec:
    """The whole output is a text of the rule `start` of a grammar in Lark's notation."""

    grammar: str
    start: str = "start"

    def __post_init__(self) -> None:
        _text("grammar", self.grammar)
        _text("start", self.start)


@dataclass(frozen=True, slots=True)
class GbnfSpec:
    """The whole output is a text of the rule `root` of a grammar in GBNF, the notation of llama.cpp."""

    grammar: str

    def __post_init__(self) -> None:
        _text("grammar", self.grammar)


@dataclass(frozen=True, slots=True)
class ChoicesSpec:
    """The whole output is one of `choices`."""

    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        _tuple("choices", self.choices, str, "strings")


@dataclass(frozen=True, slots=True)
class DfaSpec:
    """The whole output is accepted by a ready-made deterministic automaton over bytes.

    `transitions[state][byte_classes[byte]]` is the next state; 0 is the dead state, 1 the start. `accepting`: states.
    Nothing but 0 should be a dead end: within a SequenceSpec, a byte that leads to another is taken for a way on.
    """

    byte_classes: tuple[int, ...]  # 256
    transitions: tuple[tuple[int, ...], ...]  # [num_states][num_classes]
    accepting: tuple[int, ...]

    def __post_init__(self) -> None:
        num_states, num_classes = len(self.transitions), max(self.byte_classes, default=0) + 1
        is_total = len(self.byte_classes) == 256 and set(self.byte_classes) <= set(range(256))
        if not is_total or num_states < 2 or {len(row) for row in self.transitions} != {num_classes}:
            raise InvalidParameterError(
                f"the tables have {len(self.byte_classes)} bytes, {num_classes} classes and {num_states} states; "
                "allowed: 256 bytes, classes from 0 to 255, at least 2 states, an entry for each class in each row"
            )
        states = {state for row in (*self.transitions, self.accepting) for state in row}
        if not states <= set(range(num_states)) or any(self.transitions[0]) or 0 in self.accepting:
            raise InvalidParameterError(f"a state is outside of 0 to {num_states - 1}, or the dead state 0 is left")


@dataclass(frozen=True, slots=True)
class Part:
    """A named piece of a SequenceSpec; its text can be found again afterwards."""

    name: str
    spec: GrammarSpec

    def __post_init__(self) -> None:
        _text("name", self.name)
        check_spec("spec", self.spec)


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """The whole output is one part after the other: constant texts and constrained pieces."""

    parts: tuple[str | Part, ...]

    def __post_init__(self) -> None:
        _tuple("parts", self.parts, (str, Part), "strings and Parts")


@dataclass(frozen=True, slots=True)
class Trigger:
    """After `begin` comes a text of `spec`, then `end`."""

    begin: str
    spec: GrammarSpec
    end: str = ""

    def __post_init__(self) -> None:
        _text("begin", self.begin)
        check_spec("spec", self.spec)
        _text("end", self.end)


@dataclass(frozen=True, slots=True)
class TriggeredSpec:
    """Free text in which each `begin` of a trigger binds what comes after it."""

    triggers: tuple[Trigger, ...]

    def __post_init__(self) -> None:
        _tuple("triggers", self.triggers, Trigger, "Triggers")


GrammarSpec = RegexSpec | JsonSchemaSpec | LarkSpec | GbnfSpec | ChoicesSpec | DfaSpec | SequenceSpec | TriggeredSpec


def check_spec(name: str, value: object) -> None:
    """Raises InvalidParameterError if the argument of this name is no GrammarSpec."""
    if not isinstance(value, GrammarSpec):
        allowed = ", ".join(spec.__name__ for spec in get_args(GrammarSpec))
        raise InvalidParameterError(f"{name} is {value!r}; allowed: a value of {allowed}")


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidParameterError(f"{name} is {value!r}; allowed: a string")


def _tuple(name: str, value: object, kind: type | tuple[type, ...], allowed: str) -> None:
    if not isinstance(value, tuple):
        raise InvalidParameterError(f"{name} is {value!r}; allowed: a tuple of {allowed}")
    for item in value:
        if not isinstance(item, kind):
            raise InvalidParameterError(f"{name} holds {item!r}; allowed: {allowed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one generation samples and when it ends. Checked on construction.

    Order of effects: penalties and bias, grammar bitmask, temperature, top_k, top_p, min_p, draw.
    `temperature` 0 (or below 1e-5) is greedy; ties go to the lowest token id. `top_k` -1 is off.
    `seed` None: the engine picks one. `stop`: the text is cut before the earliest match.
    Raises InvalidParameterError.
    """

    max_tokens: int = 128
    min_tokens: int = 0
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    top_logprobs: int = 0

    @property
    def is_greedy(self) -> bool:
        return self.temperature < 1e-5

    @property
    def is_adjusted(self) -> bool:
        """Whether penalties or bias change the logits."""
        penalties = self.frequency_penalty or self.presence_penalty or self.repetition_penalty != 1.0
        return bool(penalties or self.logit_bias)

    def __post_init__(self) -> None:
        _int("max_tokens", self.max_tokens, 1, 2**31 - 1)
        _int("min_tokens", self.min_tokens, 0, self.max_tokens)
        _int("n", self.n, 1, MAX_N)
        _number("temperature", self.temperature, 0.0, 100.0)
        _number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _int("top_k", self.top_k, -1, 2**31 - 1)
        if self.top_k == 0:
            raise InvalidParameterError("top_k is 0; allowed: -1 (off) or at least 1")
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 0.0, 2.0, open_low=True)
        if self.seed is not None:
            _int("seed", self.seed, 0, 2**64 - 1)
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidParameterError(f"stop has {len(self.stop)} strings; allowed: at most {MAX_STOP_STRINGS}")
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise InvalidParameterError(f"stop holds {text!r}; allowed: non-empty strings")
        if len(self.stop_token_ids) > MAX_STOP_TOKEN_IDS:
            num_ids = len(self.stop_token_ids)
            raise InvalidParameterError(f"stop_token_ids has {num_ids} ids; allowed: at most {MAX_STOP_TOKEN_IDS}")
        for token_id in self.stop_token_ids:
            _int("stop_token_ids", token_id, 0, 2**31 - 1)
        for token_id, bias in self.logit_bias.items():
            _int("logit_bias key", token_id, 0, 2**31 - 1)
            _number(f"logit_bias[{token_id}]", bias, -100.0, 100.0)
        _int("top_logprobs", self.top_logprobs, 0, MAX_TOP_LOGPROBS)
        if self.top_logprobs and not self.logprobs:
            raise InvalidParameterError(f"top_logprobs is {self.top_logprobs} but logprobs is False; set logprobs=True")


def _int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidParameterError(f"{name} is {value!r}; allowed: an integer from {low} to {high}")


def _number(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> None:
    is_allowed = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_allowed and low <= value <= high) or (open_low and value == low):
        bound = f"above {low}" if open_low else f"from {low}"
        raise InvalidParameterError(f"{name} is {value!r}; allowed: a number {bound} to {high}")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability (natural log) of one token under the model's own distribution, before penalties, constraint and
    temperature; `top` holds the most likely alternatives, best first, when asked for."""

    token_id: int
    text: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a running generation: text that no later token can change or cut. `index` is the sample (0 to n-1)."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    index: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample. `token_ids` are those that stay in the sequence: neither the end token nor a cut stop string.
    `stop_reason`: the stop string or stop token id that ended it; None when a constraint or max_tokens did."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | int | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    completion_tokens: int = 0  # sampled tokens, those cut off again included


@dataclass(frozen=True, slots=True)
class OpStats:
    """What one generate or score cost. `prompt_tokens` = tokens before it; `cached_tokens` of them were in the cache;
    `computed_tokens` went through the model to start it. Times in seconds."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """`completions` has n items; the first one is what the sequence goes on with."""

    completions: tuple[Completion, ...]
    stats: OpStats


@dataclass(frozen=True, slots=True)
class ChoiceScore:
    """Per-token log-probabilities of one choice after the sequence. `unconditional_logprobs`: the same tokens with
    nothing before them (the first is 0.0 by definition), when asked for."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    unconditional_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoreResult:
    choices: tuple[ChoiceScore, ...]
    stats: OpStats
    decision: int | None = None  # index of the choice that the sequence goes on with


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A model's chat template (Jinja source) and the special tokens that it may name."""

    template: str
    bos_token: str = ""
    eos_token: str = ""
