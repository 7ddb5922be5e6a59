"""What one prediction is worth, by the operator's scoring function. Pure but for what that function does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.json_values import fault_in, reason_of, storable, storable_text, to_json
from coordinator_node.entities.prediction import PredictionRecord
from coordinator_node.extensions.callable_resolver import resolve_callable
from coordinator_node.extensions.default_callables import default_score_prediction
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

type ScoringFunction = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]

NO_REASON = "the scoring function said success=false without a reason"


@dataclass(frozen=True)
class Verdict:
    """What came of scoring one prediction: a result, or the reason why there is none that counts."""

    prediction_id: str
    success: bool
    result: dict[str, Any] = field(default_factory=dict)
    failed_reason: str | None = None


class Scorer:
    """Scores predictions as the config says: `scoring_function`, else SCORING_FUNCTION."""

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._function = scoring_function(config, settings)
        self._output_type = config.output_type
        self._score_type = config.score_type

    def score(self, prediction: PredictionRecord, truth: Mapping[str, Any]) -> Verdict:
        """The verdict on one prediction; whatever the function does costs this prediction only."""
        try:
            returned = self._function(self._given(prediction), dict(truth))
            return self._verdict(prediction.id, returned)
        except ValidationError as error:
            return Verdict(prediction.id, success=False, failed_reason=storable_text(validation_reason(error)))
        except Exception as error:  # an operator's callable may raise anything
            return Verdict(prediction.id, success=False, failed_reason=reason_of(error))

    def _given(self, prediction: PredictionRecord) -> dict[str, Any]:
        """The output's fields flat, those of `output_type` validated, unknown ones kept, with both ids."""
        stored = prediction.inference_output
        validated = self._output_type.model_validate(stored).model_dump()
        fault = fault_in(to_json(validated), "output")
        if fault:
            raise ValueError(fault)
        return {**stored, **validated, "model_id": prediction.model_id, "prediction_id": prediction.id}

    def _verdict(self, prediction_id: str, returned: Any) -> Verdict:
        if not isinstance(returned, Mapping | BaseModel):
            raise TypeError(f"the scoring function returned a {type(returned).__name__}, not a dict")
        fields = returned.model_dump() if isinstance(returned, BaseModel) else dict(returned)
        result = to_json(self._score_type.model_validate(fields))
        if result.get("success", True):
            return Verdict(prediction_id, success=True, result=storable(result, "score"))
        # What a failed score says of itself is a better reason than the NaN that it may hold.
        reason = storable_text(str(result.get("failed_reason") or NO_REASON))
        kept = {} if fault_in(result, "score") else result
        return Verdict(prediction_id, success=False, result=kept, failed_reason=reason)


def scoring_function(config: CrunchConfig, settings: Settings) -> ScoringFunction:
    """The config's function, else that of SCORING_FUNCTION; the engine's default one is warned about.

    Raises:
        ConfigurationError: SCORING_FUNCTION cannot be imported or takes no prediction and ground truth.
    """
    function: ScoringFunction = config.scoring_function or resolve_callable(settings.scoring_function)
    if function is default_score_prediction:
        log.warning(
            "every prediction will score 0: the default scoring function is in use; "
            "set SCORING_FUNCTION=module:callable or the config's scoring_function"
        )
    return function


def validation_reason(error: ValidationError) -> str:
    """The first faults that pydantic found, in one line."""
    faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}" for fault in error.errors()[:3])
    return f"ValidationError: {error.title}: {faults}"
