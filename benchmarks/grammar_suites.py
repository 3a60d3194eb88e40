"""Owns what a case is by which grammar engines are judged, and reads public ones: schemas with instances, as texts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

Notation = Literal["json schema", "regex", "lark", "gbnf"]
DIALECTS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}
PROPERTY_KEYWORDS = ("properties", "patternProperties", "additionalProperties")
MAX_READINGS = 12  # schemas that are asked for the order of one value's properties


@dataclass(frozen=True, slots=True)
class Instance:
    """`spellings`: texts of one instance, of which one has to be taken. Of a JSON value: compact, with its keys as they
    were given, and in the order of the schema."""

    spellings: tuple[bytes, ...]
    is_valid: bool


@dataclass(frozen=True, slots=True)
class Case:
    """`keywords`: what the constraint is about, as its source says. `text`: the constraint, in `notation`; a schema is
    JSON text. `formats`: whether its instances are judged by a reader to whom `format` is an assertion."""

    name: str
    keywords: tuple[str, ...]
    text: str
    instances: tuple[Instance, ...]
    notation: Notation = "json schema"
    formats: bool = True


def maskbench(path: Path) -> list[Case]:
    """Schemas of MaskBench (github.com/guidance-ai/jsonschemabench): a .jsonl.gz of name, schema, features, tests."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [_case(row["name"], tuple(row["features"]), row["schema"], row["tests"]) for row in rows]


def test_suite(folder: Path, draft: str) -> list[Case]:
    """The groups of one draft of the JSON-Schema-Test-Suite, the optional files included.

    The dialect is written into schemas that can hold it and do not name one. The required file `format` holds
    `format` to be an annotation where the draft does so by default, the optional files to be an assertion.
    """
    cases = []
    for file in sorted((folder / draft).rglob("*.json")):
        keyword = str(file.relative_to(folder / draft).with_suffix(""))
        for group in json.loads(file.read_text(encoding="utf-8")):
            schema = group["schema"]
            if isinstance(schema, dict) and "$schema" not in schema:
                schema = {"$schema": DIALECTS[draft], **schema}
            case = _case(f"{keyword}: {group['description']}", (keyword,), schema, group["tests"])
            cases.append(replace(case, formats=keyword != "format"))
    return cases


def _case(name: str, keywords: tuple[str, ...], schema: Any, tests: list[dict[str, Any]]) -> Case:
    instances = []
    for test in tests:
        ordered = _in_schema_order(schema, [schema], test["data"])
        spellings = dict.fromkeys([_text(test["data"]), _text(ordered)])
        instances.append(Instance(tuple(spellings), test["valid"]))
    return Case(name, keywords, json.dumps(schema), tuple(instances))


def _text(value: object) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if any("\ud800" <= character <= "\udfff" for character in text):
        return json.dumps(value, separators=(",", ":")).encode()
    return text.encode()


def _in_schema_order(root: Any, schemas: list[Any], value: Any) -> Any:
    """`value` with the keys of its objects in the order in which the schemas that apply to it name them."""
    if not isinstance(value, dict | list):
        return value
    applied = [part for schema in schemas for part in _applied(root, schema, set())]
    if isinstance(value, list):
        return [_in_schema_order(root, _item_schemas(applied, value, i)[:MAX_READINGS], x) for i, x in enumerate(value)]
    named: dict[str, list[Any]] = {}
    others: list[Any] = []
    for schema in applied:
        for literal in _literals(schema, value):
            for name, inner in literal.items():
                named.setdefault(name, []).append({"const": inner})
        for name, inner in _dict(schema, "properties").items():
            named.setdefault(name, []).append(inner)
        others += [schema.get("additionalProperties"), *_dict(schema, "patternProperties").values()]
    for schema in applied:
        for name in schema["required"] if isinstance(schema.get("required"), list) else []:
            named.setdefault(name, [])
        for keyword in ("dependencies", "dependentRequired"):
            for name, needed in _dict(schema, keyword).items():
                for other in [name, *(needed if isinstance(needed, list) else [])]:
                    named.setdefault(other, [])
    names = [*(name for name in named if name in value), *(name for name in value if name not in named)]
    return {name: _in_schema_order(root, (named.get(name, []) + others)[:MAX_READINGS], value[name]) for name in names}


def _applied(root: Any, schema: Any, seen: set[int]) -> Iterator[dict[str, Any]]:
    """Keyword by keyword, in the order of the text, what the schema applies to the same value.

    Those about properties are one: they come with the first of them.
    """
    if not isinstance(schema, dict) or id(schema) in seen:
        return
    seen.add(id(schema))
    about_properties = {keyword: schema[keyword] for keyword in PROPERTY_KEYWORDS if keyword in schema}
    for keyword, value in schema.items():
        if keyword in PROPERTY_KEYWORDS:
            yield about_properties
            about_properties = {}
            continue
        yield {keyword: value}
        if keyword == "$ref":
            yield from _applied(root, _referred(root, value), seen)
        elif keyword in ("if", "then", "else", "not"):
            yield from _applied(root, value, seen)
        elif keyword in ("allOf", "anyOf", "oneOf", "dependencies", "dependentSchemas"):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from _applied(root, inner, seen)


def _item_schemas(applied: list[dict[str, Any]], value: list[Any], index: int) -> list[Any]:
    found: list[Any] = []
    for schema in applied:
        for keyword in ("prefixItems", "items"):
            items = schema.get(keyword)
            found += items[index : index + 1] if isinstance(items, list) else [items]
        found += [{"const": literal[index]} for literal in _literals(schema, value)]
    return found


def _literals(schema: dict[str, Any], value: Any) -> list[Any]:
    """What `const` and `enum` hold of the value, which has an order of its own."""
    literals = schema["enum"] if isinstance(schema.get("enum"), list) else []
    return [literal for literal in [schema.get("const"), *literals] if literal == value]


def _referred(root: Any, reference: object) -> Any:
    """What a JSON pointer within the document leads to, or None."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _dict(schema: dict[str, Any], keyword: str) -> dict[str, Any]:
    value = schema.get(keyword)
    return value if isinstance(value, dict) else {}
