"""What must hold over a drained database, whatever was killed on the way."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Row, text

from coordinator_node.entities.emission import FRAC_64_MULTIPLIER
from coordinator_node.entities.prediction import SnapshotRecord
from coordinator_node.merkle.canonical import canonical_hash, canonical_snapshot_hash, time_text
from coordinator_node.merkle.documents import (
    checkpoint_header,
    commitment_header,
    cycle_header,
    leaf,
    outcome_leaf,
    pair,
    prediction_leaf,
    sealed,
)
from coordinator_node.merkle.tree import root_of

# A late score counts in the period that its snapshot names.
COUNTED_IN_CHECKPOINTS = """
    SELECT checkpoint.id, prediction.model_id, count(*) AS predictions
    FROM scores JOIN predictions prediction ON prediction.id = scores.prediction_id
    JOIN snapshots snapshot ON snapshot.id = scores.snapshot_id
    JOIN checkpoints checkpoint ON CASE WHEN snapshot.meta_jsonb ? 'late'
        THEN (snapshot.meta_jsonb->'late'->>'counts_in')::timestamptz = checkpoint.period_start
        ELSE prediction.resolvable_at >= checkpoint.period_start
             AND prediction.resolvable_at < checkpoint.period_end END
    WHERE scores.success AND scores.generation = 1 AND NOT starts_with(prediction.model_id, '__ensemble_')
    GROUP BY checkpoint.id, prediction.model_id
"""

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
    "a schedule has no slot beside its grid": """
        SELECT slot.id, slot.slot_at FROM prediction_slots slot
        JOIN scheduled_prediction_configs schedule ON schedule.id = slot.prediction_config_id
        CROSS JOIN LATERAL (SELECT min(slot_at) AS first FROM prediction_slots
                            WHERE prediction_config_id = schedule.id) AS span
        WHERE mod(extract(epoch FROM slot.slot_at - span.first),
                  (schedule.schedule_jsonb->>'prediction_interval_seconds')::numeric) <> 0
    """,
    "a slot says that it was called, with its input, or that it was missed, with the reason": """
        SELECT id, status, input_id, reason FROM prediction_slots
        WHERE NOT CASE status WHEN 'CALLED' THEN input_id IS NOT NULL
                              WHEN 'MISSED' THEN input_id IS NULL AND reason <> '' ELSE false END
    """,
    "nobody was asked in a missed slot": """
        SELECT prediction.id FROM predictions prediction JOIN prediction_slots slot ON slot.id = prediction.slot_id
        WHERE slot.status <> 'CALLED'
    """,
    "no call is left open": "SELECT slot_id FROM slot_calls WHERE closed_at IS NULL",
    "no prediction is left without a final status": """
        SELECT id, status FROM predictions WHERE status NOT IN ('SCORED', 'FAILED', 'ABSENT')
    """,
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
    "there is one checkpoint a period": """
        SELECT period_start, count(*) FROM checkpoints GROUP BY period_start HAVING count(*) <> 1
    """,
    "a checkpoint ranks each model that was scored in its period, by each of its scores once": f"""
        WITH counted AS ({COUNTED_IN_CHECKPOINTS})
        SELECT id, model_id, counted.predictions, (entry->>'prediction_count')::bigint
        FROM counted FULL JOIN (
            SELECT checkpoints.id, entry, entry->>'model_id' AS model_id
            FROM checkpoints CROSS JOIN LATERAL jsonb_array_elements(meta_jsonb->'ranking') AS entry
        ) AS ranked USING (id, model_id)
        WHERE counted.predictions IS DISTINCT FROM (entry->>'prediction_count')::bigint
    """,
}
NAIVE_LEADERBOARD = """
    SELECT prediction.model_id, avg((scores.result_jsonb->>'value')::float8) AS mean
    FROM scores JOIN predictions prediction ON prediction.id = scores.prediction_id
    WHERE scores.success AND NOT EXISTS (SELECT 1 FROM scores newer WHERE newer.prediction_id = prediction.id
                                         AND newer.generation > scores.generation)
    GROUP BY prediction.model_id
"""
CHECKED_TABLES = (
    "prediction_slots",
    "predictions",
    "scores",
    "snapshots",
    "leaderboards",
    "checkpoints",
    "merkle_commitments",
    "merkle_cycles",
    "feed_records",
)


@dataclass(frozen=True)
class Checked:
    """What was looked at, and which rules do not hold, each with the first rows that break it."""

    rows: int
    broken: dict[str, list[Any]]


def check_all(engine: Engine) -> Checked:
    """Every rule over a drained database that is younger than a day."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        rows = sum(connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in CHECKED_TABLES)
        return Checked(rows, all_broken(connection))


def all_broken(connection: Connection) -> dict[str, list[Any]]:
    """All rules that do not hold, also of the leaderboard."""
    broken = _broken_rules(connection)
    if wrong := _wrong_standings(connection):
        broken["the leaderboard is the naive one"] = wrong
    return broken


def broken_rules(engine: Engine) -> dict[str, list[Any]]:
    """The rules that do not hold, each with the first rows that break it; the leaderboard is not looked at."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        return _broken_rules(connection)


def check_leaderboard_is_the_naive_one(engine: Engine) -> None:
    """The newest leaderboard's 24 hours, for a run that is younger than that, against the scores themselves."""
    with engine.connect() as connection:
        assert _wrong_standings(connection) == []


