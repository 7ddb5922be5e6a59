"""Moves between statuses: one table an enum, one function that checks a move, one error that refuses it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class IllegalMoveError(ValueError):
    """A row was asked to go to a status that its present one does not lead to."""

    def __init__(self, what: str, current: str, target: str, allowed: frozenset[str]) -> None:
        may = ", ".join(sorted(allowed)) if allowed else "nothing: it is final"
        super().__init__(f"{what} is {current} and cannot become {target}; from {current} it may become {may}")
        self.current = current
        self.target = target


def check_move[S: StrEnum](moves: Mapping[S, frozenset[S]], what: str, current: S, target: S) -> S:
    """Returns `target` if `moves` lets `current` become it.

    Raises:
        IllegalMoveError: with `what` (the row, for the message), both statuses and the moves there are.
    """
    if target not in moves[current]:
        raise IllegalMoveError(what, current.value, target.value, frozenset(s.value for s in moves[current]))
    return target
