"""What is stored of an answer: the output that was read from it, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.json_values import reason_of, storable_text
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.runtime.metrics import count_failure
from coordinator_node.services.predict.answers import RefusedAnswerError, output_validator, read_answer
from coordinator_node.services.predict.lanes import Answer

TIMEOUT = "timeout"

# The columns of a prediction that say what came of asking its model.
ABSENT: dict[str, Any] = {
    "status": PredictionStatus.ABSENT.value,
    "exec_time_ms": 0.0,
    "inference_output_jsonb": {},
    "failed_reason": None,
    "answered_at": None,
}


class Outcomes:
    """Judges answers by the config's `output_type` and the operator's validator."""

    def __init__(self, config: CrunchConfig, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._output_type = config.output_type
        self._validator = output_validator(settings)
        self._clock = clock

    def of(self, answer: Answer, deadline_at: datetime | None = None) -> dict[str, Any]:
        """The columns of the prediction, the same as in ABSENT; an answer after the deadline is refused."""
        now = self._clock()
        error = answer.error or (TIMEOUT if deadline_at and now > deadline_at else None)
        output: dict[str, Any] = {}
        if error is None:
            try:
                output = read_answer(answer.value, self._output_type, self._validator)
            except RefusedAnswerError as refused:
                error = str(refused)
            except RAISED_BY_CALLABLES as broken:  # an operator's type, or a stranger's frame, may raise anything
                error = f"the answer could not be read: {reason_of(broken)}"
        if error:
            count_failure("predict", error)
        return {
            "status": (PredictionStatus.FAILED if error else PredictionStatus.PENDING).value,
            "exec_time_ms": answer.exec_time_ms,
            "inference_output_jsonb": output,
            "failed_reason": storable_text(error) if error else None,
            "answered_at": None if answer.error else now,
        }
