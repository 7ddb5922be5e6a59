"""All that a stranger needs to recompute a checkpoint, in pages.

The pages walk the chain of cycles from the one before the first that the checkpoint's ranking looks back to, so that
nobody can leave out its first, up to the newest that it could see. Within a cycle a snapshot comes before the
predictions that it counts; these are shown for the cycles that the checkpoint itself covers, the others' belong to
earlier checkpoints. What a rescore replaced is there too, with the generation that it was superseded by before the
checkpoint was made. Snapshots outside the log (older than it) come first, if the checkpoint's ranking could see them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from coordinator_node.db.reports.merkle import HASH_BYTES, commitments_by_id, rows_over_stored
from coordinator_node.db.reports.records import Record, fetch
from coordinator_node.merkle.canonical import canonical_or_none, time_text
from coordinator_node.merkle.tree import path_in

ITEMS = 1000
"""How many snapshots and predictions a page holds, together."""

_CHECKPOINT = """
    SELECT id, period_start, period_end, status, entries_jsonb AS entries, meta_jsonb AS meta, created_at, merkle_root
    FROM checkpoints
"""
# The roots of 0.1.84 are of another kind, and say nothing of what they cover.
_SEALED = "merkle_root IS NOT NULL AND meta_jsonb #> '{merkle,generation}' IS NOT NULL"
_LATEST = text(f"{_CHECKPOINT} WHERE {_SEALED} ORDER BY period_end DESC, created_at DESC, id DESC LIMIT 1")
_BY_ID = text(f"{_CHECKPOINT} WHERE id = :id AND {_SEALED}")
_CHAIN_BEGINS = 1
# A cycle counts nothing that ends after it was made, so that the first one to count what ends after a moment is among
# those made since; an hour more is for clocks that were set. They are few beside the whole chain: without the OFFSET it
# would be read from its beginning.
_FIRST_POSITION = text(
    """
    SELECT least((SELECT min(position) FROM merkle_cycles WHERE checkpoint_id = :id), (
        SELECT position FROM merkle_cycles AS cycle
        WHERE position >= (
            SELECT min(position) FROM (
                SELECT position FROM merkle_cycles
                WHERE created_at > CAST(:after AS timestamptz) - interval '1 hour' OFFSET 0
            ) AS since
        ) AND EXISTS (
            SELECT FROM snapshots WHERE cycle_id = cycle.id AND period_end > :after AND period_end < :until
        ) ORDER BY position LIMIT 1))
    """
)
_CYCLES = text(
    """
    SELECT id, position, previous_cycle_id, previous_cycle_root, commitments_root, snapshots_root, chained_root,
           snapshot_count, prediction_count, created_at, COALESCE(checkpoint_id = :id, false) AS covered,
           snapshot_count + CASE WHEN checkpoint_id = :id THEN prediction_count ELSE 0 END AS items
    FROM merkle_cycles WHERE position >= :position AND position <= :last ORDER BY position LIMIT :limit
    """
)
_SNAPSHOT_COLUMNS = """
    snapshot.id, snapshot.model_id, snapshot.period_start, snapshot.period_end, snapshot.prediction_count,
    snapshot.result_summary_jsonb AS result_summary, snapshot.meta_jsonb AS meta, snapshot.created_at
"""
# As it was when the checkpoint was made: what was scored again later still counted then.
_SUPERSEDED_BY = """
    CASE WHEN snapshot.superseded_by <= :generation THEN snapshot.superseded_by END AS superseded_by
