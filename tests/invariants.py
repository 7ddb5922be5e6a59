"""What must hold over a drained database, whatever was killed on the way."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Row, text

from coordinator_node.entities.emission import FRAC_64_MULTIPLIER
from coordinator_node.entities.prediction import SnapshotRecord
from coordinator_node.merkle.canonical import canonical_hash, canonical_snapshot_hash, time_text
from coordinator_node.merkle.documents import cycle_header, leaf, outcome_leaf, pair, prediction_leaf, sealed
from coordinator_node.merkle.tree import root_of

# Each finds the rows that break one rule.
RULES = {
    "every model known in a called slot has exactly one prediction in it": """
        SELECT slot.id, model.id, count(prediction.id) FROM prediction_slots slot CROSS JOIN models model
        LEFT JOIN predictions prediction ON prediction.slot_id = slot.id AND prediction.model_id = model.id
        WHERE slot.status = 'CALLED' AND slot.slot_at > model.created_at AND NOT starts_with(model.id, '__ensemble_')
        GROUP BY slot.id, model.id HAVING count(prediction.id) <> 1
    """,
    "an ensemble has one prediction where it had weights at the slot and a member answered, else none": """
        SELECT slot.id, model.id, count(DISTINCT own.id), count(member.id)
        FROM prediction_slots slot
        JOIN models model ON starts_with(model.id, '__ensemble_')
        LEFT JOIN LATERAL (SELECT weights_jsonb AS weights FROM ensemble_weights
                           WHERE model_id = model.id AND computed_at <= slot.slot_at
                           ORDER BY computed_at DESC, id DESC LIMIT 1) newest ON true
        LEFT JOIN predictions own ON own.slot_id = slot.id AND own.model_id = model.id
        LEFT JOIN predictions member ON member.slot_id = slot.id AND newest.weights ? member.model_id
              AND member.inference_output_jsonb <> '{}'
        WHERE slot.prediction_config_id IS NOT NULL
        GROUP BY slot.id, model.id HAVING count(DISTINCT own.id) <> least(count(member.id), 1)
    """,
    "every moment of a schedule's grid between its first and last slot has a row": """
        SELECT schedule.id, missing.at FROM scheduled_prediction_configs schedule
        CROSS JOIN LATERAL (SELECT min(slot_at) AS first, max(slot_at) AS last FROM prediction_slots
                            WHERE prediction_config_id = schedule.id) AS span
        CROSS JOIN LATERAL generate_series(span.first, span.last,
            make_interval(secs => (schedule.schedule_jsonb->>'prediction_interval_seconds')::float8)) AS missing(at)
        LEFT JOIN prediction_slots slot ON slot.prediction_config_id = schedule.id AND slot.slot_at = missing.at
        WHERE slot.id IS NULL
    """,
    "nobody was asked in a missed slot": """
        SELECT prediction.id FROM predictions prediction JOIN prediction_slots slot ON slot.id = prediction.slot_id
        WHERE slot.status <> 'CALLED'
    """,
    "no call is left open": "SELECT slot_id FROM slot_calls WHERE closed_at IS NULL",
    "no prediction is left without a final status": "SELECT id FROM predictions WHERE status = 'PENDING'",
    "a scored prediction has one score of the live stage, which succeeded": """
        SELECT prediction.id FROM predictions prediction
        LEFT JOIN scores ON scores.prediction_id = prediction.id AND scores.generation = 1
        WHERE prediction.status = 'SCORED' GROUP BY prediction.id HAVING count(scores.id) <> 1 OR NOT bool_and(success)
    """,
    "a failed or absent prediction has no score of the live stage that succeeded": """
        SELECT prediction.id FROM predictions prediction JOIN scores ON scores.prediction_id = prediction.id
        WHERE scores.generation = 1 AND prediction.status IN ('FAILED', 'ABSENT') AND scores.success
    """,
    "every score is counted in a snapshot": """
        SELECT id FROM scores WHERE snapshot_state <> 'COUNTED' OR snapshot_id IS NULL
    """,
    "a snapshot counts the scores that name it": """
        SELECT snapshot.id, snapshot.prediction_count, count(scores.id) FROM snapshots snapshot
        LEFT JOIN scores ON scores.snapshot_id = snapshot.id AND scores.success
        GROUP BY snapshot.id HAVING snapshot.prediction_count <> count(scores.id)
    """,
    "of each scored prediction the newest score is counted in a snapshot that counts, and no other": """
        SELECT scores.prediction_id FROM scores JOIN snapshots snapshot ON snapshot.id = scores.snapshot_id
        GROUP BY scores.prediction_id
        HAVING max(scores.generation) FILTER (WHERE snapshot.superseded_by IS NULL) IS DISTINCT FROM max(generation)
            OR count(*) FILTER (WHERE snapshot.superseded_by IS NULL) <> 1
    """,
    "one record for each second of the feed": """
        SELECT subject, ts_event, before FROM (
            SELECT subject, ts_event, lag(ts_event) OVER (PARTITION BY subject ORDER BY ts_event) AS before
            FROM feed_records) AS spaced
        WHERE ts_event - before <> interval '1 second'
    """,
    "checkpoints follow one another without gap or overlap": """
        SELECT id, period_start, before FROM (
            SELECT id, period_start, lag(period_end) OVER (ORDER BY period_start) AS before FROM checkpoints) AS spaced
        WHERE period_start <> before
    """,
}
NAIVE_LEADERBOARD = """
    SELECT prediction.model_id, avg((scores.result_jsonb->>'value')::float8) AS mean
    FROM scores JOIN predictions prediction ON prediction.id = scores.prediction_id
    WHERE scores.success AND NOT EXISTS (SELECT 1 FROM scores newer WHERE newer.prediction_id = prediction.id
                                         AND newer.generation > scores.generation)
    GROUP BY prediction.model_id
