"""Rows for tests: each function adds what it says to a session and gives it back; the test commits."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.config.settings import Settings, load_settings
from coordinator_node.db.tables import (
    CheckpointRow,
    FeedRecordRow,
    InputRow,
    LeaseRow,
    ModelRow,
    PredictionRow,
    ScoreRow,
    SnapshotRow,
)
from coordinator_node.runtime.leases import LeaseFence

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

_numbers = itertools.count(1)


def at(seconds: float) -> datetime:
    """So many seconds after START."""
    return START + timedelta(seconds=seconds)


def numbered(prefix: str) -> str:
    return f"{prefix}-{next(_numbers):06d}"


def settings_of(**environ: str) -> Settings:
    """Settings of an environment of one's own: a simulated tick feed of BTC unless told otherwise."""
    return load_settings({"FEED_SOURCE": "simulated", **environ})


def add[R](session: Session, row: R) -> R:
    session.add(row)
    session.flush()
    return row


def model(session: Session, model_id: str = "", **fields: Any) -> ModelRow:
    model_id = model_id or numbered("model")
    values = {
        "name": f"name of {model_id}",
        "deployment_identifier": f"deployment of {model_id}",
        "player_id": f"player of {model_id}",
        "player_name": f"player {model_id}",
        "created_at": START,
        "updated_at": START,
        **fields,
    }
    return add(session, ModelRow(id=model_id, **values))


def market_input(session: Session, **fields: Any) -> InputRow:
    values: dict[str, Any] = {
        "id": numbered("input"),
        "received_at": START,
        "scope_jsonb": {"subject": "BTC"},
        **fields,
    }
    return add(session, InputRow(**values))


def prediction(session: Session, model_id: str, input_id: str, **fields: Any) -> PredictionRow:
    values: dict[str, Any] = {
        "id": numbered("prediction"),
        "scope_key": "BTC-60",
        "scope_jsonb": {"subject": "BTC"},
        "inference_output_jsonb": {"value": 1.0},
        "performed_at": START,
        "resolvable_at": at(60),
        **fields,
    }
    return add(session, PredictionRow(model_id=model_id, input_id=input_id, **values))


def score(session: Session, prediction_id: str, value: float = 1.0, **fields: Any) -> ScoreRow:
    """A score that the live stage wrote and no snapshot counts."""
    values: dict[str, Any] = {
        "id": numbered("score"),
        "result_jsonb": {"value": value, "success": True, "failed_reason": None},
        "scored_at": at(61),
        "generation": 1,
        "snapshot_state": "PENDING",
        **fields,
    }
    return add(session, ScoreRow(prediction_id=prediction_id, **values))


def scored(session: Session, model_id: str, value: float = 1.0, **fields: Any) -> PredictionRow:
    """A scored prediction with an uncounted score, and an input of its own unless one is given."""
    input_id = fields.pop("input_id", None) or market_input(session).id
    row = prediction(session, model_id, input_id, **{"status": "SCORED", **fields})
    score(session, row.id, value, scored_at=row.resolvable_at + timedelta(seconds=1))
    return row


def snapshot(session: Session, model_id: str, value: float | None = 1.0, count: int = 1, **fields: Any) -> SnapshotRow:
    values: dict[str, Any] = {
        "id": numbered("snapshot"),
        "period_start": START,
        "period_end": at(60),
        "prediction_count": count,
        "result_summary_jsonb": {} if value is None else {"value": value},
        "created_at": at(61),
        "cycle_id": numbered("cycle"),
        **fields,
    }
    return add(session, SnapshotRow(model_id=model_id, **values))


def checkpoint(session: Session, start: datetime, end: datetime, **fields: Any) -> CheckpointRow:
    values: dict[str, Any] = {"id": numbered("checkpoint"), "created_at": end, **fields}
    return add(session, CheckpointRow(period_start=start, period_end=end, **values))


def ticks(session: Session, prices: dict[float, float], subject: str = "BTC", **fields: Any) -> None:
    """Records of a feed, {seconds after START: price}, and its watermark at the last of them."""
    records(session, {second: {"price": price} for second, price in prices.items()}, subject=subject, **fields)
    watermark(session, at(max(prices)), subject=subject, **fields)


def records(session: Session, values: dict[float, dict[str, Any]], subject: str = "BTC", **fields: Any) -> None:
    scope = {"source": "simulated", "kind": "tick", "granularity": "1s", **fields}
    session.add_all(
        FeedRecordRow(
            id=numbered("record"), subject=subject, ts_event=at(second), ts_ingested=at(second), values_jsonb=v, **scope
        )
        for second, v in values.items()
    )
    session.flush()


def watermark(session: Session, reached: datetime, subject: str = "BTC", **fields: Any) -> None:
    """Everything of the feed up to `reached` is stored; later calls move it on."""
    scope = {"source": "simulated", "kind": "tick", "granularity": "1s", "subject": subject, **fields}
    session.connection().execute(
        text(
            "INSERT INTO feed_ingestion_state (id, source, subject, kind, granularity, last_event_ts, updated_at)"
            " VALUES (:id, :source, :subject, :kind, :granularity, :reached, :reached)"
            " ON CONFLICT (source, subject, kind, granularity)"
            " DO UPDATE SET last_event_ts = excluded.last_event_ts, updated_at = excluded.updated_at"
        ),
        {"id": numbered("watermark"), "reached": reached, **scope},
    )


def lease(session: Session, name: str = "test-lease", epoch: int = 1) -> LeaseFence:
    """A lease's row, and the fence of whoever holds it."""
    add(session, LeaseRow(name=name, holder="test", epoch=epoch, acquired_at=START, expires_at=START))
    return LeaseFence(name, epoch)


def rows(engine: Engine, statement: str, **values: Any) -> list[dict[str, Any]]:
    """What a query gives, one dict a row."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(statement), values).mappings()]


def one(engine: Engine, statement: str, **values: Any) -> Any:
    """The single value that a query gives."""
    with engine.connect() as connection:
        return connection.execute(text(statement), values).scalar_one()
