from __future__ import annotations

import pytest
from grammar_walks import accepts, random_texts
from procedure_walks import regex_procedure

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError
from sgrun.grammar.assemble import assemble
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.pack import packed_procedure


@pytest.mark.parametrize(
    "pattern", ["a", "", "(ab|cd)*é", r"\w+@\w+", r"(?:[a-z]{300,500};)*", r".{3,900}x", r"(?=.*\d)[a-z0-9]{8,400}"]
)
def test_procedure_of_a_regular_language_is_packed_as_assembling_it_does(pattern: str) -> None:
    procedure = regex_procedure(pattern)
    packed = packed_procedure(procedure, Budget(CompileLimits()))
    assembled = assemble("root", lambda _: procedure, Budget(CompileLimits()))
    assert packed.table.shape == assembled.table.shape and packed.counts.shape == assembled.counts.shape
    assert not packed.table[0].any()
    for automaton, other in ((packed, assembled), (assembled, packed)):
        for text in random_texts(automaton, seed=1, count=5, soft_len=20):
            assert accepts(other, text)
            assert accepts(automaton, text + "é") == accepts(other, text + "é")


def test_procedure_without_texts_or_too_large_is_refused() -> None:
    with pytest.raises(InvalidGrammarError, match="matches nothing"):
        packed_procedure(regex_procedure("a$b"), Budget(CompileLimits()))
    for limits in (CompileLimits(max_states=3), CompileLimits(max_table_bytes=10)):
        with pytest.raises(GrammarTooLargeError):
            packed_procedure(regex_procedure("abc"), Budget(limits))
