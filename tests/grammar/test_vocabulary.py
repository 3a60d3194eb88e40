from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sgrun.grammar.trie import Trie
from sgrun.grammar.vocabulary import Vocabulary


def test_tokens_lie_flat_one_after_the_other() -> None:
    vocabulary = Vocabulary([b"ab", None, b"", b"c"])
    assert vocabulary.size == 4 and vocabulary.num_words == 1
    assert vocabulary.flat.tolist() == [97, 98, 99] and vocabulary.flat.dtype == np.uint8
    assert vocabulary.offsets.tolist() == [0, 2, 2, 2, 3] and vocabulary.offsets.dtype == np.int32
    assert vocabulary.flat.flags.writeable
    assert [vocabulary.token(i) for i in range(4)] == [b"ab", b"", b"", b"c"]


def test_trie_of_a_vocabulary_without_text_is_its_root() -> None:
    vocabulary = Vocabulary([None, None])
    assert vocabulary.trie.num_children.tolist() == [0] and vocabulary.trie.token.tolist() == [-1]
    assert vocabulary.max_token_len == 0


def _spelled(trie: Trie) -> dict[int, bytes]:
    """The bytes of each token of the trie, by walking it from the root."""
    spelled = {0: b""}
    for node in range(len(trie.bytes)):
        first = int(trie.first_child[node])
        for child in range(first, first + int(trie.num_children[node])):
            spelled[child] = spelled[node] + bytes([trie.bytes[child]])
    assert len(set(spelled.values())) == len(spelled) == len(trie.bytes)
    tokens = {int(token): spelled[node] for node, token in enumerate(trie.token) if token >= 0}
    return tokens | {token: tokens[first] for token, first in trie.twins.tolist()}


PIECES = st.one_of(st.none(), st.binary(max_size=5), st.sampled_from([b"ab", b'a"', "é".encode(), b"\x1f", b"\xc3"]))


@given(st.lists(PIECES, min_size=1, max_size=40))
def test_tries_spell_every_token(pieces: list[bytes | None]) -> None:
    vocabulary = Vocabulary(pieces)
    with_bytes = {i: data for i, data in enumerate(pieces) if data}
    assert _spelled(vocabulary.trie) == with_bytes
    others = {i: data for i, data in with_bytes.items() if not vocabulary.num_plain_characters[i]}
    assert _spelled(vocabulary.trie_without_plain) == others


def test_plain_tokens_are_whole_characters_without_quotes_backslashes_and_controls() -> None:
    plain = [b"a", b" ", "é日𝄞".encode(), b"\x7f~", b"'"]
    others = [
        None,
        b"",
        b'"',
        b'a"',
        b"\\",
        b"\n",
        b"\x1f",
        "é".encode()[:1],
        "é".encode()[1:],
        b"a\xff",
        b"\xed\xa0\x80",
    ]
    assert Vocabulary([*plain, *others]).num_plain_characters.tolist() == [1, 1, 3, 2, 1] + [0] * len(others)
