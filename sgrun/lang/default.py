"""Owns the one setting that a process shares: the backend of runs that name none."""

from __future__ import annotations

from sgrun.errors import ProgramError
from sgrun.lang.backend import Backend

_default: Backend | None = None


def set_default_backend(backend: Backend | None) -> None:
    """Makes `backend` the one that runs use which name none; None unsets it."""
    global _default
    _default = backend


def resolve_backend(backend: Backend | None) -> Backend:
    """`backend`, or the default one. Raises ProgramError if there is neither."""
    chosen = backend if backend is not None else _default
    if chosen is None:
        raise ProgramError(
            "no backend to run on; call set_default_backend(sgrun.Engine(...)) once, or pass backend= to run()"
        )
    return chosen
