"""Real tokenizers of three kinds, as files and as vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizer_files

from sgrun.grammar.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def tekken_path() -> Path:
    """Mistral's tokenizer of 131,072 tokens."""
    return tokenizer_files.mistral_file("tekken_240911.json")


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece BPE with byte fallback, 32,000 tokens."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    tokenizer_files.write_sentencepiece(folder)
    return folder


@pytest.fixture(scope="session")
def real_vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Vocabulary]:
    """See `tokenizer_files.real_vocabularies`."""
    return tokenizer_files.real_vocabularies(tmp_path_factory.mktemp("vocabularies"))