"""


def broken_rules(engine: Engine) -> dict[str, list[Any]]:
    """The rules that do not hold, each with the first rows that break it."""
    broken: dict[str, list[Any]] = {}
    with engine.connect() as connection:
        for rule, query in RULES.items():
            if rows := connection.execute(text(query)).fetchmany(5):
                broken[rule] = [tuple(row) for row in rows]
        for (entries,) in connection.execute(text("SELECT entries_jsonb FROM checkpoints")):
            shares = [reward["reward_pct"] for entry in entries for reward in entry["cruncher_rewards"]]
            if shares and sum(shares) != FRAC_64_MULTIPLIER:
                broken.setdefault("an emission sums exactly", []).append(shares)
    if log := broken_log_rules(engine):
        broken["the Merkle log verifies"] = log[:5]
    return broken


def check_leaderboard_is_the_naive_one(engine: Engine) -> None:
    """The newest leaderboard's 24 hours, for a run that is younger than that, against the scores themselves."""
    with engine.connect() as connection:
        naive = {row.model_id: row.mean for row in connection.execute(text(NAIVE_LEADERBOARD))}
        newest = text("SELECT entries_jsonb FROM leaderboards ORDER BY created_at DESC, id DESC LIMIT 1")
        entries = connection.execute(newest).scalar_one()
    shown = {entry["model_id"]: entry["score"]["metrics"]["score_recent"] for entry in entries}
    assert shown == pytest.approx(naive)
    values = [entry["score"]["metrics"]["score_recent"] for entry in entries]
    assert [entry["rank"] for entry in entries] == list(range(1, len(entries) + 1))
    assert all(a >= b for a, b in pairwise(values))


def broken_log_rules(engine: Engine) -> list[str]:
    """What does not hold of the Merkle log: leaves against their rows, roots against leaves, links of both chains."""
    with engine.connect() as connection:
        chains = {
            "commitments": "SELECT position, previous_root, chained_root FROM merkle_commitments",
            "cycles": "SELECT position, previous_cycle_root, chained_root FROM merkle_cycles",
        }
        broken = []
        for name, query in chains.items():
            links = connection.execute(text(f"{query} WHERE position IS NOT NULL ORDER BY position")).all()
            expected = [None, *(link[2] for link in links)]
            if [link[0] for link in links] != list(range(1, len(links) + 1)) or any(
                link[1] != before for link, before in zip(links, expected, strict=False)
            ):
                broken.append(f"the chain of {name} has a gap")
        for cycle in connection.execute(
            text("SELECT * FROM merkle_cycles WHERE position IS NOT NULL ORDER BY position")
        ):
            broken += _broken_in_cycle(connection, cycle)
    return broken


