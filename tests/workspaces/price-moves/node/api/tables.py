"""GET /custom/tables/…: what each repository holds, as a dashboard of that time read it."""

import os
import sys
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query
from sqlmodel import Session

from coordinator_node.db import (
    DBBackfillJobRepository,
    DBCheckpointRepository,
    DBFeedRecordRepository,
    DBInputRepository,
    DBLeaderboardRepository,
    DBMerkleCycleRepository,
    DBMerkleNodeRepository,
    DBModelRepository,
    DBPredictionRepository,
    DBScoreRepository,
    DBSnapshotRepository,
)
from coordinator_node.config_loader import load_config
from coordinator_node.db.session import create_session, database_url
from coordinator_node.entities.prediction import CheckpointStatus, PredictionStatus
from coordinator_node.merkle import canonical_snapshot_hash
from coordinator_node.schemas.payload_contracts import ScheduleEnvelope
from coordinator_node.services.ensemble import ensemble_model_id, is_ensemble_model

sys.path.insert(0, os.path.dirname(__file__))

from _shared import get_session  # noqa: E402

router = APIRouter(prefix="/custom/tables", tags=["tables"])

SessionDep = Annotated[Session, Depends(get_session)]


@router.get("/models")
def models(session: SessionDep) -> list[dict[str, Any]]:
    repository = DBModelRepository(session)
    found = repository.fetch_all()
    again = repository.fetch_by_ids(list(found))
    assert set(again) == set(found)
    return [
        {
            "id": model_id,
            "name": model.name,
            "player": model.player_name,
            "score": model.overall_score,
            "scopes": [entry["scope_key"] for entry in model.scores_by_scope],
            "wallet": model.meta.get("wallet"),
            "ensemble": is_ensemble_model(model_id),
        }
        for model_id, model in found.items()
    ]


@router.get("/models/{model_id}")
def one_model(model_id: str, session: Session = Depends(create_session)) -> dict[str, Any]:
    model = DBModelRepository(session).fetch(model_id)
    if model is None:
        raise HTTPException(status_code=404, detail=f"no model {model_id}")
    return asdict(model)


