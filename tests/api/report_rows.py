"""One of everything that the report API answers with."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from api_cases import INPUT, NOW, checkpoint, model, prediction, schedule, score, store
from builders import lease
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.db.series.mark import kept_span
from coordinator_node.db.tables import (
    BackfillJobRow,
    FeedIngestionStateRow,
    FeedRecordRow,
    InputRow,
    LeaderboardRow,
    MerkleCommitmentRow,
    MerkleCycleRow,
    SnapshotRow,
)
from coordinator_node.services.snapshot.series import SeriesBuckets

SECOND = timedelta(seconds=1)
ENSEMBLE = "__ensemble_main__"
MODELS = ("m1", "m2", "m3", ENSEMBLE)
NUMBERS = {
    "value": 0.5,
    "ic": 0.1,
    "ic_sharpe": None,
    "hit_rate": 0.6,
    "max_drawdown": -0.2,
    "model_correlation": 0.3,
    "contribution": 0.01,
    "fnc": 0.02,
    "ensemble_correlation": 0.4,
}


def keep_buckets(engine: Engine, *, until: datetime = NOW) -> None:
    """What the score leader's passes do, until all before `until` is kept."""
    with Session(engine) as session:
        fence = lease(session)
        session.commit()
    keeper = SeriesBuckets(engine, "value")
    while True:
        with engine.connect() as connection:
            before = kept_span(connection, "value")
        keeper.advance(until, fence)
        with engine.connect() as connection:
            if kept_span(connection, "value") == before:
                return


def snapshot(number: int, model_id: str, **values: Any) -> SnapshotRow:
    end = NOW - number * 60 * SECOND
    return SnapshotRow(
        **{
            "id": f"{model_id}-{number}",
            "model_id": model_id,
            "period_start": end - 60 * SECOND,
            "period_end": end,
            "prediction_count": 4,
            "result_summary_jsonb": NUMBERS,
            "meta_jsonb": {
                "missing_count": 0,
                "scopes": {"BTC-60": {"prediction_count": 4, "missing_count": 0, "value": 0.5}},
            },
            "created_at": end,
            "cycle_id": f"cycle-{number}",
            **values,
        }
    )


def seed_everything(engine: Engine) -> None:
    """Rows for every endpoint; m3 has neither predictions nor snapshots."""
    store(engine, *(model(model_id, presence="PRESENT") for model_id in MODELS), schedule(), InputRow(id=INPUT))
    predictions = [
        prediction(model_id, NOW - age * 15 * SECOND, status=status, failed_reason=reason)
        for model_id in ("m1", "m2", ENSEMBLE)
        for age, status, reason in ((0, "PENDING", None), (9, "SCORED", None), (20, "FAILED", "timeout"))
    ]
    scores = [score(row, scored_at=NOW) for row in predictions if row.status == "SCORED"]
    store(engine, *predictions, *scores)
    store(engine, *(snapshot(number, model_id) for number in range(3) for model_id in ("m1", "m2", ENSEMBLE)))
    store(engine, *(cycle(number, position) for number, position in ((0, 2), (1, 1), (2, None), (3, None))))
    store(engine, *(commitment(number) for number in range(1, 4)))
    store(engine, LeaderboardRow(created_at=NOW, entries_jsonb=leaderboard_entries()))
    store(engine, *(checkpoint(f"c{age}", NOW - age * timedelta(days=7), meta_jsonb=payout_meta()) for age in range(3)))
    feed = {"source": "sim", "subject": "BTC", "kind": "tick", "granularity": "1s"}
    store(
        engine,
        *(FeedRecordRow(**feed, ts_event=NOW - age * SECOND, values_jsonb={"price": 1.5}) for age in range(5)),
        FeedIngestionStateRow(**feed, last_event_ts=NOW, updated_at=NOW),
        BackfillJobRow(id="job", **feed, start_ts=NOW - timedelta(days=1), end_ts=NOW, status="completed"),
    )


def cycle(number: int, position: int | None) -> MerkleCycleRow:
    """Those of 0.1.84 have no position; all are made at one moment."""
    return MerkleCycleRow(
        id=f"cycle-{number}",
        position=position,
        snapshots_root="a1" * 32,
        chained_root=f"{number}b" * 32,
        snapshot_count=3,
        created_at=NOW,
    )


def commitment(position: int) -> MerkleCommitmentRow:
    return MerkleCommitmentRow(
        id=f"commitment-{position}",
        position=position,
        root="c3" * 32,
        chained_root=f"d{position}" * 32,
        leaves=b"",
        prediction_count=0,
        committed_at=NOW,
    )


def leaderboard_entries() -> list[dict[str, Any]]:
    windows = {"score_recent": 0.5, "score_steady": 0.5, "score_anchor": None}
    return [
        {
            "model_id": model_id,
            "rank": rank,
            "model_name": f"name of {model_id}",
            "cruncher_name": f"player of {model_id}",
            "score": {
                "metrics": windows | (NUMBERS if model_id != "m3" else {}),
                "ranking": {"key": "score_recent", "value": 0.5, "direction": "desc"},
            },
        }
        for model_id, rank in zip(MODELS, (1, 2, None, None), strict=True)
    ]


def payout_meta() -> dict[str, Any]:
    return {
        "ranking": [
            {
                "model_id": model_id,
                "model_name": f"name of {model_id}",
                "cruncher_name": "player",
                "rank": rank,
                "prediction_count": 9,
                "snapshot_count": 3,
                "result_summary": {"value": 0.5, "ic": None},
            }
            for rank, model_id in enumerate(("m1", "m2"), 1)
        ]
    }
