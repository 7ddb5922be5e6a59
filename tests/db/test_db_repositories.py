from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from coordinator_node.db import (
    DBCheckpointRepository,
    DBInputRepository,
    DBLeaderboardRepository,
    DBMerkleCycleRepository,
    DBMerkleNodeRepository,
    DBModelRepository,
    DBPredictionRepository,
    DBScoreRepository,
    DBSnapshotRepository,
    create_session,
)
from coordinator_node.db.repositories.values import storable
from coordinator_node.db.tables import MerkleCycleRow, MerkleNodeRow, ScoreRow
from coordinator_node.entities.model import Model
from coordinator_node.entities.prediction import (
    CheckpointRecord,
    CheckpointStatus,
    InputRecord,
    PredictionRecord,
    PredictionStatus,
    ScoreRecord,
    SnapshotRecord,
)

T0 = datetime(2026, 1, 1, 12, 0, 0, 654321, tzinfo=UTC)
NAN = float("nan")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine, expire_on_commit=False) as opened:
        yield opened


@pytest.fixture
def other(engine: Engine) -> Iterator[Session]:
    """Another connection: what it sees was committed."""
    with Session(engine, expire_on_commit=False) as opened:
        yield opened


def model(model_id: str = "m1", **more: Any) -> Model:
    return Model(
        **{
            "id": model_id,
            "name": "alpha",
            "player_id": "p1",
            "player_name": "Ada",
            "deployment_identifier": "d1",
            "created_at": T0,
            "updated_at": T0,
            **more,
        }
    )


def prediction(prediction_id: str = "pr1", **more: Any) -> PredictionRecord:
    return PredictionRecord(
        **{
            "id": prediction_id,
            "input_id": "i1",
            "model_id": "m1",
            "prediction_config_id": None,
            "scope_key": "BTC-60",
            "scope": {"subject": "BTC"},
            "status": PredictionStatus.PENDING,
            "exec_time_ms": 1.5,
            "inference_output": {"value": 0.25},
            "meta": {"round": 1},
            "performed_at": T0,
            "resolvable_at": at(60),
            **more,
        }
    )


def score(score_id: str = "s1", prediction_id: str = "pr1", **more: Any) -> ScoreRecord:
    return ScoreRecord(
        **{"id": score_id, "prediction_id": prediction_id, "result": {"value": 2.0}, "scored_at": at(61), **more}
    )


def stocked(session: Session, *predictions: PredictionRecord) -> None:
    """Two models, one input, and predictions."""
    DBModelRepository(session).save_all([model("m1"), model("m2")])
    DBInputRepository(session).save(InputRecord("i1", {"symbol": "BTC"}, T0))
    DBPredictionRepository(session).save_all(predictions)


def ids(found: list[Any]) -> list[str]:
    return [one.id for one in found]


