"""Each rule that faults are judged by can fail: a row is spoilt, and the rule that it breaks is named."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from invariants import RULES, all_broken, check_all
from score_history import MODELS, ScoreHistory
from sqlalchemy import Engine, text
from sqlalchemy.dialects.postgresql import insert

from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import make_engine, transaction
from coordinator_node.db.tables import LeaseRow, PredictionRow
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.checkpoint import CheckpointStage
from coordinator_node.services.merkle.commitments import commit_predictions
from coordinator_node.services.score import score_stage
from coordinator_node.services.snapshot import SnapshotStage

if TYPE_CHECKING:
    from conftest import Databases

SLOTS = 6

# For each rule a statement that breaks it; what one column's change also breaks is named too.
SPOILT = {
    "every model known in a called slot has exactly one prediction in it": [
        "DELETE FROM predictions WHERE id = (SELECT max(id) FROM predictions)",
    ],
    "an ensemble has one prediction where it had weights at the slot and a member answered, else none": [
        """WITH ensemble AS (UPDATE models SET id = '__ensemble_main__' WHERE id = 'model-001')
           INSERT INTO ensemble_weights (id, model_id, weights_jsonb, computed_at)
           VALUES ('w', '__ensemble_main__', '{"model-002": 1}', '2026-01-01')""",
    ],
    "every moment of a schedule's grid between its first and last slot has a row": [
        "DELETE FROM prediction_slots WHERE id = 'slot-000000003'",
    ],
    "a schedule has no slot beside its grid": [
        "UPDATE prediction_slots SET slot_at = slot_at + interval '1 second' WHERE id = 'slot-000000003'",
    ],
    "a slot says that it was called, with its input, or that it was missed, with the reason": [
        "UPDATE prediction_slots SET status = 'MISSED' WHERE id = 'slot-000000003'",
    ],
    "nobody was asked in a missed slot": [
        "UPDATE prediction_slots SET status = 'MISSED', input_id = NULL, reason = 'late' WHERE id = 'slot-000000003'",
    ],
    "no call is left open": [
        "INSERT INTO slot_calls (slot_id, lease_name, epoch, model_ids_jsonb, called_at)"
        " VALUES ('slot-000000003', 'predict/00', 1, '[]', now())",
    ],
    "no prediction is left without a final status": [
        "UPDATE predictions SET status = 'PENDING' WHERE id = (SELECT min(id) FROM predictions)",
    ],
    "a scored prediction has one score of the live stage, which succeeded": [
        "DELETE FROM scores WHERE id = (SELECT min(id) FROM scores)",
        "UPDATE scores SET success = false WHERE id = (SELECT min(id) FROM scores)",
    ],
    "a failed or absent prediction has no score of the live stage that succeeded": [
        "UPDATE predictions SET status = 'ABSENT' WHERE id = (SELECT min(id) FROM predictions)",
    ],
    "every score is counted in a snapshot": [
        "UPDATE scores SET snapshot_state = 'PENDING', snapshot_id = NULL WHERE id = (SELECT min(id) FROM scores)",
    ],
    "a snapshot counts the scores that name it": [
        "UPDATE snapshots SET prediction_count = prediction_count + 1 WHERE id = (SELECT min(id) FROM snapshots)",
    ],
    "of each scored prediction the newest score is counted in a snapshot that counts, and no other": [
        "UPDATE snapshots SET superseded_by = 2 WHERE id = (SELECT min(id) FROM snapshots)",
    ],
    "one record for each second of the feed": [
        "DELETE FROM feed_records WHERE ts_event = (SELECT min(ts_event) + interval '9 seconds' FROM feed_records)",
    ],
    "checkpoints follow one another without gap or overlap": [
        "DELETE FROM checkpoints WHERE period_start = (SELECT min(period_end) FROM checkpoints)",
    ],
    "there is one checkpoint a period": [
        "INSERT INTO checkpoints (id, period_start, period_end, status, entries_jsonb, meta_jsonb, created_at)"
        " SELECT 'double', period_start, period_end, status, entries_jsonb, meta_jsonb, created_at FROM checkpoints"
        " ORDER BY period_start LIMIT 1",
    ],
    "a checkpoint ranks each model that was scored in its period, by each of its scores once": [
        """UPDATE checkpoints SET meta_jsonb = jsonb_set(meta_jsonb, '{ranking,0,prediction_count}', '99')
           WHERE jsonb_array_length(meta_jsonb->'ranking') > 0""",
        """UPDATE checkpoints SET meta_jsonb = jsonb_set(meta_jsonb, '{ranking}', (meta_jsonb->'ranking') - 0)
           WHERE jsonb_array_length(meta_jsonb->'ranking') > 0""",
    ],
    "an emission sums exactly": [
        """UPDATE checkpoints SET entries_jsonb = jsonb_set(entries_jsonb, '{0,cruncher_rewards,0,reward_pct}', '1')
           WHERE jsonb_array_length(meta_jsonb->'ranking') > 0""",
    ],
    "the leaderboard is the naive one": [
        "UPDATE scores SET result_jsonb = '{\"value\": 7}' WHERE id = (SELECT min(id) FROM scores)",
        """UPDATE leaderboards SET entries_jsonb = jsonb_set(entries_jsonb, '{0,rank}', '2')""",
    ],
    "the Merkle log verifies": [
        "UPDATE predictions SET inference_output_jsonb = '{\"value\": 7}' WHERE id = (SELECT min(id) FROM predictions)",
        "UPDATE scores SET result_jsonb = '{\"value\": 7}' WHERE id = (SELECT min(id) FROM scores)",
        "UPDATE merkle_cycles SET chained_root = repeat('0', 64) WHERE position = 1",
        "UPDATE merkle_commitments SET chained_root = repeat('0', 64) WHERE position = 1",
        "UPDATE merkle_commitments SET root = repeat('0', 64) WHERE position = 1",
        "UPDATE checkpoints SET merkle_root = repeat('0', 64)",
        "UPDATE checkpoints SET period_end = period_end + interval '1 second'",
        "DELETE FROM merkle_cycles WHERE position = 2",
    ],
}


@pytest.fixture(scope="module")
def drained(databases: Databases) -> Iterator[Engine]:
    """A database in which some slots were asked, committed, scored, counted and paid."""
    with databases.fresh("migrated_template") as url:
        engine = make_engine(url, "tests")
        history = ScoreHistory(engine)
        history.add_models()
        history.add_due(0, SLOTS)
        commit_all(engine, history)
        play(engine, history)
        yield engine
        engine.dispose()


def commit_all(engine: Engine, history: ScoreHistory) -> None:
    """As the predict stage does: a commitment beside the rows of each slot."""
    with transaction(engine) as session:
        rows = [dict(row) for row in session.connection().execute(text("SELECT * FROM predictions")).mappings()]
        session.connection().execute(text("DELETE FROM predictions"))
        for slot in range(SLOTS):
            at = history.slot_at(slot)
            committed = commit_predictions(session, [row for row in rows if row["performed_at"] == at], at)
            session.connection().execute(insert(PredictionRow), committed)


def play(engine: Engine, history: ScoreHistory) -> None:
    settings = load_settings(
        {"FEED_SOURCE": "simulated", "CHECKPOINT_INTERVAL_SECONDS": "60", "SCORE_INTERVAL_SECONDS": "10"}
    )
    config = CrunchConfig()
    with transaction(engine) as session:
        session.add(LeaseRow(name="all", holder="all", epoch=1, acquired_at=history.start, expires_at=history.start))
    fence = LeaseFence("all", 1)
    score, snapshots = score_stage(engine, config, settings), SnapshotStage(engine, config, settings)
    checkpoints = CheckpointStage(engine, config, settings)
    for slot in range(0, SLOTS + 1, 2):
        now = history.resolved_at(slot) + timedelta(seconds=1)
        while score.run_once(now).again:
            pass
        snapshots.run_once(now, fence)
        while checkpoints.run_once(now, fence).again:
            pass


def test_a_database_that_nothing_happened_to_breaks_no_rule(drained: Engine) -> None:
    checked = check_all(drained)
    assert checked.broken == {}
    assert checked.rows > 3 * SLOTS * MODELS


def test_every_rule_is_spoilt_here() -> None:
    others = {"an emission sums exactly", "the Merkle log verifies", "the leaderboard is the naive one"}
    assert SPOILT.keys() == RULES.keys() | others


@pytest.mark.parametrize(("rule", "statement"), [(rule, each) for rule, them in SPOILT.items() for each in them])
def test_a_spoilt_row_is_named(drained: Engine, rule: str, statement: str) -> None:
    with drained.connect() as connection:
        # What refers to what is not looked at, nor what triggers forbid: this is what a fault may leave behind.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("ALTER TABLE prediction_slots DROP CONSTRAINT ck_prediction_slots_complete"))
        assert connection.execute(text(statement)).rowcount > 0
        assert rule in all_broken(connection)
        connection.rollback()
