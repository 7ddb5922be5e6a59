"""Rounds by request: guess what belongs to a row."""

from coordinator_node.crunch_config import CallMethodArg, CallMethodConfig, CrunchConfig, GroundTruth, InferenceOutput
from coordinator_node.services.tournament_predict import TournamentPredictService
from pydantic import Field


class Guess(InferenceOutput):
    value: float = 0.0


class Target(GroundTruth):
    target: float


class GuessConfig(CrunchConfig):
    output_type: type = Guess
    ground_truth_type: type = Target
    call_method: CallMethodConfig = Field(
        default_factory=lambda: CallMethodConfig(args=[CallMethodArg(name="features", type="JSON")])
    )
    scheduled_predictions: list = []
    metrics: list[str] = ["hit_rate", "max_drawdown"]
    predict_service_class: type | None = TournamentPredictService
