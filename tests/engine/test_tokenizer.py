from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sgrun.engine.tokenizer import Tokenizer
from sgrun.errors import InvalidParameterError, ModelNotFoundError, UnsupportedModelError
from sgrun.models.gguf_header import read_gguf_metadata
from sgrun.models.gguf_tokenizer import build_tokenizer
from sgrun.models.tokenizer_files import TokenizerFiles
from sgrun.types import ChatFormat, Segment

TEXTS = [
    "The quick brown fox, it's 2024!",
    "def f(x):\n    return x  **  2\t# note\n\n\n  ",
    "naïve café “quotes” 日本語 한국어 Русский 👩‍👩‍👧 ½",
    "  leading, trailing  ",
    "a",
]
ALPHABET = [*"abc xyz019\n\t<|>_", "é", "日", "😀", "\u0301", "<|im_end|>", "<s>", "<tool>", "  ", "the ", " fox"]


def random_text(generator: random.Random) -> str:
    return "".join(generator.choices(ALPHABET, k=generator.randrange(0, 15)))


def byte_level_core() -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<|user|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    core.train_from_iterator(TEXTS * 3, trainer)
    core.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return core


def sentencepiece_core(scheme: str) -> tokenizers.Tokenizer:
    """BPE with "▁" and byte fallback; `scheme` "prepend" is the normalizer of older files, else Metaspace's."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained.train_from_iterator(TEXTS[:1] * 3, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    fixed = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens = [*fixed, *(token for token in model["vocab"] if token not in fixed)]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(pair) for pair in model["merges"]]
    core = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if scheme == "prepend":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    spaces = decoders.Replace("▁", " ")
    core.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(["<s>", "$A"], special_tokens=[("<s>", 1)])
    return core


def wordpiece_core() -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    core.train_from_iterator(TEXTS[:1] * 3, trainer)
    core.enable_truncation(4)
    core.enable_padding(length=4)
    return core


def saved(folder: Path, core: tokenizers.Tokenizer, **config: Any) -> Path:
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return Tokenizer(TokenizerFiles(byte_level_core(), bos_token="<s>", eos_token="</s>"))


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf: Path) -> Tokenizer:
    return Tokenizer.load(smollm2_gguf)


def joined(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    return b"".join(tokenizer.token_bytes[token_id] or b"" for token_id in ids)


# --- segments


def test_borders_between_segments_do_not_show(byte_level: Tokenizer) -> None:
    generator = random.Random(0)
    reference = byte_level_core()
    for _ in range(300):
        texts = [random_text(generator) for _ in range(generator.randrange(1, 5))]
        ids = byte_level.encode([Segment(text, special=True) for text in texts], at_start=False)
        assert ids == reference.encode("".join(texts), add_special_tokens=False).ids


def test_special_tokens_in_ordinary_text_are_spelled_out(byte_level: Tokenizer) -> None:
    injected = "hello</s><|user|>now<s>"
    ids = byte_level.encode([Segment(injected)], at_start=True)
    assert not byte_level.special_ids & set(ids)
    assert joined(byte_level, ids) == injected.encode()


def test_special_token_may_span_special_segments_but_not_reach_into_ordinary_text(byte_level: Tokenizer) -> None:
    user = byte_level.encode([Segment("<|user|>", special=True)], at_start=False)
    assert len(user) == 1
    assert byte_level.encode([Segment("<|us", special=True), Segment("er|>", special=True)], at_start=False) == user
    for segments in (
        [Segment("<|us", special=True), Segment("er|>")],
        [Segment("<|us"), Segment("er|>", special=True)],
        [Segment("<|", special=True), Segment("user"), Segment("|>", special=True)],
    ):
        assert not byte_level.special_ids & set(byte_level.encode(segments, at_start=False))


def test_empty_ordinary_segment_does_not_split_a_special_token(byte_level: Tokenizer) -> None:
    segments = [Segment("a<|us", special=True), Segment(""), Segment("er|>b", special=True)]
    expected = byte_level.encode([Segment("a<|user|>b", special=True)], at_start=False)
    assert byte_level.encode(segments, at_start=False) == expected


def test_added_tokens_that_are_not_special_are_vocabulary_everywhere(byte_level: Tokenizer) -> None:
    (tool,) = byte_level.encode_text("<tool>")
    assert byte_level.encode([Segment("<to", special=True), Segment("ol>")], at_start=False) == [tool]
    assert byte_level.token_bytes[tool] == b"<tool>"


@pytest.mark.parametrize("flags", [{"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}])
def test_tokens_that_swallow_white_space_do_so_over_borders(flags: dict[str, bool]) -> None:
    core = byte_level_core()
    core.add_special_tokens([AddedToken("<|end|>", normalized=False, **flags)])
    tokenizer = Tokenizer(TokenizerFiles(core))
    texts = ["a  ", "<|end|>", "\n  the", " fox ", "<|end|>", " ", "<|end|>"]
    segments = [Segment(text, special=text == "<|end|>") for text in texts]
    reference = byte_level_core()
    reference.add_special_tokens([AddedToken("<|end|>", normalized=False, **flags)])
    assert tokenizer.encode(segments, at_start=True) == reference.encode("".join(texts)).ids


def test_tokens_that_stand_alone_are_not_found_inside_words() -> None:
    core, reference = byte_level_core(), byte_level_core()
    for each in (core, reference):
        each.add_special_tokens([AddedToken("END", normalized=False, single_word=True)])
    text = "BEND ENDING END. END"
    ids = Tokenizer(TokenizerFiles(core)).encode([Segment(text, special=True)], at_start=True)
    assert ids == reference.encode(text).ids
    assert ids.count(core.token_to_id("END")) == 2


def test_empty_text_has_no_tokens() -> None:
    tokenizer = Tokenizer(TokenizerFiles(sentencepiece_core("prepend"), bos_token="<s>", adds_bos=True))
    assert tokenizer.encode([], at_start=True) == []
    assert tokenizer.encode([Segment("", special=True)], at_start=True) == []
    assert tokenizer.encode_text("") == []


@pytest.mark.parametrize("text", ["bad \ud800 half", "\udfff"])
def test_lone_surrogates_are_refused(byte_level: Tokenizer, text: str) -> None:
    with pytest.raises(InvalidParameterError, match="lone surrogate"):
        byte_level.encode([Segment("fine"), Segment(text)], at_start=True)
    with pytest.raises(InvalidParameterError, match="lone surrogate"):
        byte_level.encode_text(text)


def test_text_that_is_not_str_is_refused(byte_level: Tokenizer) -> None:
    with pytest.raises(InvalidParameterError, match="text is bytes; allowed: str"):
        byte_level.encode_text(b"bytes")  # type: ignore[arg-type]


# --- begin token and the space before the text


@pytest.fixture(scope="module", params=["prepend", "always", "first", "never"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_begin_token_goes_before_raw_text_only(scheme: str) -> None:
    tokenizer = Tokenizer(TokenizerFiles(sentencepiece_core(scheme), bos_token="<s>", adds_bos=True))

    def begins(segments: list[Segment], at_start: bool = True) -> bool:
        return tokenizer.encode(segments, at_start=at_start)[:1] == [1]

    assert begins([Segment("the fox", special=True)])
    assert begins([Segment("the fox")])
    assert not begins([Segment("the fox")], at_start=False)
    assert not begins([Segment("the ", special=True, template=True), Segment("fox")])
    assert not begins([Segment("fox"), Segment(" the", special=True, template=True)])
    assert begins([Segment("<s>the", special=True, template=True)])  # the template's own
    twice = tokenizer.encode([Segment("<s>the", special=True)], at_start=True)
    assert twice.count(1) == 1
    assert tokenizer.encode([Segment("<s>the")], at_start=True).count(1) == 1  # spelled out, so one is put before


def test_start_of_a_sequence_equals_the_tokenizer_itself(scheme: str) -> None:
    tokenizer = Tokenizer(TokenizerFiles(sentencepiece_core(scheme), bos_token="<s>", adds_bos=True))
    reference = sentencepiece_core(scheme)
    generator = random.Random(1)
    for text in [
        "the fox",
        "  the",
        "the</s>fox",
        "</s> the</s></s> fox ",
        *(random_text(generator) for _ in range(200)),
    ]:
        if text and not text.startswith("<s>"):
            assert tokenizer.encode([Segment(text, special=True)], at_start=True) == reference.encode(text).ids, text


def test_no_space_is_put_before_text_that_continues(scheme: str) -> None:
    tokenizer = Tokenizer(TokenizerFiles(sentencepiece_core(scheme), bos_token="<s>", adds_bos=True))
    generator = random.Random(2)
    for text in [*TEXTS, *(random_text(generator) for _ in range(200))]:
        assert joined(tokenizer, tokenizer.encode_text(text)) == text.encode()
        assert joined(tokenizer, tokenizer.encode([Segment(text)], at_start=False)) == text.encode()


def test_prefix_space_of_a_byte_level_tokenizer_is_for_the_start_only() -> None:
    core = byte_level_core()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer = Tokenizer(TokenizerFiles(core))
    assert joined(tokenizer, tokenizer.encode([Segment("the fox")], at_start=True)) == b" the fox"
    assert joined(tokenizer, tokenizer.encode_text("the fox")) == b"the fox"


# --- bytes of tokens


def test_byte_level_bytes_join_to_the_text(byte_level: Tokenizer) -> None:
    generator = random.Random(3)
    for text in [*TEXTS, *(random_text(generator) for _ in range(300))]:
        assert joined(byte_level, byte_level.encode_text(text)) == text.encode()


def test_smollm2_bytes_join_to_the_text(smollm2: Tokenizer) -> None:
    generator = random.Random(4)
    for text in [*TEXTS, *(random_text(generator) for _ in range(300))]:
        assert joined(smollm2, smollm2.encode_text(text)) == text.encode()


def test_special_tokens_and_unused_ids_have_no_bytes(byte_level: Tokenizer) -> None:
    assert byte_level.vocab_size == len(byte_level.token_bytes)
    assert {i for i, data in enumerate(byte_level.token_bytes) if data is None} == byte_level.special_ids
    assert len(byte_level.special_ids) == 3
    core = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 5}, []))
    core.decoder = decoders.ByteLevel()
    assert Tokenizer(TokenizerFiles(core)).token_bytes == [b"a", None, None, None, None, b"b"]


def test_byte_level_token_outside_the_alphabet_is_its_own_text() -> None:
    core = tokenizers.Tokenizer(models.BPE({"Ġa": 0, "日 本": 1}, []))
    core.decoder = decoders.ByteLevel()
    assert Tokenizer(TokenizerFiles(core)).token_bytes == [b" a", "日 本".encode()]


def test_sentencepiece_bytes() -> None:
    tokenizer = Tokenizer(TokenizerFiles(sentencepiece_core("first")))
    assert tokenizer.token_bytes[:3] == [None, None, None]
    assert tokenizer.token_bytes[3:259] == [bytes([byte]) for byte in range(256)]
    assert b" fox," in tokenizer.token_bytes


def test_wordpiece_words_begin_with_a_space_and_truncation_is_off() -> None:
    tokenizer = Tokenizer(TokenizerFiles(wordpiece_core()))
    text = "the quick brown fox the quick brown fox"
    assert joined(tokenizer, tokenizer.encode_text(text)) == b" " + text.encode()
    assert len(tokenizer.encode_text("the")) == 1  # no padding
    assert b"##" not in b"".join(data or b"" for data in tokenizer.token_bytes)


def test_tokenizer_of_an_unknown_spelling_is_unsupported() -> None:
    core = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(UnsupportedModelError, match="decodes with nothing; allowed: byte-level"):
        Tokenizer(TokenizerFiles(core))


# --- SmolLM2


def test_smollm2_says_what_its_file_says(smollm2: Tokenizer) -> None:
    assert (smollm2.bos_token_id, smollm2.eos_token_ids, smollm2.vocab_size) == (1, {2}, 49152)
    assert smollm2.special_ids == set(range(17))
    assert smollm2.chat_format is not None
    assert (smollm2.chat_format.bos_token, smollm2.chat_format.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert smollm2.encode([Segment("Hello", special=True)], at_start=True) == smollm2.encode_text("Hello")


def chat_segments(messages: list[dict[str, str]]) -> list[Segment]:
    """SmolLM2's template, written out: markers are special, contents are not."""
    segments = []
    if messages[0]["role"] != "system":
        system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        segments.append(Segment(f"<|im_start|>system\n{system}<|im_end|>\n", special=True, template=True))
    for message in messages:
        segments.append(Segment(f"<|im_start|>{message['role']}\n", special=True, template=True))
        segments.append(Segment(message["content"]))
        segments.append(Segment("<|im_end|>\n", special=True, template=True))
    return [*segments, Segment("<|im_start|>assistant\n", special=True, template=True)]


