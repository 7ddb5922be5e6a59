"""Inputs, for operators' own code."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from coordinator_node.db.repositories.statements import committing, fresh, newest, upsert
from coordinator_node.db.repositories.values import storable
from coordinator_node.db.tables import InputRow
from coordinator_node.entities.prediction import InputRecord
from coordinator_node.entities.times import as_utc


class DBInputRepository:
    """Reads and writes inputs; every write commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, input_id: str) -> InputRecord | None:
        """One input; None where there is none of that id."""
        rows = fresh(self._session, select(InputRow).where(col(InputRow.id) == input_id))
        return _entity(rows[0]) if rows else None

    def save(self, record: InputRecord) -> None:
        """Insert an input, or update the one of that id, whose status and actuals stay.

        Raises:
            ValueError: it holds what the database cannot, such as NaN.
        """
        with committing(self._session):
            upsert(self._session, InputRow, [_values(record)])

    def find(
        self, *, since: datetime | None = None, until: datetime | None = None, limit: int | None = None
    ) -> list[InputRecord]:
        """Inputs received from `since` to `until`, both included: the newest `limit`, in ascending time."""
        query = select(InputRow)
        if since is not None:
            query = query.where(col(InputRow.received_at) >= as_utc(since))
        if until is not None:
            query = query.where(col(InputRow.received_at) <= as_utc(until))
        rows = newest(self._session, query, col(InputRow.received_at), col(InputRow.id), limit=limit)
        return [_entity(row) for row in rows]


def _entity(row: InputRow) -> InputRecord:
    return InputRecord(id=row.id, raw_data=row.raw_data_jsonb or {}, received_at=row.received_at)


def _values(record: InputRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "raw_data_jsonb": storable(f"input {record.id!r}", "raw_data", record.raw_data),
        "received_at": as_utc(record.received_at),
    }
