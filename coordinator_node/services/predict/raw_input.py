"""What models receive: the newest records of every subject, in time order."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig, InferenceInput
from coordinator_node.entities.errors import RAISED_BY_CALLABLES
from coordinator_node.entities.json_values import finite_or_null, storable, to_json
from coordinator_node.extensions.callable_resolver import configured_callable
from coordinator_node.services.feed_scope import FeedScope

_NEWEST = text(
    """
    SELECT ts_event, values_jsonb FROM feed_records
    WHERE source = :source AND subject = :subject AND kind = :kind AND granularity = :granularity
      AND ts_event <= :latest
    ORDER BY ts_event DESC LIMIT :window
    """
)

# Kinds whose records are prices, which models receive as candles whatever their spacing is.
PRICED_KINDS = ("tick", "candle")

_STORED = text("SELECT raw_data_jsonb FROM inputs WHERE id = :id")

Builder = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class MarketInput:
    """One moment's input: the dict of each subject that has records, and what it is known by.

    `known_at` is when the newest of its records became known; two inputs of one `version` are the same. `several` says
    that the feed has several subjects, whether or not all of them have records yet.
    """

    subjects: dict[str, dict[str, Any]]
    version: tuple[tuple[str, datetime], ...]
    known_at: datetime
    encoded: dict[str, bytes] = field(repr=False)
    several: bool

    def changed_since(self, before: MarketInput | None) -> set[str]:
        """The subjects whose data are others than in an input before; all where there was none."""
        if before is None:
            return set(self.encoded)
        return {subject for subject, data in self.encoded.items() if before.encoded.get(subject) != data}

    def raw_data(self) -> dict[str, Any]:
        """The document that `inputs.raw_data_jsonb` keeps."""
        return {"subjects": self.subjects} if self.several else next(iter(self.subjects.values()))


def input_builder(settings: Settings) -> Builder | None:
    """INFERENCE_INPUT_BUILDER; None where it is not set."""
    return configured_callable(settings, "inference_input_builder")


class SubjectInputs:
    """What models receive of one subject, made of its records; live and in backtests. Pure but for the builder.

    `plain` says that a document is handed over as it is: no builder is set, and `input_type` is the engine's own,
    which keeps everything. `priced` says that its records are candles.
    """

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._lag = FeedScope.from_settings(settings).lag
        self.priced = settings.feed_kind in PRICED_KINDS
        self._input_type = config.input_type
        self._builder = input_builder(settings)
        self.plain = self._builder is None and config.input_type is InferenceInput

    def item(self, at: datetime, values: dict[str, Any]) -> dict[str, Any]:
        """One record of a document, with its ts_event in whole epoch seconds."""
        return _candle(at, values) if self.priced else {"ts": int(at.timestamp()), **values}

    def document(self, subject: str, newest_at: datetime, items: list[dict[str, Any]]) -> dict[str, Any]:
        """The document of items in time order, the newest of which happened at `newest_at`."""
        as_of = int((newest_at + self._lag).timestamp())
        return {"symbol": subject, "asof_ts": as_of, "candles_1m" if self.priced else "records": items}

    def built(self, subject: str, rows: list[tuple[datetime, dict[str, Any]]]) -> dict[str, Any]:
        """What models receive of a subject whose newest records are these (ts_event, values), in time order.

        Raises:
            InputBuilderError: as `checked`.
        """
        items = [self.item(at, values) for at, values in rows]
        return self.checked(subject, self.document(subject, rows[-1][0], items))

    def checked(self, subject: str, document: dict[str, Any]) -> dict[str, Any]:
        """What the builder and `input_type` make of a document.

        Raises:
            InputBuilderError: the operator's builder raised, or gave what `input_type` refuses.
        """
        if self.plain:
            return document
        try:
            data = self._builder(document) if self._builder else document
            # An indicator has no value before it has enough records: null, which is JSON's word for its NaN.
            made: dict[str, Any] = storable(finite_or_null(to_json(self._input_type.model_validate(data))), "it")
            return made
        except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything; the input is skipped
            raise InputBuilderError(f"input of {subject}: {type(error).__name__}: {error}") from error


class InputReader:
    """Reads inputs from the stored records, through the operator's builder where there is one."""

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._scope = FeedScope.from_settings(settings)
        self._subjects = settings.feed_subjects
        self._several = len(self._subjects) > 1
        self._window = settings.feed_candles_window
        self._inputs = SubjectInputs(config, settings)

    def read(self, session: Session, at: datetime) -> MarketInput | None:
        """The input as it was known at a time; None while no subject has a record.

        Raises:
            InputBuilderError: the operator's builder raised, or gave what `input_type` refuses.
        """
        subjects: dict[str, dict[str, Any]] = {}
        version: list[tuple[str, datetime]] = []
        for subject in self._subjects:
            rows = self._newest(session, subject, at)
            if rows:
                subjects[subject] = self._inputs.built(subject, rows)
                version.append((subject, rows[-1][0]))
        if not subjects:
            return None
        known_at = max(ts for _, ts in version) + timedelta(seconds=self._scope.known_lag)
        return MarketInput(subjects, tuple(version), known_at, _encode(subjects), self._several)

    def stored(self, session: Session, input_id: str, slot_at: datetime) -> MarketInput:
        """The input of a slot that another worker opened, as that one stored it."""
        raw = session.connection().execute(_STORED, {"id": input_id}).scalar_one() or {}
        subjects = raw["subjects"] if self._several else {self._subjects[0]: raw}
        return MarketInput(subjects, ((input_id, slot_at),), slot_at, _encode(subjects), self._several)

    def _newest(self, session: Session, subject: str, at: datetime) -> list[tuple[datetime, dict[str, Any]]]:
        values = {
            "source": self._scope.source,
            "subject": subject,
            "kind": self._scope.kind,
            "granularity": self._scope.granularity,
            "latest": at - timedelta(seconds=self._scope.known_lag),
            "window": self._window,
        }
        rows = session.connection().execute(_NEWEST, values).all()
        return [(row[0], row[1] or {}) for row in reversed(rows)]


class InputBuilderError(RuntimeError):
    """INFERENCE_INPUT_BUILDER or `input_type` refused what the feed gave, or made of it what cannot be stored.

    This input is skipped.
    """


def encoded(data: dict[str, Any]) -> bytes:
    """The JSON that a model is sent."""
    return json.dumps(data, allow_nan=False).encode()


def _encode(subjects: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    return {subject: encoded(data) for subject, data in subjects.items()}


def _candle(at: datetime, values: dict[str, Any]) -> dict[str, Any]:
    """A record as a candle; a tick is one whose four prices are the same."""
    price = values.get("price", values.get("close"))
    return {
        "ts": int(at.timestamp()),
        "open": values.get("open", price),
        "high": values.get("high", price),
        "low": values.get("low", price),
        "close": values.get("close", price),
        "volume": values.get("volume", 0.0),
    }
