"""What the files of a model say about its tokenizer: a folder in Hugging Face layout, or a GGUF file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from sgrun.errors import ModelNotFoundError, UnsupportedModelError
from sgrun.models.gguf_header import read_gguf_metadata
from sgrun.models.gguf_tokenizer import build_tokenizer, gguf_token

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """`core` marks its special tokens as such. `adds_bos`: raw text begins with the begin token. `eos_token_ids`: the
    tokens that end a text. `chat_template`: Jinja source."""

    core: tokenizers.Tokenizer
    bos_token: str | None = None
    eos_token: str | None = None
    adds_bos: bool = False
    eos_token_ids: frozenset[int] = frozenset()
    chat_template: str | None = None


def read_tokenizer(path: Path) -> TokenizerFiles:
    """Reads the tokenizer of the model at `path`.

    Raises ModelNotFoundError if its files are missing, UnsupportedModelError if they are of an unknown kind or
    cannot be parsed, WeightsError for a damaged GGUF file.
    """
    return _read_folder(path) if path.is_dir() else _read_gguf(path)


def _read_gguf(path: Path) -> TokenizerFiles:
    metadata = read_gguf_metadata(path)
    core = build_tokenizer(metadata)
    ends = [gguf_token(metadata, key) for key in ("eos_token_id", "eot_token_id", "eom_token_id")]
    template = metadata.get("tokenizer.chat_template")
    bos_token = gguf_token(metadata, "bos_token_id")
    return TokenizerFiles(
        core=core,
        bos_token=bos_token,
        eos_token=ends[0],
        adds_bos=_post_processor_adds(core, bos_token),
        eos_token_ids=_ids(core, ends),
        chat_template=template if isinstance(template, str) else None,
    )


def _read_folder(folder: Path) -> TokenizerFiles:
    core = _read_core(folder / "tokenizer.json")
    config = _read_json(folder / "special_tokens_map.json") | _read_json(folder / "tokenizer_config.json")
    _add_declared_tokens(core, config.get("added_tokens_decoder", {}))
    named = {name: _content(config[name]) for name in _NAMED if config.get(name)}
    listed = [_content(token) for token in config.get("additional_special_tokens") or []]
    _mark_special(core, [*named.values(), *listed])
    bos_token, eos_token = _known(core, named.get("bos_token")), _known(core, named.get("eos_token"))
    adds_bos = config.get("add_bos_token")
    if not isinstance(adds_bos, bool):
        adds_bos = _post_processor_adds(core, bos_token)
    return TokenizerFiles(
        core=core,
        bos_token=bos_token,
        eos_token=eos_token,
        adds_bos=adds_bos and bos_token is not None,
        eos_token_ids=_ids(core, [eos_token]) | _configured_eos_ids(folder),
        chat_template=_chat_template(folder, config.get("chat_template")),
    )


def _read_core(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise ModelNotFoundError(
            f"{path.parent} has no tokenizer.json; save the tokenizer there with transformers"
            " (AutoTokenizer.from_pretrained(name).save_pretrained(folder)), or use a .gguf file of the model"
        )
    text = _read_text(path)
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise UnsupportedModelError(f"{path} is not a tokenizer that can be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    """The object in an optional file, empty if there is none."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read_text(path))
    except ValueError as error:
        raise UnsupportedModelError(f"{path} is not JSON: {error}; fetch the model again") from error
    if not isinstance(value, dict):
        raise UnsupportedModelError(f"{path} holds {type(value).__name__}; allowed: a JSON object")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnsupportedModelError(f"{path} is not UTF-8: {error}; fetch the model again") from error


def _content(token: object) -> str:
    """A special token is given as its text or as an object with the text under "content"."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise UnsupportedModelError(f"the tokenizer's configuration names a special token {token!r}; allowed: a string")
    return text


def _add_declared_tokens(core: tokenizers.Tokenizer, declared: dict[str, Any]) -> None:
    """tokenizer_config.json may add tokens that tokenizer.json does not have, or change their flags."""
    for token_id, token in sorted(declared.items(), key=lambda item: int(item[0])):
        flags = {name: bool(token.get(name)) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        content = _content(token)
        core.add_tokens([AddedToken(content, **flags)])
        if core.token_to_id(content) != int(token_id):
            raise UnsupportedModelError(
                f"tokenizer_config.json gives {content!r} the id {token_id}, tokenizer.json the id"
                f" {core.token_to_id(content)}; the files do not belong together"
            )


def _mark_special(core: tokenizers.Tokenizer, tokens: list[str]) -> None:
    """Marks tokens of the vocabulary special. Those that are not in it (padding, often) the model cannot have."""
    already = {token.content for token in core.get_added_tokens_decoder().values() if token.special}
    core.add_special_tokens([token for token in tokens if token not in already and _known(core, token)])


def _known(core: tokenizers.Tokenizer, token: str | None) -> str | None:
    return token if token is not None and core.token_to_id(token) is not None else None


def _post_processor_adds(core: tokenizers.Tokenizer, bos_token: str | None) -> bool:
    return bos_token is not None and core.encode("").ids[:1] == [core.token_to_id(bos_token)]


def _ids(core: tokenizers.Tokenizer, tokens: list[str | None]) -> frozenset[int]:
    ids = [core.token_to_id(token) for token in tokens if token is not None]
    return frozenset(token_id for token_id in ids if token_id is not None)


def _configured_eos_ids(folder: Path) -> frozenset[int]:
    """From generation_config.json or, in folders without one, config.json, as transformers does."""
    name = "generation_config.json" if (folder / "generation_config.json").is_file() else "config.json"
    value = _read_json(folder / name).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token_id, int) for token_id in ids):
        raise UnsupportedModelError(f"eos_token_id in {folder / name} is {value!r}; allowed: an id or a list of ids")
    return frozenset(ids)


def _chat_template(folder: Path, configured: object) -> str | None:
    """chat_template.jinja, or the configured template; of several named ones, "default"."""
    if (folder / "chat_template.jinja").is_file():
        return _read_text(folder / "chat_template.jinja")
    if isinstance(configured, list):
        configured = {entry["name"]: entry["template"] for entry in configured}.get("default")
    return configured if isinstance(configured, str) else None
