"""What one prediction is worth, by the operator's scoring function. Pure but for what that function does."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig, InferenceOutput, ScoreResult
from coordinator_node.entities.errors import RAISED_BY_CALLABLES, ConfigurationError
from coordinator_node.entities.json_values import (
    UnstorableError,
    fault_in,
    is_plain,
    reason_of,
    storable,
    storable_text,
    to_json,
    validation_reason,
)
from coordinator_node.extensions.callable_resolver import call_fault, configured_callable
from coordinator_node.extensions.default_callables import default_score_prediction

type ScoringFunction = Callable[..., Any]

type State = dict[str, Any]
"""What a scoring function keeps of one model; {} at first."""

NO_REASON = "the scoring function said success=false without a reason"


class Verdict(NamedTuple):
    """What came of scoring one prediction: a result that counts, or the reason why none does (and what is left)."""

    prediction_id: str
    success: bool
    result: dict[str, Any] | None = None
    failed_reason: str | None = None


class Scorer:
    """Scores predictions as the config says: `scoring_function`, else SCORING_FUNCTION.

    Raises:
        ConfigurationError: when made, see `scoring_function`.
    """

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._function = scoring_function(config, settings)
        self._output_type = config.output_type
        self._score_type = config.score_type

    def score(
        self,
        prediction_id: str,
        model_id: str,
        output: Mapping[str, Any] | None,
        truth: Mapping[str, Any],
        state: dict[str, Any] | None = None,
    ) -> Verdict:
        """The verdict on one prediction; whatever the function does costs this prediction only.

        `state` is handed on to a function that keeps some; None calls one that keeps none.
        """
        try:
            given = self._given(prediction_id, model_id, {} if output is None else output)
            rest = () if state is None else (state,)
            return self._verdict(prediction_id, self._function(given, dict(truth), *rest))
        except ValidationError as error:
            return Verdict(prediction_id, success=False, failed_reason=storable_text(validation_reason(error)))
        except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything
            return Verdict(prediction_id, success=False, failed_reason=reason_of(error))

    def score_keeping(
        self,
        prediction_id: str,
        model_id: str,
        output: Mapping[str, Any] | None,
        truth: Mapping[str, Any],
        before: State,
    ) -> tuple[Verdict, State]:
        """The verdict of a function that keeps state, and the state after it.

        What a score that failed did to the state is dropped, and so is a score that left one that cannot be stored.
        """
        state = copy.deepcopy(before)
        verdict = self.score(prediction_id, model_id, output, truth, state)
        if not verdict.success:
            return verdict, before
        try:
            return verdict, storable(state, "state")
        except UnstorableError as error:
            return Verdict(prediction_id, success=False, failed_reason=f"UnstorableError: {error}"), before

    def _given(self, prediction_id: str, model_id: str, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The output's fields flat, those of `output_type` validated, unknown ones kept, with both ids."""
        if self._output_type is InferenceOutput and _has_finite_value(stored):
            # What the type would make of it; most predictions are of this kind.
            return {**stored, "model_id": model_id, "prediction_id": prediction_id}
        validated = self._output_type.model_validate(stored).model_dump()
        fault = fault_in(to_json(validated), "output")
        if fault:
            raise ValueError(fault)
        return {**stored, **validated, "model_id": model_id, "prediction_id": prediction_id}

    def _verdict(self, prediction_id: str, returned: Any) -> Verdict:
        if self._score_type is ScoreResult and (plain := plain_result(returned)) is not None:
            return Verdict(prediction_id, success=True, result=plain)
        if not isinstance(returned, Mapping | BaseModel):
            raise TypeError(f"the scoring function returned a {type(returned).__name__}, not a dict")
        fields = returned.model_dump() if isinstance(returned, BaseModel) else dict(returned)
        result = to_json(self._score_type.model_validate(fields))
        if result.get("success", True):
            return Verdict(prediction_id, success=True, result=storable(result, "score"))
        # What a failed score says of itself is a better reason than the NaN that it may hold.
        reason = storable_text(str(result.get("failed_reason") or NO_REASON))
        kept = None if fault_in(result, "score") else result
        return Verdict(prediction_id, success=False, result=kept, failed_reason=reason)


def plain_result(returned: Any) -> dict[str, Any] | None:
    """What `ScoreResult` makes of a successful result of plain, storable, flat values; None for any other.

    It saves four fifths of the time that validating and checking takes, and decides nothing else.
    """
    if type(returned) is not dict or not _has_finite_value(returned):
        return None
    if returned.get("success", True) is not True or returned.get("failed_reason") is not None:
        return None
    if not is_plain(returned):
        return None
    return {"value": 0.0, "success": True, "failed_reason": None, **returned}


def _has_finite_value(fields: Mapping[str, Any]) -> bool:
    value = fields.get("value") if type(fields) is dict else None
    return type(value) is float and math.isfinite(value)


def scoring_function(config: CrunchConfig, settings: Settings) -> ScoringFunction:
    """The config's function, else that of SCORING_FUNCTION, to be called as `stateful_scoring` says.

    Raises:
        ConfigurationError: SCORING_FUNCTION cannot be imported, or the function does not take a prediction and its
            ground truth, and with stateful_scoring=True the state.
    """
    function = named_function(config, settings)
    if function is default_score_prediction and config.stateful_scoring:
        return lambda prediction, ground_truth, _: default_score_prediction(prediction, ground_truth)
    check_parameters(function, stateful=config.stateful_scoring)
    return function


def named_function(config: CrunchConfig, settings: Settings) -> ScoringFunction:
    """The config's function, else that of SCORING_FUNCTION, as it is.

    Raises:
        ConfigurationError: SCORING_FUNCTION cannot be imported.
    """
    return config.scoring_function or configured_callable(settings, "scoring_function") or default_score_prediction


def check_parameters(function: ScoringFunction, *, stateful: bool) -> None:
    """Refuse a scoring function that could not be called.

    Raises:
        ConfigurationError: it does not take (prediction, ground_truth), or (prediction, ground_truth, state).
    """
    wanted = ("prediction", "ground_truth", "state") if stateful else ("prediction", "ground_truth")
    fault = call_fault(function, *wanted)
    if fault:
        raise ConfigurationError(f"with stateful_scoring={stateful} the scoring function {fault}")
