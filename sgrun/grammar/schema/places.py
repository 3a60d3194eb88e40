"""Owns where things are in a schema document: places by JSON pointer, `$id`, anchors, and what references lead to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from sgrun.errors import InvalidGrammarError, UnsupportedGrammarError
from sgrun.grammar.limits import Budget

DRAFTS = {
    "draft-04": 4,
    "draft-05": 6,
    "draft-06": 6,
    "draft-07": 7,
    "draft/2019-09": 2019,
    "draft/2020-12": 2020,
}
_SCHEMA = frozenset(["additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items"]) | {
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
}
_SCHEMA_LISTS = frozenset(["allOf", "anyOf", "items", "oneOf", "prefixItems"])
_SCHEMA_MAPS = frozenset(
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"]
)

Scope = tuple[tuple[str, str], ...]  # dynamic anchors in force: name and pointer of the outermost schema that has it


@dataclass(frozen=True, slots=True)
class Place:
    """A schema in the document: its JSON pointer, the base URI around it, and the dynamic anchors in force."""

    pointer: str
    base: str
    scope: Scope = ()

    def __str__(self) -> str:
        return f"#{self.pointer}"

    def at(self, *names: str | int) -> Place:
        pointer = self.pointer
        for name in names:
            pointer += "/" + str(name).replace("~", "~0").replace("/", "~1")
        return Place(pointer, self.base, self.scope)


class Document:
    """A schema document and its index of identifiers. Nothing outside of it is ever fetched."""

    def __init__(self, root: object, budget: Budget) -> None:
        self.root = root
        self._budget = budget
        self.draft = _draft(root["$schema"], "#") if isinstance(root, dict) and "$schema" in root else 2020
        self._resources: dict[str, str] = {"": ""}  # URI -> pointer
        self._bases: dict[str, str] = {"": ""}  # pointer of a resource -> URI
        self._anchors: dict[tuple[str, str], str] = {}  # (URI, name) -> pointer
        self._dynamic: dict[str, list[tuple[str, str]]] = {}  # URI -> (name, pointer)
        self._index(root, "", "", 0)

    def value(self, pointer: str) -> Any:
        """What lies at a JSON pointer (RFC 6901). Raises InvalidGrammarError if there is nothing."""
        found: Any = self.root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise InvalidGrammarError(f"there is no {shown(pointer)} in the schema")
        return found

    def entered(self, place: Place) -> Place:
        """The place as seen from inside: with its own base, and its resource's dynamic anchors in force."""
        base = self._bases.get(place.pointer, place.base)
        scope = dict(place.scope)
        if base != place.base or not place.scope:
            for name, pointer in self._dynamic.get(base, []):
                scope.setdefault(name, pointer)
        return Place(place.pointer, base, tuple(sorted(scope.items())))

    def refer(self, ref: object, place: Place, keyword: str, *, is_dynamic: bool = False) -> Place:
        """Where a reference found at `place` leads. Raises InvalidGrammarError, UnsupportedGrammarError."""
        where = f"#{place.pointer}/{keyword}"
        if not isinstance(ref, str):
            raise InvalidGrammarError(f"{where} is {shown(ref)}; allowed: a string")
        uri, fragment = _resolved(place.base, ref, where)
        if uri not in self._resources:
            raise UnsupportedGrammarError(
                f"{where}: the reference {shown(ref)} leads out of the schema; "
                "nothing is fetched, so include what it names"
            )
        resource = self._resources[uri]
        fragment = unquote(fragment)
        if not fragment or fragment.startswith("/"):
            pointer, base = resource + fragment, uri
            for prefix, inner in self._bases.items():  # an $id on the way changes the base
                if prefix and pointer.startswith(prefix + "/") and len(prefix) > len(resource):
                    base = inner
            try:
                self.value(pointer)
            except InvalidGrammarError as error:
                raise InvalidGrammarError(f"{where}: the reference {shown(ref)} leads nowhere: {error}") from error
            return self.entered(Place(pointer, base, place.scope))
        pointer = self._anchors.get((uri, fragment), "")
        if not pointer and (uri, fragment) not in self._anchors:
            raise InvalidGrammarError(
                f"{where}: the reference {shown(ref)} leads nowhere: there is no anchor {shown(fragment)}"
            )
        target = Place(pointer, uri, place.scope)
        is_bookend = any(name == fragment and place_ == pointer for name, place_ in self._dynamic.get(uri, []))
        if is_dynamic and is_bookend:
            outermost = dict(place.scope).get(fragment)
            if outermost is not None:
                target = Place(outermost, self._base_of(outermost), place.scope)
        return self.entered(target)

    def recursive(self, place: Place) -> Place:
        """Where `$recursiveRef: "#"` leads: the outermost resource with `$recursiveAnchor`, if this one has it."""
        own = self._resources[place.base]
        root = self.value(own)
        is_open = isinstance(root, dict) and root.get("$recursiveAnchor") is True
        pointer = dict(place.scope).get("", own) if is_open else own
        return self.entered(Place(pointer, self._base_of(pointer), place.scope))

    def _base_of(self, pointer: str) -> str:
        base, length = "", -1
        for prefix, uri in self._bases.items():
            if (pointer == prefix or pointer.startswith(prefix + "/")) and len(prefix) > length:
                base, length = uri, len(prefix)
        return base

    def _index(self, schema: object, pointer: str, base: str, depth: int) -> None:
        self._budget.check("max_nesting", depth)
        if not isinstance(schema, dict):
            return
        own = schema.get("id" if self.draft == 4 else "$id")
        has_only_ref = "$ref" in schema and self.draft <= 7
        if isinstance(own, str) and not has_only_ref:
            if "$schema" in schema and _draft(schema["$schema"], f"#{pointer}") != self.draft:
                raise UnsupportedGrammarError(
                    f"#{pointer}/$schema: {shown(schema['$schema'])} is another draft than the whole schema; use one"
                )
            uri, fragment = _resolved(base, own, f"#{pointer}")
            if fragment and self.draft <= 7:
                self._anchors[base, fragment] = pointer
            elif uri != base or pointer == "":
                base = uri
                self._resources.setdefault(base, pointer)
                self._bases[pointer] = base
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(keyword), str):
                self._anchors[base, schema[keyword]] = pointer
        if isinstance(schema.get("$dynamicAnchor"), str):
            self._dynamic.setdefault(base, []).append((schema["$dynamicAnchor"], pointer))
        if schema.get("$recursiveAnchor") is True:
            self._dynamic.setdefault(base, []).append(("", pointer))
        for name, inner in inner_schemas(schema):
            self._index(inner, f"{pointer}/{name}", base, depth + 1)