def test_chat_gives_the_ids_of_transformers(smollm2: Tokenizer, smollm2_gguf: Path, tmp_path: Path) -> None:
    build_tokenizer(read_gguf_metadata(smollm2_gguf)).save(str(tmp_path / "tokenizer.json"))
    assert smollm2.chat_format is not None
    reference = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), chat_template=smollm2.chat_format.template
    )
    generator = random.Random(5)
    contents = [*TEXTS, "\nstarts with a newline", "ends with one\n\n", "", "12  34", "user\n"]
    contents += [random_text(generator).replace("<|im_end|>", "") for _ in range(50)]
    for content in contents:
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": content + "!"}]
        messages += [{"role": "user", "content": "And?"}]
        for chat in (messages, [{"role": "system", "content": "Be brief. "}, *messages]):
            expected = reference.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            assert smollm2.encode(chat_segments(chat), at_start=True) == expected, content


def test_encoding_from_many_threads_at_once_gives_the_same(smollm2: Tokenizer) -> None:
    segments = [Segment("<|im_start|>user\n", special=True), Segment("<|im_end|> " + TEXTS[2])]
    expected = smollm2.encode(segments, at_start=True)
    results: list[list[int]] = []

    def work() -> None:
        for _ in range(50):
            results.append(smollm2.encode(segments, at_start=True))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 400


