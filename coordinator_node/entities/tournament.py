"""Rounds of a tournament: how far one has come."""

from __future__ import annotations

from enum import StrEnum


class RoundStatus(StrEnum):
    """Follows from a round's rows.

    QUEUED: no worker has begun. CALLING: models are asked. CALLED: all were; the ground truth is waited for. SCORING:
    it is given, perhaps of some rows only, and predictions wait. SCORED: none does.
    """

    QUEUED = "QUEUED"
    CALLING = "CALLING"
    CALLED = "CALLED"
    SCORING = "SCORING"
    SCORED = "SCORED"
