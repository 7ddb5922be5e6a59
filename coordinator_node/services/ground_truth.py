"""What really happened: the ground truth of a prediction, from the feed's records of its own subject.

A truth may be resolved once the feed's watermark has reached the prediction's resolvable_at in known time. With
horizon 0 (resolvable_at is performed_at) the truth is what the model was given: its input's raw data, as it stands.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig, GroundTruth
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.json_values import is_plain, reason_of, storable
from coordinator_node.entities.prediction import PredictionRecord
from coordinator_node.services.feed_scope import FeedScope
from coordinator_node.services.feed_windows import Window, known_until, read_windows

_RAW_DATA = text("SELECT id, raw_data_jsonb FROM inputs WHERE id = ANY(CAST(:ids AS text[]))")

type Resolver = Callable[[list[FeedRecord], PredictionRecord], Any]


class Outcome(NamedTuple):
    """The truth; or None, and then `problem` says what the resolver did wrong, None where it is only not yet known."""

    truth: dict[str, Any] | None = None
    problem: str | None = None


NOT_YET = Outcome()


class TruthResolver:
    """Resolves one truth at a time by the config's `resolve_ground_truth`; live and in backtests."""

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._resolve = resolver_of(config.resolve_ground_truth)
        self._type = config.ground_truth_type
        self._default_subject = settings.feed_subjects[0]

    def window_of(self, prediction: PredictionRecord) -> Window:
        """The stretch of the feed that a prediction is judged by."""
        subject = prediction.scope.get("subject") or self._default_subject
        return Window(str(subject), prediction.performed_at, _end(prediction))

    def outcome(self, records: list[FeedRecord], prediction: PredictionRecord) -> Outcome:
        """What the resolver and `ground_truth_type` make of a window's records, once the feed has reached its end."""
        try:
            resolved = self._resolve(records, prediction)
            return NOT_YET if resolved is None else Outcome(self._validated(resolved))
        except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything; it costs this group only
            return Outcome(problem=reason_of(error))

    def _validated(self, resolved: Any) -> dict[str, Any]:
        if self._type is GroundTruth and is_plain(resolved):
            return dict(resolved)  # what the type, which keeps everything, would make of it
        if not isinstance(resolved, Mapping | BaseModel):
            raise TypeError(f"resolve_ground_truth returned a {type(resolved).__name__}, not a dict or None")
        fields = resolved.model_dump() if isinstance(resolved, BaseModel) else dict(resolved)
        truth: dict[str, Any] = storable(self._type.model_validate(fields), "ground truth")
        return truth


class GroundTruths:
    """Resolves ground truths by the config's `resolve_ground_truth`, from one read of each stretch of the feed.

    A record may lie in the windows of several predictions: a resolver must not change what it is given.
    """

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._resolver = TruthResolver(config, settings)
        self._feed = FeedScope.from_settings(settings)

    def outcomes(self, session: Session, predictions: Sequence[PredictionRecord]) -> list[Outcome]:
        """The outcome of each prediction, in their order; each stands for all that share its input, scope and times."""
        at_once = [p for p in predictions if _end(p) <= p.performed_at]
        later = [p for p in predictions if _end(p) > p.performed_at]
        found = {**self._from_inputs(session, at_once), **self._from_feed(session, later)}
        return [found.get(prediction.id, NOT_YET) for prediction in predictions]

    def _from_inputs(self, session: Session, predictions: Sequence[PredictionRecord]) -> dict[str, Outcome]:
        if not predictions:
            return {}
        ids = sorted({prediction.input_id for prediction in predictions})
        raw_data = {row.id: row.raw_data_jsonb or {} for row in session.connection().execute(_RAW_DATA, {"ids": ids})}
        return {prediction.id: Outcome(raw_data[prediction.input_id]) for prediction in predictions}

    def _from_feed(self, session: Session, predictions: Sequence[PredictionRecord]) -> dict[str, Outcome]:
        if not predictions:
            return {}
        windows = [self._resolver.window_of(prediction) for prediction in predictions]
        known = known_until(session, self._feed, [window.subject for window in windows])
        ready = [n for n, window in enumerate(windows) if _reaches(known.get(window.subject), window.end)]
        outcomes: dict[str, Outcome] = {}
        for place, records in read_windows(session, self._feed, [windows[n] for n in ready]):
            prediction = predictions[ready[place]]
            outcomes[prediction.id] = self._resolver.outcome(records, prediction)
        return outcomes


def resolver_of(function: Callable[..., Any]) -> Resolver:
    """The function as one of records and prediction; one written before predictions were handed over gets none."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in callables have no signature to look at
        return lambda records, prediction: function(records, prediction)
    if _binds(signature, [], None):
        return lambda records, prediction: function(records, prediction)
    if "prediction" in signature.parameters:
        return lambda records, prediction: function(records, prediction=prediction)
    return lambda records, _: function(records)


def _binds(signature: inspect.Signature, *arguments: object) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _reaches(known: datetime | None, end: datetime) -> bool:
    return known is not None and known >= end


def _end(prediction: PredictionRecord) -> datetime:
    return prediction.resolvable_at or prediction.performed_at
