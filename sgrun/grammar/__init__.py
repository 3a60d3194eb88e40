"""Constraints: a grammar spec becomes a deterministic byte automaton; the automaton yields masks. Knows no model."""
