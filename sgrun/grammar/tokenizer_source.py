"""What may be given as a tokenizer, and the tokens and end tokens that it has."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol, runtime_checkable

import tokenizers

from sgrun.errors import ModelNotFoundError, UnsupportedModelError
from sgrun.grammar.tekken import read_tekken
from sgrun.grammar.token_bytes import token_bytes
from sgrun.models.tokenizer_files import read_tokenizer


@runtime_checkable
class FastTokenizer(Protocol):
    """What a fast tokenizer of transformers has."""

    @property
    def backend_tokenizer(self) -> tokenizers.Tokenizer: ...

    @property
    def eos_token_id(self) -> int | None: ...


def read_tokens(tokenizer: object) -> tuple[list[bytes | None], Collection[int]]:
    """One entry per token id (see `token_bytes`), and the ids that end a text, as far as the tokenizer says."""
    if isinstance(tokenizer, str | Path):
        return _read_path(Path(tokenizer))
    if isinstance(tokenizer, tokenizers.Tokenizer):
        return token_bytes(tokenizer), ()
    if isinstance(tokenizer, FastTokenizer):
        end = tokenizer.eos_token_id
        return token_bytes(tokenizer.backend_tokenizer), () if end is None else (end,)
    raise UnsupportedModelError(
        f"the tokenizer is a {type(tokenizer).__name__}; allowed: a fast tokenizer of transformers, "
        "a tokenizers.Tokenizer, or the path of a folder, a .gguf file or a tekken.json"
    )


def _read_path(path: Path) -> tuple[list[bytes | None], Collection[int]]:
    if not path.exists():
        raise ModelNotFoundError(f"there is no tokenizer at {path}")
    if path.is_dir() and not (path / "tokenizer.json").exists() and (path / "tekken.json").exists():
        path /= "tekken.json"
    if path.suffix == ".json" and path.name != "tokenizer.json":
        return read_tekken(path)
    files = read_tokenizer(path.parent if path.name == "tokenizer.json" else path)
    return token_bytes(files.core), files.eos_token_ids
