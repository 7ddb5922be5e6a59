"""The boundary of the engine: a source's record becomes a FeedRecord here, or is refused with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.entities.json_values import UnstorableError, storable
from coordinator_node.entities.times import event_time
from coordinator_node.feeds.contracts import FeedDataKind, FeedDataRecord
from coordinator_node.feeds.errors import MalformedRecordError


def to_feed_record(record: FeedDataRecord, ingested_at: datetime) -> FeedRecord:
    """A source's record as the engine stores it: time aware and in UTC, values and meta plain JSON.

    `ingested_at` is the moment the engine got it (aware). Numpy scalars and decimals among the values become Python
    numbers.

    Raises:
        MalformedRecordError: an empty or unstorable text; a time that is not finite or has no zone; no values; a
            number in `values` or `metadata` that is NaN or infinite; a value that JSON does not have.
    """
    try:
        return FeedRecord(
            source=_name("source", record.source),
            subject=_name("subject", record.subject),
            kind=_kind(record.kind),
            granularity=_name("granularity", record.granularity),
            ts_event=_time(record.ts_event),
            values=_values(record.values),
            meta=_json_object("metadata", record.metadata),
            ts_ingested=event_time(ingested_at),
        )
    except (_RefusedError, UnstorableError) as refused:
        raise MalformedRecordError(record.subject, str(refused)) from refused.__cause__


@dataclass(frozen=True)
class AskedFor:
    """What a source was asked for: whatever it names its records, they are stored under these names or not at all.

    Under any other name they would be rows that no stage reads, and a watermark that nobody waits for.
    """

    source: str
    subjects: tuple[str, ...]
    kind: str
    granularity: str

    def named(self, record: FeedRecord) -> FeedRecord:
        """The record under the names that were asked for.

        Its source is the name under which the source is registered, because one class may serve under several; its
        subject is spelt as it was asked for, where only upper and lower case differ.

        Raises:
            MalformedRecordError: it is of another subject, kind or granularity.
        """
        for what in ("kind", "granularity"):
            given, asked = getattr(record, what), getattr(self, what)
            if given != asked:
                raise MalformedRecordError(record.subject, f"its {what} is {given}, but {asked} was asked for")
        return replace(record, source=self.source, subject=self._subject(record.subject))

    def _subject(self, given: str) -> str:
        if given in self.subjects:
            return given
        alike = [subject for subject in self.subjects if subject.lower() == given.strip().lower()]
        if len(alike) != 1:
            raise MalformedRecordError(given, f"only {', '.join(self.subjects)} was asked for")
        return alike[0]


class _RefusedError(Exception):
    """What is wrong, before it is known of which subject."""


def _name(what: str, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise _RefusedError(f"{what} is {text!r}, expected a text that is not empty")
    return str(storable(text, what))


def _kind(kind: object) -> str:
    try:
        return FeedDataKind(kind).value  # type: ignore[arg-type]  # a source may give anything; the enum refuses it
    except ValueError:
        raise _RefusedError(f"kind is {kind!r}, expected one of {', '.join(FeedDataKind)}") from None


def _time(ts_event: object) -> datetime:
    if isinstance(ts_event, np.generic):
        ts_event = ts_event.item()
    if isinstance(ts_event, bool) or not isinstance(ts_event, int | float | datetime):
        raise _RefusedError(f"ts_event is {ts_event!r}, expected epoch seconds or an aware datetime")
    if isinstance(ts_event, float) and not math.isfinite(ts_event):
        raise _RefusedError(f"ts_event is {ts_event}, expected a finite number of seconds")
    try:
        return event_time(ts_event)
    except (ValueError, OverflowError, OSError) as error:
        hint = "" if isinstance(ts_event, datetime) else " (epoch seconds are expected, not milliseconds)"
        raise _RefusedError(f"ts_event {ts_event!r} is not a time: {error}{hint}") from error


def _values(values: object) -> dict[str, Any]:
    if isinstance(values, Mapping):
        # JSON would write a decimal as text, which whoever computes with a price does not expect.
        values = {key: float(value) if isinstance(value, Decimal) else value for key, value in values.items()}
    checked = _json_object("values", values)
    if not checked:
        raise _RefusedError("values is empty: nothing was observed")
    return checked


def _json_object(what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _RefusedError(f"{what} is a {type(value).__name__}, expected a dict")
    return dict(storable(value, what))
