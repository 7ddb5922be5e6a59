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
from coordinator_node.crunch_config import CrunchConfig
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


class InputReader:
    """Reads inputs from the stored records, through the operator's builder where there is one."""

    def __init__(self, config: CrunchConfig, settings: Settings) -> None:
        self._scope = FeedScope.from_settings(settings)
        self._subjects = settings.feed_subjects
        self._several = len(self._subjects) > 1
        self._window = settings.feed_candles_window
        self._input_type = config.input_type
        self._builder = input_builder(settings)

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
                subjects[subject] = self.built(subject, rows)
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

    def built(self, subject: str, rows: list[tuple[datetime, dict[str, Any]]]) -> dict[str, Any]:
        """What models receive of a subject whose newest records are these (ts_event, values), in time order.

        Raises:
            InputBuilderError: as `read`.
        """
        as_of = rows[-1][0] + timedelta(seconds=self._scope.known_lag)
        raw: dict[str, Any] = {"symbol": subject, "asof_ts": int(as_of.timestamp())}
        if self._scope.kind in PRICED_KINDS:
            raw["candles_1m"] = [_candle(at, values) for at, values in rows]
        else:
            raw["records"] = [{"ts": int(at.timestamp()), **values} for at, values in rows]
        try:
            data = self._builder(raw) if self._builder else raw
            # An indicator has no value before it has enough records: null, which is JSON's word for its NaN.
            built: dict[str, Any] = storable(finite_or_null(to_json(self._input_type.model_validate(data))), "it")
            return built
        except RAISED_BY_CALLABLES as error:  # an operator's callable may raise anything; the input is skipped
            raise InputBuilderError(f"input of {subject}: {type(error).__name__}: {error}") from error


class InputBuilderError(RuntimeError):
    """INFERENCE_INPUT_BUILDER or `input_type` refused what the feed gave, or made of it what cannot be stored.

    This input is skipped.
    """


def _encode(subjects: dict[str, dict[str, Any]]) -> dict[str, bytes]:
    return {subject: json.dumps(data, allow_nan=False).encode() for subject, data in subjects.items()}


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