def broken_log_rules(engine: Engine) -> list[str]:
    """What does not hold of the Merkle log: leaves against their rows, roots against leaves, links of both chains."""
    with engine.connect() as connection:
        return _broken_log_rules(connection)


def _broken_rules(connection: Connection) -> dict[str, list[Any]]:
    broken: dict[str, list[Any]] = {}
    for rule, query in RULES.items():
        if rows := connection.execute(text(query)).fetchmany(5):
            broken[rule] = [tuple(row) for row in rows]
    for (entries,) in connection.execute(text("SELECT entries_jsonb FROM checkpoints")):
        shares = [reward["reward_pct"] for entry in entries for reward in entry["cruncher_rewards"]]
        if shares and sum(shares) != FRAC_64_MULTIPLIER:
            broken.setdefault("an emission sums exactly", []).append(shares)
    if log := _broken_log_rules(connection):
        broken["the Merkle log verifies"] = log[:5]
    return broken


def _wrong_standings(connection: Connection) -> list[str]:
    """Where the newest leaderboard differs from the means of the scores, or is not in their order."""
    naive = {row.model_id: row.mean for row in connection.execute(text(NAIVE_LEADERBOARD))}
    newest = text("SELECT entries_jsonb FROM leaderboards ORDER BY created_at DESC, id DESC LIMIT 1")
    entries = connection.execute(newest).scalar_one_or_none() or []
    shown = {entry["model_id"]: entry["score"]["metrics"]["score_recent"] for entry in entries}
    wrong = [
        f"{model_id} has {shown.get(model_id)}, its scores have a mean of {naive.get(model_id)}"
        for model_id in sorted(naive.keys() | shown.keys())
        if shown.get(model_id) != pytest.approx(naive.get(model_id))
    ]
    ranked = [entry for entry in entries if entry["score"]["metrics"]["score_recent"] is not None]
    values = [entry["score"]["metrics"]["score_recent"] for entry in ranked]
    if [entry["rank"] for entry in ranked] != list(range(1, len(ranked) + 1)) or any(
        a < b for a, b in pairwise(values)
    ):
        wrong.append(f"the ranks {[entry['rank'] for entry in ranked]} are not those of {values}")
    return wrong


def _broken_log_rules(connection: Connection) -> list[str]:
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
    for cycle in connection.execute(text("SELECT * FROM merkle_cycles WHERE position IS NOT NULL ORDER BY position")):
        broken += _broken_in_cycle(connection, cycle)
    return broken + _broken_commitments(connection) + _broken_checkpoints(connection)


def _broken_commitments(connection: Connection) -> list[str]:
    broken = []
    for row in connection.execute(text("SELECT * FROM merkle_commitments WHERE position IS NOT NULL")):
        leaves = [row.leaves[at : at + 32] for at in range(0, len(row.leaves), 32)]
        header = commitment_header(row.id, row.position, row.previous_root, row.prediction_count, row.committed_at)
        if root_of(leaves).hex() != row.root or len(leaves) != row.prediction_count:
            broken.append(f"the leaves of commitment {row.position} do not lead to its root")
        if sealed(header, bytes.fromhex(row.root)).hex() != row.chained_root:
            broken.append(f"commitment {row.position} is not sealed by its chained root")
    return broken


def _broken_checkpoints(connection: Connection) -> list[str]:
    """Roots against what they cover, and each checkpoint's link to the one before it."""
    covered = text("SELECT chained_root FROM merkle_cycles WHERE checkpoint_id = :id ORDER BY position")
    broken = []
    before: tuple[str | None, str | None] = (None, None)
    for row in connection.execute(text("SELECT * FROM checkpoints WHERE period IS NOT NULL ORDER BY period_start")):
        roots = [bytes.fromhex(root) for root in connection.execute(covered, {"id": row.id}).scalars()]
        merkle = row.meta_jsonb["merkle"]
        if root_of(roots).hex() != merkle["cycles_root"] or len(roots) != merkle["cycle_count"]:
            broken.append(f"the cycles of checkpoint {row.id} do not lead to its root")
        header = checkpoint_header(
            row.id, row.period_start, row.period_end, row.created_at, row.entries_jsonb, row.meta_jsonb
        )
        if not sealed(header, root_of(roots)).hex() == merkle["root"] == row.merkle_root:
            broken.append(f"checkpoint {row.id} is not sealed by its root")
        if (merkle["previous_checkpoint_id"], merkle["previous_root"]) != before:
            broken.append(f"checkpoint {row.id} does not follow the one before it")
        before = (row.id, row.merkle_root)
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
            if _leaves_of(connection, prediction_id, snapshot.id) != stored:  # None where it is gone
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


def _leaves_of(connection: Connection, prediction_id: str, snapshot_id: str) -> bytes | None:
    """The two leaves that a prediction's rows give, None without rows; its input has a scope of its own."""
    values = {"id": prediction_id, "snapshot": snapshot_id}
    row = connection.execute(text("SELECT * FROM predictions WHERE id = :id"), values).mappings().one_or_none()
    if row is None:
        return None
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
