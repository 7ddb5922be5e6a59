"""Live events, as the API's stream sends them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, get_args

from pydantic import ValidationError

from coordinator_node.client.errors import ApiAnswerError
from coordinator_node.schemas.report.live import CheckpointEvent, EventData, EventName, FeedEvent, LeaderboardEvent

_TYPES: dict[str, type[LeaderboardEvent | CheckpointEvent | FeedEvent]] = {
    "leaderboard": LeaderboardEvent,
    "checkpoint": CheckpointEvent,
    "feed": FeedEvent,
}


class LiveEvent(NamedTuple):
    """What happened, and to what."""

    name: EventName
    data: EventData


def events_of(lines: Iterable[bytes]) -> Iterator[LiveEvent]:
    """The events of a stream's lines; those of a name that this version does not know are left out.

    Raises:
        ApiAnswerError: an event's data is not what its name says.
    """
    name = ""
    for line in lines:
        field, _, value = line.partition(b": ")
        if field == b"event":
            name = value.decode()
        elif field == b"data" and name in get_args(EventName):
            try:
                data = _TYPES[name].model_validate_json(value)
            except ValidationError as error:
                fault = error.errors(include_input=False)[0]["msg"]
                raise ApiAnswerError(f"reading an event {name}", 200, fault) from None
            yield LiveEvent(name, data)  # type: ignore[arg-type] # it is one of EventName's, which mypy cannot see
