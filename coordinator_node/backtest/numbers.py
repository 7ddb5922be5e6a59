"""The numbers of judged predictions as arrays, read once for the curve, the metrics and the frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator_node.backtest.judge import Judged
from coordinator_node.entities.prediction import PredictionStatus
from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.values import return_of, score_of, signal_of


class Numbers(NamedTuple):
    """One entry a prediction, in their order. NaN in `signals`, `returns` and `scores` where there is none.

    `scored` says which predictions are SCORED; `scopes` numbers their scope_keys in alphabetical order.
    """

    signals: Floats
    returns: Floats
    scores: Floats
    scored: NDArray[np.bool_]
    scopes: NDArray[np.intp]


def numbers_of(judged: Sequence[Judged]) -> Numbers:
    """The numbers of one model's predictions."""
    keys = [one.record.scope_key for one in judged]
    places = {key: place for place, key in enumerate(sorted(set(keys)))}
    results = [one.result for one in judged]
    return Numbers(
        signals=_floats([signal_of(one.record.inference_output) for one in judged]),
        returns=_floats([return_of(result, one.truth) for result, one in zip(results, judged, strict=True)]),
        scores=_floats([score_of(result) for result in results]),
        scored=np.array([one.record.status is PredictionStatus.SCORED for one in judged], dtype=np.bool_),
        scopes=np.array([places[key] for key in keys], dtype=np.intp),
    )


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array(values, dtype=np.float64)  # None becomes NaN
