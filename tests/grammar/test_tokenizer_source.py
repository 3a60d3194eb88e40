from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import tokenizers
from transformers import AutoTokenizer

from sgrun.errors import InvalidParameterError, ModelNotFoundError, UnsupportedModelError
from sgrun.grammar.vocabulary import Vocabulary

TEXT = 'The quick "brown" fox\n\tsaid: naïve 日本語 𝄞 {"a": [1.5e3, null]}'


def spelled(vocabulary: Vocabulary, ids: list[int]) -> str:
    return b"".join(vocabulary.token(i) for i in ids).decode()


def test_path_and_tokenizer_of_transformers_give_the_same(sentencepiece_folder: Path) -> None:
    by_path = Vocabulary.from_tokenizer(sentencepiece_folder)
    by_file = Vocabulary.from_tokenizer(str(sentencepiece_folder / "tokenizer.json"))
    loaded = AutoTokenizer.from_pretrained(sentencepiece_folder)
    by_object = Vocabulary.from_tokenizer(loaded)
    tokens = [by_path.token(i) for i in range(by_path.size)]
    for other in (by_file, by_object):
        assert [other.token(i) for i in range(other.size)] == tokens
        assert other.end_token_ids == {2}
    assert by_path.end_token_ids == {2}
    assert tokens[:3] == [b""] * 3 and tokens[3:259] == [bytes([byte]) for byte in range(256)]
    assert spelled(by_object, loaded.encode(TEXT, add_special_tokens=False)) == " " + TEXT


def test_bare_tokenizer_names_no_end_token(tiny_model: Path) -> None:
    core = tokenizers.Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    vocabulary = Vocabulary.from_tokenizer(core)
    assert vocabulary.end_token_ids == set()
    assert spelled(vocabulary, core.encode(TEXT).ids) == TEXT
    assert Vocabulary.from_tokenizer(core, end_token_ids=[1]).end_token_ids == {1}
    assert Vocabulary.from_tokenizer(tiny_model).end_token_ids == {2}


def test_gguf_path(smollm2_gguf: Path) -> None:
    vocabulary = Vocabulary.from_tokenizer(smollm2_gguf, size=49_200)
    assert (vocabulary.size, vocabulary.end_token_ids) == (49_200, {2})
    assert vocabulary.token(2) == b"" and vocabulary.token(49_199) == b""


def test_tekken_tokens_are_the_special_ones_and_then_the_ranks(tekken_path: Path) -> None:
    vocabulary = Vocabulary.from_tokenizer(tekken_path)
    ranked = json.loads(tekken_path.read_text())["vocab"]
    assert (vocabulary.size, vocabulary.end_token_ids) == (131_072, {2})
    assert all(vocabulary.token(i) == b"" for i in range(1000))
    for rank in (0, 255, 256, 50_000, 130_071):
        assert vocabulary.token(1000 + rank) == base64.b64decode(ranked[rank]["token_bytes"])


def test_tekken_file_that_lists_its_special_tokens_names_the_end(tmp_path: Path) -> None:
    content = {
        "config": {"default_num_special_tokens": 3, "default_vocab_size": 5},
        "vocab": [{"rank": i, "token_bytes": base64.b64encode(data).decode()} for i, data in enumerate((b"a", b"b"))],
        "special_tokens": [{"rank": 0, "token_str": "<s>"}, {"rank": 1, "token_str": "</s>"}],
    }
    (tmp_path / "tekken.json").write_text(json.dumps(content))
    vocabulary = Vocabulary.from_tokenizer(tmp_path)
    assert vocabulary.end_token_ids == {1}
    assert [vocabulary.token(i) for i in range(5)] == [b"", b"", b"", b"a", b"b"]


@pytest.mark.parametrize("content", ["{", "[]", '{"config": {}}', '{"vocab": [], "config": 3}'])
def test_damaged_tekken_file_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tekken.json"
    path.write_text(content)
    with pytest.raises(UnsupportedModelError, match=r"tekken\.json is no tekken file"):
        Vocabulary.from_tokenizer(path)


def test_what_is_no_tokenizer_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="a dict; allowed: a fast tokenizer"):
        Vocabulary.from_tokenizer({})
    with pytest.raises(ModelNotFoundError, match="no tokenizer at"):
        Vocabulary.from_tokenizer(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match=r"no tokenizer\.json"):
        Vocabulary.from_tokenizer(tmp_path)


def test_size_smaller_than_the_tokenizer_is_refused(smollm2_gguf: Path) -> None:
    with pytest.raises(InvalidParameterError, match="size is 49151; allowed: at least the 49152"):
        Vocabulary.from_tokenizer(smollm2_gguf, size=49_151)
