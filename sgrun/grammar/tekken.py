"""The vocabulary of a tekken.json, Mistral's file for its byte-level tokenizers, as the mistral-common package ships
and reads it: special tokens first, then the ranked tokens up to the declared size."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from sgrun.errors import UnsupportedModelError

_END = {"rank": 2, "token_str": "</s>"}  # where a file does not list its special tokens


def read_tekken(path: Path) -> tuple[list[bytes | None], frozenset[int]]:
    """The bytes of each token, None for special ones, and the end token. Raises UnsupportedModelError."""
    try:
        content = json.loads(path.read_bytes())
        config = content["config"]
        num_special, size = config["default_num_special_tokens"], config["default_vocab_size"]
        ranked = [base64.b64decode(token["token_bytes"]) for token in content["vocab"][: size - num_special]]
        special = content.get("special_tokens") or [_END]
        ends = frozenset(token["rank"] for token in special if token["token_str"] == _END["token_str"])
    except (ValueError, KeyError, TypeError) as error:
        raise UnsupportedModelError(f"{path} is no tekken file that can be read: {error!r}") from error
    return [None] * num_special + ranked, ends
