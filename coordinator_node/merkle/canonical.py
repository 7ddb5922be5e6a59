"""One text, so one hash, for one record: canonical JSON after RFC 8785.

What is hashed must come back the same from the database. JSONB keeps numbers by value, so 1e16 returns as an integer,
and readers of JSON hold integers exactly only up to 2^53: larger numbers are refused, whole or not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import rfc8785

from coordinator_node.entities.prediction import SnapshotRecord

SNAPSHOT_VERSION = 1
"""Version of the snapshot document; a new set of fields takes a new number."""

LARGEST_NUMBER = 2**53 - 1
"""The largest magnitude of a number in a canonical document: up to here every integer is exact (RFC 7493, I-JSON)."""


def time_text(moment: datetime) -> str:
    """RFC 3339 text in UTC with six digits of microseconds, as in `2026-01-02T03:04:05.000006Z`.

    Raises:
        ValueError: a naive time, because a hash must not depend on a guess.
    """
    if moment.tzinfo is None:
        raise ValueError(f"time {moment.isoformat()} has no time zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def canonical_bytes(document: Mapping[str, Any]) -> bytes:
    """The document as canonical JSON in UTF-8 (RFC 8785); aware times become `time_text`.

    Raises:
        ValueError: NaN, infinity, a number beyond 2^53 - 1, a naive time, a key that is not text, text that is not
            valid Unicode, or a type that JSON has not; the message names where.
    """
    return rfc8785.dumps(_plain(document, "document"))


def canonical_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of `canonical_bytes`, in lower-case hexadecimal digits; raises as that does."""
    return hashlib.sha256(canonical_bytes(document)).hexdigest()


def snapshot_document(snapshot: SnapshotRecord) -> dict[str, Any]:
    """What a snapshot's hash covers: all its fields, and the version of this document."""
    return {
        "version": SNAPSHOT_VERSION,
        "id": snapshot.id,
        "model_id": snapshot.model_id,
        "period_start": snapshot.period_start,
        "period_end": snapshot.period_end,
        "prediction_count": snapshot.prediction_count,
        "result_summary": snapshot.result_summary,
        "meta": snapshot.meta,
        "created_at": snapshot.created_at,
    }


def canonical_snapshot_hash(snapshot: SnapshotRecord) -> str:
    """SHA-256 of the snapshot's canonical bytes, in lower-case hexadecimal digits.

    Raises:
        ValueError: a field cannot be written canonically, see `canonical_bytes`; the message names the snapshot.
    """
    try:
        return canonical_hash(snapshot_document(snapshot))
    except ValueError as error:
        raise ValueError(f"snapshot {snapshot.id} cannot be hashed: {error}") from error


def _plain(value: Any, where: str) -> Any:
    """The value in the types of JSON; `where` is its place, for the message."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(value, where)
    if isinstance(value, int | float):
        return _checked_number(value, where)
    if isinstance(value, datetime):
        return _checked_time(value, where)
    if isinstance(value, Mapping):
        return {_checked_key(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ValueError(f"{where} is a {type(value).__name__}, which JSON has not")


def _checked_key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{where} has the key {key!r}, which is not text")
    return _checked_text(key, f"a key of {where}")


def _checked_text(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} holds half a surrogate pair, which is not valid Unicode") from None
    return text


def _checked_number(number: float, where: str) -> float:
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{where} is {number}, which JSON has not")
    if abs(number) > LARGEST_NUMBER:
        raise ValueError(f"{where} is beyond 2^53 - 1 in magnitude, where integers are no longer exact")
    return number


def _checked_time(moment: datetime, where: str) -> str:
    try:
        return time_text(moment)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