class Statements:
    """Counts what goes to the server."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        event.listen(engine, "before_cursor_execute", self._one)

    def _one(self, *_: object) -> None:
        self.count += 1


# Models


def test_a_model_comes_back_as_it_was_saved(session: Session, other: Session) -> None:
    saved = model(
        overall_score={"value": 1.5}, scores_by_scope=[{"scope_key": "BTC-60", "value": 1}], meta={"wallet": "w"}
    )
    DBModelRepository(session).save(saved)
    assert DBModelRepository(other).fetch("m1") == saved
    assert DBModelRepository(other).fetch("nobody") is None


def test_saving_a_model_again_keeps_what_is_not_the_entity_s(session: Session, other: Session) -> None:
    repository = DBModelRepository(session)
    repository.save(model())
    session.connection().execute(text("UPDATE models SET presence = 'AWAY', presence_since = now()"))
    session.commit()
    repository.save(model(name="beta", created_at=at(99), updated_at=at(99)))
    assert DBModelRepository(other).fetch("m1") == model(name="beta", updated_at=at(99))
    assert other.connection().execute(text("SELECT presence FROM models")).scalar_one() == "AWAY"


def test_models_are_fetched_by_id(session: Session) -> None:
    repository = DBModelRepository(session)
    repository.save_all(iter([model("m2"), model("m1"), model("m2", name="last wins")]))
    assert list(repository.fetch_all()) == ["m1", "m2"]
    assert repository.fetch_all()["m2"].name == "last wins"
    assert list(repository.fetch_by_ids(["m2", "nobody"])) == ["m2"]
    assert repository.fetch_by_ids([]) == {}
    repository.save_all([])


def test_many_rows_take_few_statements(engine: Engine, session: Session) -> None:
    counted = Statements(engine)
    DBModelRepository(session).save_all(model(f"m{n}") for n in range(1500))
    assert counted.count <= 3
    assert len(DBModelRepository(session).fetch_all()) == 1500


def test_what_is_not_finite_is_refused_by_name_and_nothing_is_saved(session: Session, other: Session) -> None:
    stocked(session)
    with pytest.raises(ValueError, match=r"prediction 'bad': inference_output\.value is nan"):
        DBPredictionRepository(session).save_all([prediction(), prediction("bad", inference_output={"value": NAN})])
    with pytest.raises(ValueError, match="prediction 'pr1': exec_time_ms is inf"):
        DBPredictionRepository(session).save(prediction(exec_time_ms=float("inf")))
    with pytest.raises(ValueError, match=r"leaderboard: entries\[0\]\.score is nan"):
        DBLeaderboardRepository(session).save([{"score": NAN}])
    with pytest.raises(ValueError, match=r"model 'm1': meta\.note holds text that the database cannot store"):
        DBModelRepository(session).save(model(meta={"note": "a\0b"}))
    assert DBPredictionRepository(other).find() == []
    assert DBLeaderboardRepository(other).get_latest() is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.sampled_from("a\\u0\0é")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="a\\u0\0"), inner, max_size=3),
)


def holds_what_the_database_cannot(document: Any) -> bool:
    if isinstance(document, dict):
        return any(holds_what_the_database_cannot(part) for item in document.items() for part in item)
    if isinstance(document, list):
        return any(holds_what_the_database_cannot(part) for part in document)
    if isinstance(document, str):
        return "\0" in document
    return isinstance(document, float) and (document != document or document in (float("inf"), float("-inf")))


@settings(deadline=None)  # nothing here is about time
@given(JSON)
def test_a_document_is_storable_unless_something_in_it_is_not(document: Any) -> None:
    if holds_what_the_database_cannot(document):
        with pytest.raises(ValueError, match=r"row: .*field"):
            storable("row", "field", document)
    else:
        assert storable("row", "field", document) == document


def test_a_failed_save_leaves_the_session_usable(session: Session) -> None:
    with pytest.raises(IntegrityError):
        DBPredictionRepository(session).save(prediction())
    stocked(session, prediction())
    assert ids(DBPredictionRepository(session).find()) == ["pr1"]


# Inputs


def test_an_input_comes_back_and_keeps_its_status(session: Session, other: Session) -> None:
    repository = DBInputRepository(session)
    repository.save(InputRecord("i1", {"symbol": "BTC"}, T0))
    session.connection().execute(text("UPDATE inputs SET status = 'RECEIVED'"))
    session.commit()
    repository.save(InputRecord("i1", {"symbol": "ETH"}, T0))
    assert DBInputRepository(other).get("i1") == InputRecord("i1", {"symbol": "ETH"}, T0)
    assert DBInputRepository(other).get("i2") is None
    assert other.connection().execute(text("SELECT status FROM inputs")).scalar_one() == "RECEIVED"


def test_find_gives_the_newest_in_ascending_time(session: Session) -> None:
    repository = DBInputRepository(session)
    for n in (3, 1, 4, 2, 0):
        repository.save(InputRecord(f"i{n}", {}, at(n)))
    assert ids(repository.find()) == ["i0", "i1", "i2", "i3", "i4"]
    assert ids(repository.find(limit=2)) == ["i3", "i4"]
    assert ids(repository.find(since=at(1), until=at(3))) == ["i1", "i2", "i3"]
    assert ids(repository.find(until=at(3), limit=1)) == ["i3"]
    assert repository.find(limit=0) == []


def test_a_naive_time_is_utc_and_any_zone_is_the_same_instant(session: Session) -> None:
    repository = DBInputRepository(session)
    repository.save(InputRecord("i1", {}, T0.replace(tzinfo=None)))
    repository.save(InputRecord("i2", {}, at(1).astimezone(timezone(timedelta(hours=9)))))
    found = repository.find(since=T0.replace(tzinfo=None), until=at(1).replace(tzinfo=None))
    assert [(one.id, one.received_at) for one in found] == [("i1", T0), ("i2", at(1))]


# Predictions


def test_a_prediction_comes_back_as_it_was_saved(session: Session, other: Session) -> None:
    stocked(session, prediction())
    assert DBPredictionRepository(other).find() == [prediction()]


def test_a_prediction_without_an_outcome_time_is_resolvable_at_once(session: Session) -> None:
    stocked(session, prediction(resolvable_at=None))
    assert DBPredictionRepository(session).find() == [prediction(resolvable_at=T0)]


def test_saving_a_prediction_again_keeps_the_score_stage_s_columns(session: Session, other: Session) -> None:
    stocked(session, prediction())
    session.connection().execute(text("UPDATE predictions SET attempts = 3, failed_reason = 'why'"))
    session.commit()
    DBPredictionRepository(session).save(prediction(status=PredictionStatus.SCORED, meta={"round": 2}))
    assert DBPredictionRepository(other).find() == [prediction(status=PredictionStatus.SCORED, meta={"round": 2})]
    assert other.connection().execute(text("SELECT attempts, failed_reason FROM predictions")).one() == (3, "why")


def test_find_sees_what_another_connection_changed(session: Session, other: Session) -> None:
    stocked(session, prediction())
    repository = DBPredictionRepository(session)
    assert repository.find()[0].status == "PENDING"
    session.rollback()
    DBPredictionRepository(other).save(prediction(status=PredictionStatus.FAILED))
    assert repository.find()[0].status == "FAILED"


def test_predictions_are_found_by_every_condition(session: Session) -> None:
    stocked(
        session,
        prediction("a", performed_at=at(0), resolvable_at=at(60)),
        prediction("b", performed_at=at(1), resolvable_at=at(61), status=PredictionStatus.SCORED),
        prediction("c", performed_at=at(2), resolvable_at=at(32), scope_key="BTC_30", model_id="m2"),
        prediction("d", performed_at=at(3), resolvable_at=at(63), scope_key="BTCX30", status=PredictionStatus.FAILED),
    )
    find = DBPredictionRepository(session).find
    assert ids(find()) == ["a", "b", "c", "d"]
    assert ids(find(status="PENDING")) == ["a", "c"]
    assert ids(find(status=PredictionStatus.SCORED)) == ["b"]
    assert ids(find(status=["SCORED", "FAILED"])) == ["b", "d"]
    assert find(status=[]) == []
    assert ids(find(scope_key="BTC-60")) == ["a", "b"]
    assert ids(find(scope_key_prefix="BTC")) == ["a", "b", "c", "d"]
    assert ids(find(scope_key_prefix="BTC_")) == ["c"]
    assert find(scope_key_prefix="%") == []
    assert ids(find(model_id="m2")) == ["c"]
    assert ids(find(since=at(1), until=at(2))) == ["b", "c"]
    assert ids(find(resolvable_before=at(60))) == ["a", "c"]
    assert ids(find(limit=2)) == ["c", "d"]
    assert ids(find(model_id="m1", status="PENDING", until=at(9), limit=5)) == ["a"]


def test_active_schedules_come_in_order(session: Session) -> None:
    for row_id, active, order in (("x", True, 2), ("y", False, 0), ("z", True, 1)):
        session.connection().execute(
            text(
                "INSERT INTO scheduled_prediction_configs VALUES"
                " (:id, 'BTC-60', '{\"subject\": \"BTC\"}', '{}', :active, :order, NULL)"
            ),
            {"id": row_id, "active": active, "order": order},
        )
    session.commit()
    found = DBPredictionRepository(session).fetch_active_configs()
    assert [config["id"] for config in found] == ["z", "x"]
    assert found[0] == {
        "id": "z",
        "scope_key": "BTC-60",
        "scope_template": {"subject": "BTC"},
        "schedule": {},
        "active": True,
        "order": 1,
        "meta": {},
    }


def test_scores_are_grouped_by_model_with_the_newest_score_of_each(session: Session) -> None:
    stocked(
        session,
        prediction("a", performed_at=at(0)),
        prediction("b", performed_at=at(1)),
        prediction("unscored", performed_at=at(2)),
        prediction("c", performed_at=at(3), model_id="m2"),
    )
    scores = DBScoreRepository(session)
    for record in (score("s1", "b"), score("s2", "a"), score("s3", "c"), score("s4", "a", scored_at=at(62))):
        scores.save(record)
    query = DBPredictionRepository(session).query_scores
    found = query(model_ids=["m1", "m2", "nobody"])
    assert {model_id: ids(predictions) for model_id, predictions in found.items()} == {
        "m1": ["a", "b"],
        "m2": ["c"],
        "nobody": [],
    }
    first = found["m1"][0]
    assert first.score == score("s4", "a", scored_at=at(62))
    assert first.inference_output == {"value": 0.25}
    assert ids(query(model_ids=["m1"], _from=at(1))["m1"]) == ["b"]
    assert ids(query(model_ids=["m1"], to=at(0))["m1"]) == ["a"]
    assert query(model_ids=[]) == {}


# Scores


def test_a_new_score_waits_to_be_counted_and_a_counted_one_stays_counted(session: Session, other: Session) -> None:
    stocked(session, prediction())
    repository = DBScoreRepository(session)
    failed = score(success=False, failed_reason="no truth", result={})
    repository.save(failed)
    assert DBScoreRepository(other).find() == [failed]
    row = other.get(ScoreRow, "s1")
    assert row is not None
    assert (row.snapshot_state, row.generation, row.snapshot_id) == ("PENDING", None, None)
    session.connection().execute(text("UPDATE scores SET snapshot_state = 'COUNTED'"))
    session.commit()
    repository.save(score(result={"value": 3.0}))
    other.rollback()
    other.expire_all()
    assert DBScoreRepository(other).find() == [score(result={"value": 3.0})]
    assert other.connection().execute(text("SELECT snapshot_state FROM scores")).scalar_one() == "COUNTED"


def test_scores_are_found_by_every_condition(session: Session) -> None:
    stocked(session, prediction("a"), prediction("b", model_id="m2"))
    repository = DBScoreRepository(session)
    for n, prediction_id in enumerate(["a", "b", "a"]):
        repository.save(score(f"s{n}", prediction_id, scored_at=at(n)))
    assert ids(repository.find()) == ["s0", "s1", "s2"]
    assert ids(repository.find(prediction_id="a")) == ["s0", "s2"]
    assert ids(repository.find(model_id="m2")) == ["s1"]
    assert ids(repository.find(since=at(1), until=at(2))) == ["s1", "s2"]
    assert ids(repository.find(limit=1)) == ["s2"]


# Snapshots, leaderboards, checkpoints


def test_snapshots_come_back_and_are_found_by_the_end_of_their_period(session: Session, other: Session) -> None:
    stocked(session)
    repository = DBSnapshotRepository(session)
    saved = [
        SnapshotRecord(f"sn{n}", "m1" if n else "m2", at(n), at(n + 10), 5, {"value": n}, {"note": "x"}, at(n + 11))
        for n in range(3)
    ]
    for record in reversed(saved):
        repository.save(record)
    assert DBSnapshotRepository(other).find() == saved
    assert ids(repository.find(limit=1)) == ["sn2"]
    assert ids(repository.find(model_id="m2")) == ["sn0"]
    assert ids(repository.find(since=at(11), until=at(11))) == ["sn1"]
    repository.save(replace(saved[0], prediction_count=6, created_at=at(99)))
    other.rollback()
    assert DBSnapshotRepository(other).find()[0] == replace(saved[0], prediction_count=6)


def test_the_latest_leaderboard_is_the_newest(session: Session, other: Session) -> None:
    repository = DBLeaderboardRepository(session)
    assert repository.get_latest() is None
    repository.save([{"model_id": "m1", "rank": 1}])
    repository.save([{"model_id": "m2", "rank": 1}], {"cycle": 2})
    latest = DBLeaderboardRepository(other).get_latest()
    assert latest is not None
    assert set(latest) == {"id", "created_at", "entries", "meta"}
    assert (latest["entries"], latest["meta"]) == ([{"model_id": "m2", "rank": 1}], {"cycle": 2})
    assert latest["created_at"].tzinfo is not None
    repository.clear()
    assert repository.get_latest() is None


def checkpoint(number: int, **more: Any) -> CheckpointRecord:
    return CheckpointRecord(
        **{
            "id": f"c{number}",
            "period_start": at(number * 10),
            "period_end": at(number * 10 + 10),
            "entries": [
                {
                    "crunch": "key",
                    "cruncher_rewards": [{"cruncher_index": 0, "reward_pct": 1_000_000_000}],
                    "compute_provider_rewards": [],
                    "data_provider_rewards": [],
                }
            ],
            "meta": {"ranking": []},
            "created_at": T0,
            **more,
        }
    )


def test_checkpoints_come_back_and_the_latest_ends_last(session: Session, other: Session) -> None:
    repository = DBCheckpointRepository(session)
    assert repository.get_latest() is None
    for number in (2, 1, 3):
        repository.save(checkpoint(number))
    paid = checkpoint(1, status=CheckpointStatus.PAID, tx_hash="0x1", submitted_at=at(100))
    repository.save(paid)
    seen = DBCheckpointRepository(other)
    assert seen.find() == [paid, checkpoint(2), checkpoint(3)]
    assert seen.get_latest() == checkpoint(3)
    assert seen.find(status="PAID") == [paid]
    assert ids(seen.find(status="PENDING", limit=1)) == ["c3"]


def test_a_merkle_root_is_stored_and_outlives_a_save(session: Session, other: Session) -> None:
    repository = DBCheckpointRepository(session)
    repository.save(checkpoint(1))
    repository.update_merkle_root("c1", "ab12")
    repository.save(checkpoint(1, status=CheckpointStatus.SUBMITTED))
    assert other.connection().execute(text("SELECT merkle_root, status FROM checkpoints")).one() == (
        "ab12",
        "SUBMITTED",
    )
    with pytest.raises(LookupError, match="no checkpoint 'c9'"):
        repository.update_merkle_root("c9", "ab12")


# The Merkle log


def test_merkle_cycles_come_back_and_the_latest_is_the_newest(session: Session, other: Session) -> None:
    repository = DBMerkleCycleRepository(session)
    assert repository.get_latest() is None
    for number in (1, 0, 2):
        repository.save(
            MerkleCycleRow(
                id=f"k{number}",
                previous_cycle_id=f"k{number - 1}" if number else None,
                snapshots_root="aa",
                chained_root=f"b{number}",
                snapshot_count=number,
                created_at=at(number).replace(tzinfo=None),
            )
        )
    seen = DBMerkleCycleRepository(other)
    assert ids(seen.find()) == ["k0", "k1", "k2"]
    assert ids(seen.find(since=at(1), until=at(2), limit=1)) == ["k2"]
    latest = seen.get_latest()
    assert latest is not None
    assert (latest.id, latest.previous_cycle_id, latest.chained_root, latest.created_at) == ("k2", "k1", "b2", at(2))
    found = seen.get("k1")
    assert found is not None
    assert found.snapshot_count == 1
    assert seen.get("k9") is None
    repository.save(MerkleCycleRow(id="k1", snapshots_root="cc", chained_root="dd", created_at=at(1)))
    other.rollback()
    changed = seen.get("k1")
    assert changed is not None
    assert (changed.snapshots_root, changed.previous_cycle_id) == ("cc", None)


def test_merkle_nodes_are_found_by_tree_leaf_and_hash(session: Session) -> None:
    stocked(session)
    DBSnapshotRepository(session).save(SnapshotRecord("sn1", "m1", T0, at(1)))
    DBCheckpointRepository(session).save(checkpoint(1))
    DBMerkleCycleRepository(session).save(MerkleCycleRow(id="k1", snapshots_root="r", chained_root="c"))
    repository = DBMerkleNodeRepository(session)
    for node in (
        MerkleNodeRow(id="root", cycle_id="k1", level=1, position=0, hash="r"),
        MerkleNodeRow(id="right", cycle_id="k1", level=0, position=1, hash="y"),
        MerkleNodeRow(id="left", cycle_id="k1", level=0, position=0, hash="x", snapshot_id="sn1"),
        MerkleNodeRow(id="top", checkpoint_id="c1", level=0, position=0, hash="r"),
    ):
        repository.save(node)
    assert ids(repository.find_by_cycle_id("k1")) == ["left", "right", "root"]
    assert ids(repository.find_by_checkpoint_id("c1")) == ["top"]
    leaf = repository.find_by_snapshot_id("sn1")
    assert leaf is not None
    assert leaf.id == "left"
    assert repository.find_by_snapshot_id("sn2") is None
    assert ids(repository.find_by_hash_in_checkpoint("r")) == ["top"]
    assert repository.find_by_hash_in_checkpoint("x") == []


def test_create_session_uses_the_environment_s_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    with create_session() as session:
        DBModelRepository(session).save(model())
        bound = session.get_bind()
    assert isinstance(bound, Engine)
    bound.dispose()
    with create_session() as session:
        assert DBModelRepository(session).fetch("m1") == model()
    bound.dispose()