def shown(value: object) -> str:
    """The value for a message, in at most 80 characters."""
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _draft(dialect: object, where: str) -> int:
    """The draft that `$schema` names. A dialect of one's own may mean anything by a keyword, so it is refused."""
    if not isinstance(dialect, str):
        raise InvalidGrammarError(f"{where}/$schema is {shown(dialect)}; allowed: a string")
    name = dialect.removesuffix("#").removeprefix("http://").removeprefix("https://")
    name = name.removeprefix("json-schema.org/").removesuffix("/schema").removesuffix("/hyper-schema")
    if name not in DRAFTS:
        raise UnsupportedGrammarError(
            f"{where}/$schema: the dialect {shown(dialect)} is not known; "
            "allowed: http://json-schema.org/draft-07/schema#, "
            f"https://json-schema.org/draft/2020-12/schema and the like of {', '.join(DRAFTS)}; or leave it out"
        )
    return DRAFTS[name]


def _resolved(base: str, ref: str, where: str) -> tuple[str, str]:
    """The absolute URI and the fragment that a reference means (RFC 3986, section 5)."""
    try:
        uri, fragment = urldefrag(base + ref if ref.startswith("#") else urljoin(base, ref))
    except ValueError as error:
        raise InvalidGrammarError(f"{where}: {shown(ref)} is no URI reference: {error}") from error
    return uri, fragment


def inner_schemas(schema: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """The schemas directly inside, with their pointers from here."""
    for keyword, value in schema.items():
        if keyword in _SCHEMA and isinstance(value, (dict, bool)):
            yield keyword, value
        elif keyword in _SCHEMA_LISTS and isinstance(value, list):
            for number, inner in enumerate(value):
                yield f"{keyword}/{number}", inner
        elif keyword in _SCHEMA_MAPS and isinstance(value, dict):
            for name, inner in value.items():
                yield f"{keyword}/{name.replace('~', '~0').replace('/', '~1')}", inner
