from __future__ import annotations

import json
from typing import Any

import pytest

from sgrun.errors import CheckFailedError
from sgrun.lang.checks import check_text
from sgrun.types import JsonSchemaSpec

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def check(schema: dict[str, Any], text: str, **options: Any) -> None:
    check_text(JsonSchemaSpec(json.dumps(schema), strict=False, **options), text)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"contentMediaType": "application/json"}, ["[1]", "{}"], ["{:}", ""]),
        ({"contentMediaType": "application/json", "contentEncoding": "base64"}, ["e30="], ["ezp9Cg==", "{}"]),
    ],
    ids=["text", "base64"],
)
def test_json_in_strings_is_checked_in_draft_7_alone(schema: dict[str, Any], good: list[str], bad: list[str]) -> None:
    of_7 = {"$schema": DRAFT_7, "items": schema}
    check(of_7, json.dumps([*good, 5]))
    for text in bad:
        with pytest.raises(CheckFailedError, match="#/items/contentMediaType"):
            check(of_7, json.dumps([text]))
        check({"items": schema}, json.dumps([text]))
        check(of_7, json.dumps([text]), formats=False)


def test_other_media_types_say_nothing() -> None:
    check({"$schema": DRAFT_7, "contentMediaType": "text/html"}, '"<"')


def test_multiples_are_exact() -> None:
    check({"multipleOf": 0.1}, "0.3")
    with pytest.raises(CheckFailedError, match="#/multipleOf"):
        check({"multipleOf": 0.1}, "0.35")
