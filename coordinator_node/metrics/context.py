"""What a metric may look at besides the model's own observations."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordinator_node.entities.times import utc_now


@dataclass
class MetricsContext:
    """One model's window, with the predictions of everyone in it.

    `all_model_predictions` maps a model id to its prediction dicts; it may hold the model itself and ensembles, which
    the measures that compare models leave out. `ensemble_predictions` maps an ensemble's name or id to its prediction
    dicts; measures against "the ensemble" take the first. The shape of a prediction dict is in `observations`.
    """

    model_id: str
    window_start: datetime = field(default_factory=utc_now)
    window_end: datetime = field(default_factory=utc_now)
    all_model_predictions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ensemble_predictions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
