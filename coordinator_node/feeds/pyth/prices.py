"""Pyth's price updates: typed, read from its answers, and as observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from coordinator_node.feeds.pyth.feed_ids import normal_id
from coordinator_node.feeds.venue.fields import LATEST_MS, UnreadableError, entry, integer
from coordinator_node.feeds.venue.sampling import Observation
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

WIDEST_EXPONENT = 30
"""Pyth's exponents are about -8; one beyond this is no exponent."""


@dataclass(frozen=True, slots=True)
class PriceUpdate:
    """One update of one feed; price and confidence interval in the quote currency, times in epoch seconds.

    Several updates may have one publish time. `previous_time` is the publish time of the update before, None where
    the venue does not say.
    """

    feed_id: str
    price: Decimal
    confidence: Decimal
    publish_time: int
    previous_time: int | None

    @property
    def is_first(self) -> bool:
        """Whether it is the first update of its second, the only one that the history keeps."""
        return self.previous_time is None or self.previous_time < self.publish_time

    def observation(self) -> Observation:
        """The update as an observation."""
        return Observation(
            time_ms=self.publish_time * 1000,
            order=self.publish_time,
            follows=self.previous_time,
            price=self.price,
            detail={"conf": float(self.confidence)},
        )


def update_of(row: object) -> PriceUpdate:
    """An element of `parsed`. The price is price * 10^expo, exactly; conf alike.

    Raises:
        UnreadableError: it is no such element.
    """
    feed_id = normal_id(str(entry(row, "id")))
    if feed_id is None:
        raise UnreadableError(f"id is {entry(row, 'id')!r}, expected a feed id")
    body = entry(row, "price")
    exponent = integer(entry(body, "expo"), "expo")
    if abs(exponent) > WIDEST_EXPONENT:
        raise UnreadableError(f"expo is {exponent}, expected a number between -30 and 30")
    publish_time = integer(entry(body, "publish_time"), "publish_time")
    if not 0 <= publish_time <= LATEST_MS // 1000:
        raise UnreadableError(f"publish_time is {publish_time}, expected epoch seconds")
    return PriceUpdate(
        feed_id=feed_id,
        price=Decimal(integer(entry(body, "price"), "price")).scaleb(exponent),
        confidence=Decimal(integer(entry(body, "conf"), "conf")).scaleb(exponent),
        publish_time=publish_time,
        previous_time=_previous_time(row),
    )


def updates_of(answer: object, what: str) -> list[PriceUpdate]:
    """The updates of an answer or message; one that cannot be read is named in the log and costs no other.

    Raises:
        UnreadableError: it is no object with `parsed`, or there are several updates and none can be read.
    """
    rows = entry(answer, "parsed")
    if not isinstance(rows, list):
        raise UnreadableError(f"'parsed' is a {type(rows).__name__}, expected a list")
    found: list[PriceUpdate] = []
    faults: list[str] = []
    for row in rows:
        try:
            found.append(update_of(row))
        except UnreadableError as error:
            faults.append(str(error))
            log.warning("row of Pyth refused", what=what, reason=str(error), row=str(row)[:200])
    if len(faults) > 1 and not found:
        raise UnreadableError(faults[0])
    return found


def _previous_time(row: object) -> int | None:
    metadata = row.get("metadata") if isinstance(row, Mapping) else None
    previous = metadata.get("prev_publish_time") if isinstance(metadata, Mapping) else None
    return None if previous is None else integer(previous, "prev_publish_time")