"""
_SNAPSHOTS = text(
    f"""
    SELECT node.snapshot_id, node.cycle_id, node.position, node.snapshot_content_hash AS content_hash,
           counted.predictions_root,
           CASE WHEN cycle.checkpoint_id = :id THEN COALESCE(counted.prediction_ids_jsonb, '[]') ELSE '[]' END
               AS prediction_ids,
           CASE WHEN cycle.checkpoint_id = :id THEN counted.leaves END AS leaves, {_SNAPSHOT_COLUMNS},
           {_SUPERSEDED_BY}
    FROM merkle_nodes AS node
    JOIN merkle_cycles AS cycle ON cycle.id = node.cycle_id
    LEFT JOIN merkle_counted AS counted ON counted.snapshot_id = node.snapshot_id
    LEFT JOIN snapshots AS snapshot ON snapshot.id = node.snapshot_id
    WHERE node.cycle_id = ANY(CAST(:cycles AS text[])) AND node.level = 0
    ORDER BY cycle.position, node.position
    """  # noqa: S608 - put together from this module's own text
)
_OUTSIDE = text(
    f"""
    SELECT snapshot.id AS snapshot_id, NULL AS cycle_id, NULL AS position, NULL AS content_hash,
           NULL AS predictions_root,
           CAST('[]' AS jsonb) AS prediction_ids, NULL AS leaves, {_SNAPSHOT_COLUMNS},
           {_SUPERSEDED_BY}
    FROM snapshots AS snapshot
    WHERE period_end > :after AND period_end < :until AND created_at <= :made_at AND origin_id IS NULL
      AND cycle_id IS NULL AND NOT EXISTS (SELECT 1 FROM merkle_nodes WHERE snapshot_id = snapshot.id)
    ORDER BY snapshot.id OFFSET :offset LIMIT :limit
    """  # noqa: S608 - put together from this module's own text
)
_PREDICTIONS = text(
    """
    SELECT given.place, prediction.id, prediction.model_id, prediction.input_id, prediction.scope_key,
           prediction.scope_jsonb AS scope, prediction.inference_output_jsonb AS output, prediction.performed_at,
           prediction.resolvable_at, prediction.status, prediction.failed_reason, prediction.commitment_id,
           prediction.commitment_index, scores.id AS score_id, scores.success, scores.failed_reason AS score_reason,
           scores.result_jsonb AS result, scores.scored_at, CASE WHEN scores.id IS NOT NULL THEN truth.actuals END
           AS ground_truth
    FROM unnest(CAST(:ids AS text[]), CAST(:snapshots AS text[])) WITH ORDINALITY AS given(id, snapshot_id, place)
    LEFT JOIN predictions AS prediction ON prediction.id = given.id
    LEFT JOIN scores ON scores.prediction_id = prediction.id AND scores.snapshot_id = given.snapshot_id
    LEFT JOIN inputs ON inputs.id = prediction.input_id
    LEFT JOIN LATERAL (
        SELECT CASE WHEN inputs.scope_jsonb IS NOT NULL THEN inputs.actuals_jsonb ELSE inputs.actuals_jsonb -> (
            prediction.scope_key || '@'
            || to_char(prediction.resolvable_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        ) END AS actuals
    ) AS truth ON true
    ORDER BY given.place
    """
)


class CursorError(ValueError):
    """A cursor that no page of this evidence named; to follow one far into a cycle would read all behind it."""


# Numbers that the columns can hold.
_CURSOR = re.compile(r"[0-9]{1,18}\.[0-9]{1,9}")


@dataclass(frozen=True)
class Cursor:
    """Where a page begins: a cycle's position, 0 for what is outside the log, and how many items are behind."""

    position: int = 0
    offset: int = 0

    @classmethod
    def parse(cls, value: str) -> Cursor:
        """The cursor of its text.

        Raises:
            CursorError: it is none that `str` gave.
        """
        if not _CURSOR.fullmatch(value):
            raise CursorError(value)
        position, offset = (int(part) for part in value.split("."))
        return cls(position, offset)

    def __str__(self) -> str:
        return f"{self.position}.{self.offset}"


@dataclass
class Page:
    """A part of the evidence; see `schemas.report.merkle.Evidence`."""

    checkpoint: Record
    cycles: list[Record] = field(default_factory=list)
    snapshots: list[Record] = field(default_factory=list)
    predictions: list[Record] = field(default_factory=list)
    ground_truths: dict[str, Any] = field(default_factory=dict)
    commitments: list[Record] = field(default_factory=list)
    next: str | None = None


def checkpoint_with_root(connection: Connection, checkpoint_id: str | None) -> Record | None:
    """A checkpoint that our log has sealed, or the newest one for None; None where there is none."""
    found = fetch(connection, _LATEST) if checkpoint_id is None else fetch(connection, _BY_ID, {"id": checkpoint_id})
    return found[0] if found else None


def evidence_page(connection: Connection, checkpoint: Record, cursor: Cursor) -> Page:
    """The page of a checkpoint's evidence that begins at a cursor.

    Raises:
        CursorError: no page of this checkpoint's evidence named it.
    """
    page = Page(_wire(checkpoint))
    if cursor.position == 0:
        span = {"after": looks_back_to(checkpoint), "until": checkpoint["period_end"]}
        made = {"made_at": checkpoint["created_at"], "generation": checkpoint["meta"]["merkle"]["generation"]}
        at = {**made, "offset": cursor.offset, "limit": ITEMS}
        outside = fetch(connection, _OUTSIDE, span | at)
        page.snapshots += [_snapshot(row) for row in outside]
        first = connection.execute(_FIRST_POSITION, {**span, "id": checkpoint["id"]}).scalar()
        then = None if first is None else str(Cursor(max(first - 1, _CHAIN_BEGINS)))
        page.next = str(Cursor(0, cursor.offset + ITEMS)) if len(outside) == ITEMS else then
        return page
    _add_cycles(connection, checkpoint, cursor, page)
    return page


def looks_back_to(checkpoint: Record) -> datetime:
    """The moment after which snapshots count in what a checkpoint ranks by; at most the start of its period."""
    start: datetime = checkpoint["period_start"] - timedelta(microseconds=1)
    end: datetime = checkpoint["period_end"]
    try:
        return min(start, end - timedelta(microseconds=1, hours=_hours_ranked_by(checkpoint["meta"]["rules"])))
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _hours_ranked_by(rules: Record) -> int:
    """The window that ranks; where a metric does, its own and the one that `min_predictions` is counted in."""
    windows: dict[str, int] = rules["windows"]
    if rules["ranking_key"] in windows:
        return windows[rules["ranking_key"]]
    counted_in = max(windows.values(), default=0) if rules["min_predictions"] else 0
    return max(counted_in, int(rules.get("metrics_window_hours", 0)))


def _add_cycles(connection: Connection, checkpoint: Record, cursor: Cursor, page: Page) -> None:
    last = checkpoint["meta"]["merkle"]["last_position"] or 0
    values = {"id": checkpoint["id"], "position": cursor.position, "last": last, "limit": ITEMS}
    chosen: list[Record] = []
    room = ITEMS + cursor.offset
    found = fetch(connection, _CYCLES, values)
    if cursor.offset and (not found or found[0]["position"] != cursor.position or found[0]["items"] <= cursor.offset):
        raise CursorError(str(cursor))
    for cycle in found:
        if room <= 0:
            break
        chosen.append(cycle)
        room -= cycle["items"]
    if not chosen:
        return
    page.cycles += [_cycle(cycle) for cycle in chosen if cursor.offset == 0 or cycle is not chosen[0]]
    values = {
        "id": checkpoint["id"],
        "cycles": [cycle["id"] for cycle in chosen],
        "generation": checkpoint["meta"]["merkle"]["generation"],
    }
    items: list[tuple[Record, int | None]] = []
    for snapshot in fetch(connection, _SNAPSHOTS, values):
        items += [(snapshot, None), *((snapshot, index) for index in range(len(snapshot["prediction_ids"])))]
    shown = items[cursor.offset : cursor.offset + ITEMS]
    page.snapshots += [_snapshot(snapshot) for snapshot, index in shown if index is None]
    _add_predictions(connection, [(snapshot, index) for snapshot, index in shown if index is not None], page)
    if room < 0:
        split = chosen[-1]["items"] + room  # how much of the last one is shown, counted from its start
        page.next = str(Cursor(chosen[-1]["position"], split))
    elif chosen[-1]["position"] < last:
        page.next = str(Cursor(chosen[-1]["position"] + 1))


def _add_predictions(connection: Connection, shown: list[tuple[Record, int]], page: Page) -> None:
    if not shown:
        return
    ids = [snapshot["prediction_ids"][index] for snapshot, index in shown]
    values = {"ids": ids, "snapshots": [snapshot["snapshot_id"] for snapshot, _ in shown]}
    rows = fetch(connection, _PREDICTIONS, values)
    commitments = commitments_by_id(connection, list({row["commitment_id"] for row in rows if row["commitment_id"]}))
    trees = {commitment["id"]: rows_over_stored(commitment.pop("leaves")) for commitment in commitments}
    page.commitments += [_wire(commitment) for commitment in commitments]
    for (snapshot, index), prediction_id, row in zip(shown, ids, rows, strict=True):
        own = slice(2 * HASH_BYTES * index, 2 * HASH_BYTES * (index + 1))  # all behind it would be a megabyte each time
        hashes = bytes(snapshot["leaves"][own])
        shown_row: Record = {
            "snapshot_id": snapshot["snapshot_id"],
            "index": index,
            "prediction_id": prediction_id,
            "prediction_hash": hashes[:HASH_BYTES].hex(),
            "outcome_hash": hashes[HASH_BYTES:].hex(),
            "prediction": None if row["id"] is None else _prediction(row, trees),
            "score": None if row["score_id"] is None else _score(row),
            "ground_truth": None,
        }
        if row["ground_truth"] is not None:
            key = f"{row['input_id']}/{row['scope_key']}@{time_text(row['resolvable_at'])}"
            page.ground_truths[key] = row["ground_truth"]
            shown_row["ground_truth"] = key
        page.predictions.append(shown_row)


def _cycle(row: Record) -> Record:
    return {name: value for name, value in _wire(row).items() if name != "items"}


def _snapshot(row: Record) -> Record:
    return {
        name: value for name, value in _wire(row).items() if name not in ("snapshot_id", "prediction_ids", "leaves")
    }


_OWN = ("id", "model_id", "input_id", "scope_key", "scope", "output", "performed_at", "resolvable_at", "status")


def _prediction(row: Record, trees: dict[str, list[list[bytes]]]) -> Record:
    committed = row["commitment_id"]
    return {
        **_wire({name: row[name] for name in (*_OWN, "failed_reason")}),
        # As they are hashed.
        "scope": canonical_or_none(row["scope"]),
        "output": canonical_or_none(row["output"]),
        "commitment_id": committed,
        "commitment_path": path_in(trees[committed], row["commitment_index"]) if committed in trees else None,
    }


def _score(row: Record) -> Record:
    return _wire(
        {
            "success": row["success"],
            "failed_reason": row["score_reason"],
            "result": row["result"],
            "scored_at": row["scored_at"],
        }
    )


def _wire(row: Record) -> Record:
    """The row with its times in the text form that is hashed."""
    return {name: time_text(value) if isinstance(value, datetime) else value for name, value in row.items()}
