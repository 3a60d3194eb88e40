from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sgrun.grammar.vocabulary import Vocabulary


def test_tokens_lie_flat_one_after_the_other() -> None:
    vocabulary = Vocabulary([b"ab", None, b"", b"c"])
    assert vocabulary.size == 4 and vocabulary.num_words == 1
    assert vocabulary.flat.tolist() == [97, 98, 99] and vocabulary.flat.dtype == np.uint8
    assert vocabulary.offsets.tolist() == [0, 2, 2, 2, 3] and vocabulary.offsets.dtype == np.int32
    assert vocabulary.flat.flags.writeable
    assert [vocabulary.token(i) for i in range(4)] == [b"ab", b"", b"", b"c"]


def test_vocabulary_without_text_has_no_trie_levels() -> None:
    levels, nodes = Vocabulary([None, None]).trie
    assert levels == [] and nodes.tolist() == [0, 0]


@given(st.lists(st.one_of(st.none(), st.binary(max_size=5)), min_size=1, max_size=40))
def test_trie_spells_every_token(pieces: list[bytes | None]) -> None:
    levels, nodes = Vocabulary(pieces).trie
    spelled = {0: b""}
    for level in levels:
        for i, (parent, byte) in enumerate(zip(level.parents.tolist(), level.bytes.tolist(), strict=True)):
            spelled[level.first_node + i] = spelled[parent] + bytes([byte])
    assert len(set(spelled.values())) == len(spelled)
    assert [spelled[node] for node in nodes.tolist()] == [piece or b"" for piece in pieces]
