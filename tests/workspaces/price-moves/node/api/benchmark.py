"""POST /custom/benchmark: a prediction of the house, made and scored by hand through the repositories."""

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from coordinator_node.db import (
    DBFeedRecordRepository,
    DBInputRepository,
    DBModelRepository,
    DBPredictionRepository,
    DBScoreRepository,
    create_session,
)
from coordinator_node.entities.feed_record import FeedIngestionState, FeedRecord
from coordinator_node.entities.model import Model
from coordinator_node.entities.prediction import InputRecord, PredictionRecord, PredictionStatus, ScoreRecord

router = APIRouter(prefix="/custom/benchmark", tags=["benchmark"])


class Benchmark(BaseModel):
    expected_return: float
    score: float


@router.post("")
def add(benchmark: Benchmark) -> dict[str, Any]:
    now = datetime.now(timezone.utc)
    number = uuid.uuid4().hex[:8]
    with create_session() as session:
        DBModelRepository(session).save(
            Model(
                id="house",
                name="house",
                player_id="house",
                player_name="The house",
                deployment_identifier="none",
            )
        )
        DBInputRepository(session).save(InputRecord(id=f"house-{number}", raw_data={"symbol": "BTC"}))
        prediction = PredictionRecord(
            id=f"house-{number}",
            input_id=f"house-{number}",
            model_id="house",
            prediction_config_id=None,
            scope_key="BTC-2",
            scope={"subject": "BTC"},
            status=PredictionStatus.SCORED,
            exec_time_ms=0.0,
            inference_output={"expected_return": benchmark.expected_return, "confidence": 1.0},
            performed_at=now - timedelta(seconds=2),
            resolvable_at=now,
        )
        predictions = DBPredictionRepository(session)
        predictions.save(prediction)
        predictions.save_all([prediction])
        DBScoreRepository(session).save(
            ScoreRecord(
                id=f"house-{number}",
                prediction_id=prediction.id,
                result={"value": benchmark.score, "actual_return": 0.0, "squared_error": 0.0},
                success=True,
                scored_at=now,
            )
        )
        feed = DBFeedRecordRepository(session)
        scope = {"source": "house", "subject": "MOOD", "kind": "tick", "granularity": "1s"}
        written = feed.append_records([FeedRecord(**scope, ts_event=now, values={"price": benchmark.score})])
        feed.set_watermark(FeedIngestionState(**scope, last_event_ts=now))
    return {"prediction_id": prediction.id, "records": written}
