"""Constraints: a grammar spec becomes a deterministic byte automaton; the automaton yields masks. Knows no model."""

from sgrun.grammar.api import compile
from sgrun.grammar.automaton import Automaton, Unchecked
from sgrun.grammar.matcher import Matcher
from sgrun.grammar.vocabulary import Vocabulary

__all__ = ["Automaton", "Matcher", "Unchecked", "Vocabulary", "compile"]
