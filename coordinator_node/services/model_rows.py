"""Locks on the rows of models, which several stages update."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlmodel import Session

# All lock them in the order of their ids, so that none waits in a circle; new predictions are not held up by it.
_LOCK = text("SELECT id FROM models WHERE id = ANY(CAST(:ids AS text[])) ORDER BY id FOR NO KEY UPDATE")


def lock_models(session: Session, model_ids: Sequence[str]) -> None:
    """Hold the models' rows until the transaction ends, to be called before they are updated."""
    session.connection().execute(_LOCK, {"ids": sorted(model_ids)})
