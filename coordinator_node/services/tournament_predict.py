"""Tournament mode: rounds that a client opens and scores by hand. Its names are here; its work is not built yet."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn

from coordinator_node.db.repositories import DBScoreRepository
from coordinator_node.entities.errors import NotBuiltError
from coordinator_node.entities.prediction import PredictionRecord, ScoreRecord


class TournamentPredictService:
    """Asks models for features that a client gives, and scores them by a ground truth that it gives later.

    It can be made, so that a custom endpoint built on it can be imported; every call of a method raises NotBuiltError.
    """

    def __init__(
        self, score_repository: DBScoreRepository | None = None, scoring_function: Any | None = None, **kwargs: Any
    ) -> None:
        self.score_repository = score_repository
        self.scoring_function = scoring_function
        self.options = kwargs

    async def run(self) -> None:
        """Serve rounds until stopped."""
        _refuse("run")

    async def run_inference(
        self, round_id: str, features: list[dict[str, Any]], now: datetime | None = None
    ) -> list[PredictionRecord]:
        """One prediction of every model for every entry of `features`."""
        _refuse("run_inference")

    def score_round(
        self, round_id: str, ground_truth: dict[str, Any] | list[dict[str, Any]], now: datetime | None = None
    ) -> list[ScoreRecord]:
        """Scores of a round's predictions: one ground truth for all, or one for each entry of its features."""
        _refuse("score_round")

    def get_round_predictions(self, round_id: str, status: str | None = None) -> list[PredictionRecord]:
        """The predictions of a round."""
        _refuse("get_round_predictions")

    def get_round_status(self, round_id: str) -> dict[str, Any]:
        """How far a round has come."""
        _refuse("get_round_status")


def _refuse(method: str) -> NoReturn:
    raise NotBuiltError(
        f"tournament mode (TournamentPredictService.{method})",
        "let schedules call the models: CrunchConfig.scheduled_predictions",
    )