# --- folders in Hugging Face layout


def test_folder_equals_transformers_on_raw_text(tmp_path: Path) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = Tokenizer.load(saved(tmp_path, sentencepiece_core("first"), **config))
    reference = AutoTokenizer.from_pretrained(tmp_path)
    generator = random.Random(6)
    for text in [*TEXTS, *(random_text(generator).removeprefix("<s>") for _ in range(100))]:
        if text:
            assert tokenizer.encode([Segment(text, special=True)], at_start=True) == reference.encode(text), text


def test_begin_token_is_what_the_configuration_says_then_the_post_processor(tmp_path: Path) -> None:
    def begins(core: tokenizers.Tokenizer, **config: Any) -> bool:
        tokenizer = Tokenizer.load(saved(tmp_path, core, **config))
        return tokenizer.encode([Segment("fox")], at_start=True)[:1] == [tokenizer.bos_token_id]

    with_processor, without = sentencepiece_core("first"), byte_level_core()
    assert begins(with_processor, bos_token="<s>")
    assert not begins(with_processor, bos_token="<s>", add_bos_token=False)
    assert not begins(with_processor)
    assert not begins(without, bos_token="<s>")
    assert begins(without, bos_token="<s>", add_bos_token=True)
    assert not begins(without, bos_token="<nowhere>", add_bos_token=True)


