"""Rounds by request. Every workspace of 0.1.84 holds this file; it serves those whose config asks for a tournament."""

from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from coordinator_node.config.extensions import ExtensionSettings
from coordinator_node.config_loader import load_config
from coordinator_node.db import (
    DBInputRepository,
    DBModelRepository,
    DBPredictionRepository,
    DBScoreRepository,
    create_session,
)
from coordinator_node.extensions.callable_resolver import resolve_callable
from coordinator_node.services.tournament_predict import TournamentPredictService

router = APIRouter(prefix="/tournament", tags=["tournament"])

_service: TournamentPredictService | None = None


class InferenceRequest(BaseModel):
    features: list[dict[str, Any]]


class ScoreRequest(BaseModel):
    ground_truth: dict[str, Any] | list[dict[str, Any]]


def get_service() -> TournamentPredictService:
    global _service
    if _service is None:
        config = load_config()
        session = create_session()
        settings = ExtensionSettings.from_env()
        _service = TournamentPredictService(
            score_repository=DBScoreRepository(session),
            scoring_function=resolve_callable(settings.scoring_function, required_params=("prediction", "ground_truth")),
            config=config,
            input_repository=DBInputRepository(session),
            model_repository=DBModelRepository(session),
            prediction_repository=DBPredictionRepository(session),
            feed_reader=None,
            runner=None,
        )
    return _service


@router.post("/rounds/{round_id}/inference")
async def inference(round_id: str, request: InferenceRequest) -> dict[str, Any]:
    if not request.features:
        raise HTTPException(status_code=422, detail="features must not be empty")
    predictions = await get_service().run_inference(round_id, request.features)
    return {"round_id": round_id, "predictions": len(predictions)}


@router.post("/rounds/{round_id}/score")
def score(round_id: str, request: ScoreRequest) -> dict[str, Any]:
    scores = get_service().score_round(round_id, request.ground_truth)
    return {"round_id": round_id, "scores": [s.result for s in scores]}


@router.get("/rounds/{round_id}/predictions")
def predictions(round_id: str, status: str | None = None) -> list[dict[str, Any]]:
    return [
        {"model_id": p.model_id, "status": p.status, "output": p.inference_output}
        for p in get_service().get_round_predictions(round_id, status)
    ]


@router.get("/rounds/{round_id}/status")
def status(round_id: str) -> dict[str, Any]:
    return get_service().get_round_status(round_id)