@router.get("/predictions")
def predictions(
    session: SessionDep,
    status: Annotated[list[str] | None, Query()] = None,
    model_id: str | None = None,
    prefix: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    found = DBPredictionRepository(session).find(
        status=status or [PredictionStatus.SCORED.value, PredictionStatus.PENDING.value],
        model_id=model_id,
        scope_key_prefix=prefix,
        since=datetime.now(timezone.utc) - timedelta(hours=1),
        until=datetime.now(timezone.utc),
        resolvable_before=datetime.now(timezone.utc) + timedelta(days=1),
        limit=limit,
    )
    assert [p.performed_at for p in found] == sorted(p.performed_at for p in found)
    return [asdict(p) for p in found]


@router.get("/schedules")
def schedules(session: SessionDep) -> list[dict[str, Any]]:
    found = DBPredictionRepository(session).fetch_active_configs()
    return [{**row, "every": ScheduleEnvelope.model_validate(row["schedule"]).prediction_interval_seconds} for row in found]


@router.get("/scored/{model_id}")
def scored(model_id: str, session: SessionDep) -> list[dict[str, Any]]:
    by_model = DBPredictionRepository(session).query_scores(
        model_ids=[model_id], _from=datetime.utcnow() - timedelta(hours=1), to=datetime.utcnow()
    )
    return [
        {
            "scope_key": prediction.scope_key,
            "said": prediction.inference_output,
            "value": prediction.score.value if prediction.score else None,
            "status": prediction.status,
            "took_ms": prediction.exec_time_ms,
        }
        for prediction in by_model[model_id]
    ]


@router.get("/inputs")
def inputs(session: SessionDep, limit: int = 5) -> list[dict[str, Any]]:
    repository = DBInputRepository(session)
    found = repository.find(limit=limit)
    for record in found:
        assert repository.get(record.id) is not None
    return [{"id": record.id, "received_at": record.received_at, **record.raw_data} for record in found]


@router.get("/scores")
def scores(session: SessionDep, model_id: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
    found = DBScoreRepository(session).find(model_id=model_id, limit=limit)
    return [{"value": s.value, "ok": s.success, **s.result, "at": s.scored_at.isoformat()} for s in found]


@router.get("/leaderboard")
def leaderboard(session: SessionDep) -> dict[str, Any]:
    latest = DBLeaderboardRepository(session).get_latest()
    if not latest:
        return {}
    return {
        "created_at": latest["created_at"],
        "top": [entry["model_id"] for entry in latest["entries"][:3]],
        "metrics": {entry["model_id"]: entry["score"]["metrics"] for entry in latest["entries"]},
    }


@router.get("/snapshots")
def snapshots(session: SessionDep, model_id: str | None = None, limit: int = 10) -> list[dict[str, Any]]:
    found = DBSnapshotRepository(session).find(model_id=model_id, limit=limit)
    return [
        {
            "model_id": s.model_id,
            "count": s.prediction_count,
            "ended": s.period_end,
            "hash": canonical_snapshot_hash(s),
            **s.result_summary,
        }
        for s in found
    ]


@router.get("/ensembles/{name}")
def ensemble(name: str, session: SessionDep) -> list[dict[str, Any]]:
    found = DBPredictionRepository(session).find(model_id=ensemble_model_id(name), limit=5)
    return [{"at": p.performed_at, "scope_key": p.scope_key, **p.inference_output} for p in found]


@router.get("/checkpoints")
def checkpoints(session: SessionDep) -> list[dict[str, Any]]:
    repository = DBCheckpointRepository(session)
    latest = repository.get_latest()
    found = repository.find(status=CheckpointStatus.PENDING.value, limit=10)
    return [
        {
            "id": c.id,
            "latest": latest is not None and c.id == latest.id,
            "crunch": c.entries[0]["crunch"],
            "paid": sum(r["reward_pct"] for r in c.entries[0]["cruncher_rewards"]),
            "ranked": [entry["model_id"] for entry in c.meta.get("ranking", [])],
            "tx_hash": c.tx_hash,
        }
        for c in found
    ]


@router.get("/merkle")
def merkle(session: SessionDep) -> dict[str, Any]:
    cycles = DBMerkleCycleRepository(session)
    latest = cycles.get_latest()
    if latest is None:
        return {"cycles": 0}
    nodes = DBMerkleNodeRepository(session).find_by_cycle_id(latest.id)
    assert cycles.get(latest.id) is not None
    return {
        "cycles": len(cycles.find(limit=100)),
        "root": latest.chained_root,
        "snapshots": latest.snapshot_count,
        "nodes": len(nodes),
    }


@router.get("/feeds")
def feeds(session: SessionDep) -> dict[str, Any]:
    repository = DBFeedRecordRepository(session)
    answer = {"indexed": repository.list_indexed_feeds(), "tail": [], "range": 0}
    for indexed in answer["indexed"]:
        scope = {key: str(indexed[key]) for key in ("source", "subject", "kind", "granularity")}
        latest = repository.fetch_latest_record(**scope)
        state = repository.get_watermark(**scope)
        assert latest is not None and state is not None and state.last_event_ts is not None
        start = latest.ts_event - timedelta(seconds=10)
        answer["range"] = len(repository.fetch_records(**scope, start_ts=start, end_ts=latest.ts_event, limit=5))
    answer["tail"] = [{"subject": r.subject, "ts": r.ts_event, **r.values} for r in repository.tail_records(limit=4)]
    return answer


@router.get("/backfills")
def backfills(session: SessionDep) -> dict[str, Any]:
    repository = DBBackfillJobRepository(session)
    jobs = repository.find(limit=10)
    running = repository.get_running()
    return {
        "running": running.id if running else None,
        "jobs": [{"id": job.id, "status": job.status, "records": job.records_written} for job in jobs],
    }


@router.get("/about")
def about() -> dict[str, Any]:
    config = load_config()
    return {
        "scopes": [schedule.scope_key for schedule in config.scheduled_predictions if schedule.active],
        "metrics": config.metrics,
        "ranking_key": config.aggregation.ranking_key,
        "database": database_url().split("://")[0].split("+")[0],
    }
