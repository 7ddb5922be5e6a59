"""Live events for web pages and bots."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import StreamingResponse

from coordinator_node.api.auth import READ
from coordinator_node.api.context import Context
from coordinator_node.schemas.report.live import CheckpointEvent, FeedEvent, LeaderboardEvent

router = APIRouter(prefix="/reports", tags=["live"], dependencies=[READ])

# A proxy that collects the answer before it passes it on would hold every event back.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
EXAMPLE = """event: checkpoint
data: {"id":"ckpt-1","status":"PENDING","period_start":"2026-01-24T00:00:00+00:00","period_end":"2026-01-31T00:00:00+00:00","tx_hash":null}

"""  # noqa: E501 - an event's data is one line


def _without_definitions(schema: dict[str, Any]) -> dict[str, Any]:
    """What they define stands on the page already."""
    return {name: part for name, part in schema.items() if name != "$defs"}


EVENT = {
    "type": "object",
    "description": "Each event of the stream.",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["leaderboard", "checkpoint", "feed"], "description": "What data is."},
        "data": {
            "type": "string",
            "description": "JSON of the event's name: what there is now of a leaderboard, a checkpoint or a feed.",
            "contentMediaType": "application/json",
            "contentSchema": {
                "oneOf": [
                    _without_definitions(event.model_json_schema(ref_template="#/components/schemas/{model}"))
                    for event in (LeaderboardEvent, CheckpointEvent, FeedEvent)
                ]
            },
        },
    },
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": EVENT, "example": EXAMPLE}},
        "description": "Server-Sent Events, without end.",
    }
}


@router.get("/events", response_class=StreamingResponse, responses=STREAM)
async def events(context: Context) -> StreamingResponse:
    """What changes, as it does: events `leaderboard`, `checkpoint` and `feed`, each with JSON data.

    First comes the present state: the newest leaderboard, the 20 newest checkpoints, every feed. A leaderboard's event
    says its id and time, a checkpoint's its status, a feed's up to when it is stored and whether that is late. To a
    client that reads slowly only the newest of each is sent. A browser's EventSource sends the key as `?api_key=`.
    """
    if context.live.full:
        raise HTTPException(503, "too many clients listen already")
    return StreamingResponse(context.live.stream(), media_type="text/event-stream", headers=HEADERS)
