"""Real tokenizers of three kinds, as files."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

from sgrun.grammar.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def tekken_path() -> Path:
    """Mistral's tokenizer of 131,072 tokens, from the mistral-common package."""
    spec = find_spec("mistral_common")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "data" / "tekken_240911.json"


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BPE in SentencePiece's spelling with byte fallback, trained on this project's own sources."""
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=["<unk>", "<s>", "</s>", *alphabet], max_token_length=16, show_progress=False
    )
    sources = sorted((Path(__file__).parents[2] / "sgrun").rglob("*.py"))
    core.train_from_iterator([line for path in sources for line in path.read_text().split("\n")], trainer)
    description = json.loads(core.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["id"] < 3]  # bytes are text
    core = Tokenizer.from_str(json.dumps(description))
    core.add_special_tokens([AddedToken("</s>", normalized=False)])
    folder = tmp_path_factory.mktemp("sentencepiece")
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    return folder


@pytest.fixture(scope="session")
def real_vocabularies(smollm2_gguf: Path, tekken_path: Path, sentencepiece_folder: Path) -> dict[str, Vocabulary]:
    """Byte-level BPE of 49,152 tokens, byte-level of 131,072, and SentencePiece's spelling of some 4,000."""
    paths = {"smollm2": smollm2_gguf, "tekken": tekken_path, "sentencepiece": sentencepiece_folder}
    return {name: Vocabulary.from_tokenizer(path) for name, path in paths.items()}
