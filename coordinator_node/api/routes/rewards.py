"""Who was rewarded how much. Its path is public, while all else below /reports/checkpoints/ needs the key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from coordinator_node.api.answers import UNCHANGED, TaggedRoute, json_answer
from coordinator_node.api.auth import PUBLIC
from coordinator_node.api.context import Context
from coordinator_node.api.pages import PAGED, Paging
from coordinator_node.api.parameters import Limit, ModelId
from coordinator_node.api.points import numbers
from coordinator_node.db.reports.checkpoints import CheckpointPlace, each_checkpoint
from coordinator_node.db.reports.records import Record
from coordinator_node.schemas.report.payouts import Reward
from coordinator_node.schemas.report.standings import reserved
from coordinator_node.schemas.report.wire import object_or_empty, of_type
from coordinator_node.services.payout import reward_shares

router = APIRouter(
    prefix="/reports", tags=["checkpoints"], dependencies=[PUBLIC], route_class=TaggedRoute, responses=UNCHANGED
)

MOST_ROWS = 5000

_RESERVED = reserved(Reward)


@router.get("/checkpoints/rewards", response_model=list[Reward], responses=PAGED)
def rewards(context: Context, request: Request, pages: Paging, model_id: ModelId = None, limit: Limit = 20) -> Response:
    """What each ranked model was rewarded in the newest `limit` checkpoints: newest first, then by rank.

    A checkpoint whose emission or ranking cannot be read is left out. At most 5,000 rows, whole checkpoints each.
    """
    places: list[CheckpointPlace] = []
    told: list[Reward] = []
    whole = 0
    with context.database.reading() as connection:
        for row in each_checkpoint(connection, most=limit + 1, after=pages.after(CheckpointPlace), model_id=model_id):
            places.append(CheckpointPlace.of(row))
            own = _rewards(row, model_id)
            if whole == limit or (whole and len(told) + len(own) > MOST_ROWS):
                break
            told += own
            whole += 1
    pages.page(places, whole, tuple)
    return json_answer(request, told, pages.next, tagged=True)


def _rewards(checkpoint: Record, model_id: str | None) -> list[Reward]:
    ranking = object_or_empty(checkpoint["meta"]).get("ranking")
    shares = reward_shares(checkpoint)
    if shares is None or not isinstance(ranking, list):
        return []
    entries = [(index, entry) for index, entry in enumerate(ranking) if isinstance(entry, dict)]
    made = [_reward(checkpoint, entry, shares.get(index, 0.0)) for index, entry in entries]
    return [reward for reward in made if model_id in (None, reward.model_id)]


def _reward(checkpoint: Record, entry: dict[str, Any], percentage: float) -> Reward:
    summary = numbers(object_or_empty(entry.get("result_summary")))
    return Reward(
        **{name: value for name, value in summary.items() if name not in _RESERVED},
        checkpoint_id=checkpoint["id"],
        period_start=checkpoint["period_start"],
        period_end=checkpoint["period_end"],
        model_id=str(entry.get("model_id")),
        model_name=of_type(entry.get("model_name"), str),
        rank=of_type(entry.get("rank"), int),
        reward_pct=percentage,
        prediction_count=of_type(entry.get("prediction_count"), int),
    )