def _broken_in_cycle(connection: Connection, cycle: Row[Any]) -> list[str]:
    query = text(
        "SELECT snapshot.id, counted.prediction_ids_jsonb AS ids, counted.leaves, node.snapshot_content_hash AS hash,"
        " snapshot.content_hash FROM merkle_nodes node JOIN snapshots snapshot ON snapshot.id = node.snapshot_id"
        " JOIN merkle_counted counted ON counted.snapshot_id = snapshot.id"
        " WHERE node.cycle_id = :id AND node.level = 0 ORDER BY node.position"
    )
    broken, tops = [], []
    for snapshot in connection.execute(query, {"id": cycle.id}):
        if not snapshot.hash == snapshot.content_hash == _content_hash(connection, snapshot.id):
            broken.append(f"snapshot {snapshot.id} is not what cycle {cycle.position} covers")
        for index, prediction_id in enumerate(snapshot.ids):
            stored = snapshot.leaves[64 * index : 64 * (index + 1)]
            if _leaves_of(connection, prediction_id, snapshot.id) != stored:
                broken.append(f"prediction {prediction_id} or its outcome is not what cycle {cycle.position} covers")
        leaves = [snapshot.leaves[at : at + 32] for at in range(0, len(snapshot.leaves), 32)]
        tops.append(pair(leaf(bytes.fromhex(snapshot.hash)), root_of(leaves)))
    if root_of(tops).hex() != cycle.snapshots_root:
        broken.append(f"the snapshots of cycle {cycle.position} do not lead to its root")
    header = cycle_header(
        cycle.id,
        cycle.position,
        cycle.previous_cycle_id,
        cycle.previous_cycle_root,
        cycle.commitments_root,
        cycle.snapshot_count,
        cycle.prediction_count,
        cycle.created_at,
    )
    if sealed(header, bytes.fromhex(cycle.snapshots_root)).hex() != cycle.chained_root:
        broken.append(f"cycle {cycle.position} is not sealed by its chained root")
    return broken


def _content_hash(connection: Connection, snapshot_id: str) -> str:
    row = connection.execute(text("SELECT * FROM snapshots WHERE id = :id"), {"id": snapshot_id}).one()
    return canonical_snapshot_hash(
        SnapshotRecord(
            id=row.id,
            model_id=row.model_id,
            period_start=row.period_start,
            period_end=row.period_end,
            prediction_count=row.prediction_count,
            result_summary=row.result_summary_jsonb,
            meta=row.meta_jsonb,
            created_at=row.created_at,
        )
    )


def _leaves_of(connection: Connection, prediction_id: str, snapshot_id: str) -> bytes:
    """The two leaves that a prediction's rows give; its input is taken to have a scope of its own."""
    values = {"id": prediction_id, "snapshot": snapshot_id}
    row = connection.execute(text("SELECT * FROM predictions WHERE id = :id"), values).mappings().one()
    found = connection.execute(
        text("SELECT * FROM scores WHERE prediction_id = :id AND snapshot_id = :snapshot"), values
    ).one_or_none()
    own = prediction_leaf(row)
    if found is None:
        return own + outcome_leaf(prediction_id, row["status"], row["failed_reason"], None, None, None)
    actuals = connection.execute(
        text("SELECT actuals_jsonb FROM inputs WHERE id = :id"), {"id": row["input_id"]}
    ).scalar_one()
    return own + outcome_leaf(
        prediction_id,
        "SCORED" if found.success else "FAILED",
        found.failed_reason,
        found.result_jsonb,
        canonical_hash(actuals),
        time_text(found.scored_at),
    )
