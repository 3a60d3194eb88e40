from __future__ import annotations

import pytest
from grammar_walks import accepts

from sgrun.errors import GrammarTooLargeError, InvalidGrammarError
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.limits import CompileLimits
from sgrun.types import ChoicesSpec


def test_exactly_the_choices_are_taken() -> None:
    choices = ("yes", "yesterday", "no", "né", "a.b", "日")
    automaton = compile_grammar(ChoicesSpec(choices))
    for text in [*choices, "", "y", "ye", "yest", "n", "ne", "axb", "noo", "yesno"]:
        assert accepts(automaton, text) == (text in choices), text


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ((), "choices is empty"),
        (("a", ""), "choice 1 is the empty string"),
        (("a", "b", "a"), "choice 2 'a' is there twice"),
    ],
)
def test_malformed_choices_are_refused(choices: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidGrammarError, match=message):
        compile_grammar(ChoicesSpec(choices))


def test_choices_are_bounded_by_their_length() -> None:
    with pytest.raises(GrammarTooLargeError, match="max_source_len is 10 and at least 12"):
        compile_grammar(ChoicesSpec(("abcdef", "ghijkl")), CompileLimits(max_source_len=10))
