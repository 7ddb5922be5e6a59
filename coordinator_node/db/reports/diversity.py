"""How much models differ from one another, by their latest snapshots."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from coordinator_node.db.reports.expressions import IS_REAL_MODEL
from coordinator_node.db.reports.records import Record, fetch

MEASURES = ("ic", "model_correlation", "ensemble_correlation", "contribution", "fnc")


class DiversityPlace(NamedTuple):
    """Where a row stands in the order: most diverse first, unknown ones (-1) last, then by model."""

    place: float
    model_id: str

    @classmethod
    def of(cls, row: Record) -> DiversityPlace:
        """The place of a row."""
        return cls(row["place"], row["model_id"])


# JSON may hold numbers that no double can.
_MEASURES = ", ".join(
    f"CASE WHEN jsonb_typeof(latest.summary -> '{name}') = 'number'"
    f" AND abs(CAST(latest.summary -> '{name}' AS numeric)) <= 1e290"
    f" THEN CAST(latest.summary -> '{name}' AS double precision) END AS {name}"
    for name in MEASURES
)
_LATEST = f"""
    SELECT models.id AS model_id, latest.period_end, {_MEASURES}
    FROM models {{join}} JOIN LATERAL (
        SELECT period_end, result_summary_jsonb AS summary FROM snapshots
        WHERE model_id = models.id AND prediction_count > 0 AND superseded_by IS NULL
        ORDER BY period_end DESC, created_at DESC, id DESC LIMIT 1
    ) AS latest ON true
    WHERE {{condition}}
"""  # noqa: S608 - put together from constants of this module
# Of nothing and 0 the greatest is 0, which would be a copy.
_ORDERED = text(
    f"""
    SELECT *, NULLIF(place, -1) AS diversity_score FROM (
        SELECT *, CASE WHEN model_correlation IS NULL THEN -1 ELSE greatest(0, 1 - abs(model_correlation)) END AS place
        FROM ({_LATEST.format(join="", condition=IS_REAL_MODEL.format("models.id"))}) AS measured
    ) AS scored
    WHERE CAST(:after AS double precision) IS NULL OR place < :after OR (place = :after AND model_id > :after_id)
    ORDER BY place DESC, model_id LIMIT :limit
    """  # noqa: S608 - put together from constants of this module
)
_ONE = text(_LATEST.format(join="LEFT", condition="models.id = :model_id"))
_RANK = text(
    """
    SELECT entry.value -> 'rank' FROM (
        SELECT entries_jsonb FROM leaderboards ORDER BY created_at DESC, id DESC LIMIT 1
    ) AS newest CROSS JOIN LATERAL jsonb_array_elements(
        CASE WHEN jsonb_typeof(newest.entries_jsonb) = 'array' THEN newest.entries_jsonb END
    ) AS entry
    WHERE entry.value ->> 'model_id' = :model_id LIMIT 1
    """
)


def most_diverse(connection: Connection, limit: int, after: DiversityPlace | None) -> list[Record]:
    """The real models that have a snapshot, most diverse first, those behind `after`."""
    values = {"limit": limit, "after": after and after.place, "after_id": after and after.model_id}
    return fetch(connection, _ORDERED, values)


def model_measures(connection: Connection, model_id: str) -> Record | None:
    """One model's measures, all None before its first snapshot; None where there is no such model."""
    found = fetch(connection, _ONE, {"model_id": model_id})
    return found[0] if found else None


def newest_rank(connection: Connection, model_id: str) -> int | None:
    """A model's rank on the newest leaderboard; None where it is not ranked."""
    rank: Any = connection.execute(_RANK, {"model_id": model_id}).scalar()
    return rank if isinstance(rank, int) else None
