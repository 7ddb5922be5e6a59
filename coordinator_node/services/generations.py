"""Generations of scores: 1 is the live stage's, each rescore of a closed period writes the next.

The newest generation counts. Its snapshots stand in for those of the same predictions, which say so in
`superseded_by`; whatever sums up snapshots reads only those that nothing superseded.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlmodel import Session

LIVE_GENERATION = 1

_NEWEST = text("SELECT COALESCE(max(generation), :live) FROM rescores")


def newest_generation(session: Session) -> int:
    """The generation of the last rescore; LIVE_GENERATION where there was none."""
    newest: int = session.connection().execute(_NEWEST, {"live": LIVE_GENERATION}).scalar_one()
    return newest