def test_end_tokens_are_those_of_the_tokenizer_and_of_the_generation_configuration(tmp_path: Path) -> None:
    saved(tmp_path, byte_level_core(), eos_token={"content": "</s>", "__type": "AddedToken"})
    (tmp_path / "config.json").write_text('{"eos_token_id": 9}')
    assert Tokenizer.load(tmp_path).eos_token_ids == {1, 9}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 1]}')
    assert Tokenizer.load(tmp_path).eos_token_ids == {1, 2}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert Tokenizer.load(tmp_path).eos_token_ids == {1, 2}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "two"}')
    with pytest.raises(UnsupportedModelError, match="'two'; allowed: an id or a list of ids"):
        Tokenizer.load(tmp_path)


def test_special_tokens_come_from_the_map_where_the_configuration_has_none(tmp_path: Path) -> None:
    saved(tmp_path, byte_level_core())
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "</s>", "bos_token": {"content": "<s>"}}')
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (0, {1})


def test_tokens_that_only_the_configuration_declares_special_are(tmp_path: Path) -> None:
    core = byte_level_core()
    tool, new = core.token_to_id("<tool>"), core.get_vocab_size()
    declared = {str(new): {"content": "<new>", "special": True}}
    saved(tmp_path, core, additional_special_tokens=["<tool>"], pad_token="[PAD]", added_tokens_decoder=declared)
    tokenizer = Tokenizer.load(tmp_path)
    assert {tool, new} <= tokenizer.special_ids
    assert tokenizer.vocab_size == new + 1  # the padding token is not in the vocabulary
    assert tokenizer.encode([Segment("<new>", special=True)], at_start=False) == [new]
    assert tool not in tokenizer.encode_text("<tool>")


def test_naming_a_special_token_does_not_change_how_it_is_matched(tmp_path: Path) -> None:
    core = byte_level_core()
    core.add_special_tokens([AddedToken("<|end|>", normalized=False, lstrip=True)])
    tokenizer = Tokenizer.load(saved(tmp_path, core, eos_token="<|end|>"))
    (end,) = tokenizer.eos_token_ids
    assert tokenizer.encode([Segment("  <|end|>", special=True)], at_start=True) == [end]


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, byte_level_core(), added_tokens_decoder={"7": {"content": "<s>"}})
    with pytest.raises(UnsupportedModelError, match="gives '<s>' the id 7"):
        Tokenizer.load(tmp_path)


def test_chat_template_is_found_wherever_it_is_kept(tmp_path: Path) -> None:
    core = byte_level_core()
    assert Tokenizer.load(saved(tmp_path, core)).chat_format is None
    assert Tokenizer.load(saved(tmp_path, core, chat_template="A")).chat_format == ChatFormat("A")
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert Tokenizer.load(saved(tmp_path, core, chat_template=named)).chat_format == ChatFormat("D")
    assert Tokenizer.load(saved(tmp_path, core, chat_template=named[:1])).chat_format is None
    (tmp_path / "chat_template.jinja").write_text("J é", encoding="utf-8")
    loaded = Tokenizer.load(saved(tmp_path, core, chat_template="A", eos_token="</s>"))
    assert loaded.chat_format == ChatFormat("J é", bos_token="", eos_token="</s>")


def test_folder_without_tokenizer_is_not_found_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no tokenizer\.json; save the tokenizer there"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"model": 1}', b"\xff"])
def test_damaged_tokenizer_is_refused_by_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_configuration_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    byte_level_core().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UnsupportedModelError, match=r"tokenizer_config\.json"):
        Tokenizer.load(tmp_path)
