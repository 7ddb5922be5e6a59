"""The checkpoint stage: every period once, in order, and no emission that must not be paid."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import builders
import pytest
from builders import at, one, rows
from sqlalchemy import Engine, event, text
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from structlog.testing import capture_logs

from coordinator_node.crunch_config import Aggregation, CrunchConfig, default_build_emission
from coordinator_node.db.tables import InputRow, PredictionSlotRow, ScheduledPredictionConfigRow, SlotCallRow
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.extensions.emission_strategies import benchmark_gated, best_per_player
from coordinator_node.runtime import loop
from coordinator_node.runtime.leases import LeaseFence, LeaseLostError
from coordinator_node.services.checkpoint import CheckpointStage, EmissionError
from coordinator_node.services.snapshot import SnapshotStage

CHECKPOINTS = "SELECT * FROM checkpoints ORDER BY period_start"
MINUTE = {"CHECKPOINT_INTERVAL_SECONDS": "60"}


@pytest.fixture
def fence(engine: Engine) -> LeaseFence:
    with Session(engine) as session:
        held = builders.lease(session)
        session.commit()
    return held


def stage_of(engine: Engine, environ: dict[str, str] | None = None, **fields: Any) -> CheckpointStage:
    return CheckpointStage(engine, CrunchConfig(**fields), builders.settings_of(**{**MINUTE, **(environ or {})}))


def all_due(stage: CheckpointStage, now: datetime, fence: LeaseFence) -> int:
    """Make all checkpoints that are due; returns how many."""
    made = 0
    while (result := stage.run_once(now, fence)).again:
        made += result.counts["checkpoints"]
    return made


def periods(engine: Engine) -> list[tuple[float, float]]:
    found = rows(engine, CHECKPOINTS)
    return [
        tuple((row[name] - builders.START).total_seconds() for name in ("period_start", "period_end")) for row in found
    ]


def anchored(session: Session, model_id: str = "first", value: float = 0.5, **fields: Any) -> None:
    """A model with a snapshot that begins at START, where the first period begins with it."""
    builders.model(session, model_id)
    builders.snapshot(session, model_id, value, **{"period_end": at(30), "created_at": at(31), **fields})


def test_without_a_snapshot_there_is_no_period(engine: Engine, fence: LeaseFence) -> None:
    assert stage_of(engine).run_once(at(10_000), fence).counts == {"checkpoints": 0}
    assert one(engine, "SELECT count(*) FROM engine_state") == 0


def test_the_first_period_begins_with_the_first_snapshot_and_ends_before_its_checkpoint(
    engine: Engine, fence: LeaseFence
) -> None:
    with Session(engine) as session:
        anchored(session)
        session.commit()
    stage = stage_of(engine)
    assert all_due(stage, at(59.999999), fence) == 0
    assert all_due(stage, at(60), fence) == 1
    assert all_due(stage, at(119), fence) == 0
    assert periods(engine) == [(0, 60)]
    [row] = rows(engine, CHECKPOINTS)
    assert (row["status"], row["created_at"], row["tx_hash"]) == ("PENDING", at(60), None)
    assert row["meta_jsonb"]["empty"] is False


def test_the_anchor_stays_where_it_was(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        anchored(session)
        session.commit()
    stage_of(engine).run_once(at(40), fence)
    with Session(engine) as session:
        builders.snapshot(session, "first", period_start=at(-500))
        session.commit()
    all_due(stage_of(engine, {"CHECKPOINT_START": "2020-01-01T00:00:00Z"}), at(60), fence)
    assert periods(engine) == [(0, 60)]


def test_the_first_period_begins_at_checkpoint_start(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        anchored(session)
        session.commit()
    stage = stage_of(engine, {"CHECKPOINT_START": at(-20).isoformat()})
    assert all_due(stage, at(60), fence) == 1
    assert periods(engine) == [(-20, 40)]


def test_the_first_period_begins_where_an_adopted_checkpoint_ended(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        anchored(session)
        builders.checkpoint(session, at(-700), at(-100))
        builders.checkpoint(session, at(-500), at(-50))
        session.commit()
    stage = stage_of(engine, {"CHECKPOINT_START": at(-20).isoformat()})
    assert all_due(stage, at(11), fence) == 1
    assert periods(engine)[-1] == (-50, 10)


def test_snapshots_that_others_wrote_do_not_begin_the_first_period(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        anchored(session)
        builders.snapshot(session, "first", period_start=at(-500), period_end=at(-400), cycle_id=None)
        session.commit()
    assert all_due(stage_of(engine), at(60), fence) == 1
    assert periods(engine) == [(0, 60)]


def test_missed_periods_are_caught_up_in_order_and_follow_one_another(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        anchored(session)
        session.commit()
    assert all_due(stage_of(engine), at(200), fence) == 3
    # Another interval changes where the next period ends, not where it starts.
    assert all_due(stage_of(engine, {"CHECKPOINT_INTERVAL_SECONDS": "25"}), at(231), fence) == 2
    assert periods(engine) == [(0, 60), (60, 120), (120, 180), (180, 205), (205, 230)]
    made = [row["created_at"] for row in rows(engine, CHECKPOINTS)]
    assert made == [at(200)] * 3 + [at(231)] * 2


def test_an_empty_period_pays_nobody_and_says_so(engine: Engine, fence: LeaseFence) -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("there is nobody to pay")

    with Session(engine) as session:
        anchored(session, period_end=at(70))
        session.commit()
    stage = stage_of(engine, {"DATA_PROVIDER_PUBKEY": "data"}, build_emission=never, crunch_pubkey="crunch")
    stage.run_once(at(60), fence)
    [row] = rows(engine, CHECKPOINTS)
    assert row["meta_jsonb"]["empty"] is True
    assert "no model had a scored prediction" in row["meta_jsonb"]["reason"]
    assert row["entries_jsonb"] == [
        {"crunch": "crunch", "cruncher_rewards": [], "compute_provider_rewards": [], "data_provider_rewards": []}
    ]


def test_the_ranking_is_that_of_the_periods_end_and_pays_only_who_was_scored_in_it(
    engine: Engine, fence: LeaseFence
) -> None:
    with Session(engine) as session:
        for model_id in ("second", "best before", "only failed", "of the next", "__ensemble_all__"):
            builders.model(session, model_id)
        anchored(session, "first", 0.5, count=3)
        builders.snapshot(session, "first", 0.9, 1, period_end=at(59.999999), meta_jsonb={"failed_count": 4})
        # What happens at the end itself belongs to the next period, however good it is.
        builders.snapshot(session, "first", -100.0, 50, period_end=at(60))
        builders.snapshot(
            session, "second", count=2, period_end=at(20), result_summary_jsonb={"value": 0.4, "contribution": 0.1}
        )
        builders.snapshot(session, "best before", 100.0, period_end=at(-1))
        builders.snapshot(session, "only failed", None, 0, period_end=at(20))
        builders.snapshot(session, "of the next", 100.0, period_end=at(60))
        builders.snapshot(session, "__ensemble_all__", 100.0, period_end=at(20))
        session.commit()
    environ = {"CHECKPOINT_START": at(0).isoformat(), "CRUNCH_PUBKEY": "env crunch", "COMPUTE_PROVIDER_PUBKEY": "gpu"}
    stage = stage_of(engine, environ, crunch_pubkey="config crunch", data_provider="config data")
    stage.run_once(at(60), fence)
    [row] = rows(engine, CHECKPOINTS)
    first, second = row["meta_jsonb"]["ranking"]
    assert first == {
        "model_id": "first",
        "model_name": "name of first",
        "cruncher_id": "player of first",
        "cruncher_name": "player first",
        "rank": 1,
        "prediction_count": 4,
        "snapshot_count": 2,
        "result_summary": {"value": 0.9, "score_recent": 0.6, "score_steady": 0.6, "score_anchor": 0.6},
    }
    assert (second["model_id"], second["rank"], second["result_summary"]["contribution"]) == ("second", 2, 0.1)
    assert (row["meta_jsonb"]["ranking_key"], row["meta_jsonb"]["missing_scores"]) == ("score_recent", 0)
    [emission] = row["entries_jsonb"]
    expected = default_build_emission([first, second], "env crunch", "gpu", "config data")
    assert emission == expected
    assert sum(reward["reward_pct"] for reward in emission["cruncher_rewards"]) == 1_000_000_000


def test_a_config_may_pay_one_model_a_player_and_retain_the_rest(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        for model_id, player, value in [
            ("a1", "ada", 3.0),
            ("a2", "ada", 2.0),
            ("b", "bob", 1.5),
            ("naive", "us", 1.0),
        ]:
            builders.model(session, model_id, player_id=player, player_name="the same for all")
            builders.snapshot(session, model_id, value, period_end=at(30))
        session.commit()
    build = best_per_player(partial(benchmark_gated, benchmark="naive"))
    stage_of(engine, build_emission=build).run_once(at(60), fence)
    [row] = rows(engine, CHECKPOINTS)
    assert [entry["model_id"] for entry in row["meta_jsonb"]["ranking"]] == ["a1", "a2", "b", "naive"]
    [emission] = row["entries_jsonb"]
    # The tiers of three are 50, 25 and 25 %; the benchmark's own is retained.
    assert emission["cruncher_rewards"] == [
        {"cruncher_index": 0, "reward_pct": 666_666_667},
        {"cruncher_index": 2, "reward_pct": 333_333_333},
    ]
    assert emission["retained_pct"] == 250_000_000


def test_a_model_whose_ranking_window_is_empty_is_not_paid(engine: Engine, fence: LeaseFence) -> None:
    """Scored at the beginning of a period that is longer than the window that ranks."""
    with Session(engine) as session:
        anchored(session, "early")
        anchored(session, "late", period_end=at(90_000))
        session.commit()
    stage_of(engine, {"CHECKPOINT_INTERVAL_SECONDS": "100000"}).run_once(at(100_000), fence)
    ranking = one(engine, "SELECT meta_jsonb -> 'ranking' FROM checkpoints")
    assert [(entry["model_id"], entry["rank"]) for entry in ranking] == [("late", 1)]


def pending(session: Session, slot_at: float = 0.0) -> None:
    builders.prediction(session, "first", builders.market_input(session).id, resolvable_at=at(slot_at + 59))


def uncounted(session: Session, slot_at: float = 0.0) -> None:
    builders.scored(session, "first", resolvable_at=at(slot_at))


def unanswered(session: Session, slot_at: float = 0.0) -> None:
    """One of the two models asked has answered, and its answer was scored and counted."""
    builders.model(session, "other")
    slot, row = called_slot(session, slot_at)
    call = SlotCallRow(slot_id=slot.id, lease_name="predict/00", epoch=1, model_ids_jsonb=["first", "other"])
    builders.add(session, call)
    builders.prediction(session, "other", row.id, slot_id=slot.id, status="SCORED", resolvable_at=at(slot_at + 59))


def missed(session: Session, slot_at: float = 0.0) -> None:
    slot, row = called_slot(session, slot_at)
    builders.prediction(session, "first", row.id, slot_id=slot.id, status="ABSENT", resolvable_at=at(slot_at + 59))


def called_slot(session: Session, slot_at: float) -> tuple[PredictionSlotRow, InputRow]:
    """A moment of a schedule whose outcome is known 59 s later."""
    times = {"prediction_interval_seconds": 1, "resolve_horizon_seconds": 59}
    schedule = builders.add(session, ScheduledPredictionConfigRow(scope_key="BTC-59", schedule_jsonb=times))
    row = builders.market_input(session)
    fields = {"status": "CALLED", "input_id": row.id, "deadline_at": at(slot_at + 5)}
    slot = PredictionSlotRow(prediction_config_id=schedule.id, slot_at=at(slot_at), **fields)
    return builders.add(session, slot), row


WAITED_FOR = [pending, uncounted, unanswered, missed]


@pytest.mark.parametrize("waiting", WAITED_FOR)
def test_scores_that_are_missing_are_waited_for_but_not_for_ever(
    engine: Engine, fence: LeaseFence, waiting: Callable[[Session], None]
) -> None:
    with Session(engine) as session:
        anchored(session)
        waiting(session)
        session.commit()
    stage = stage_of(engine, {"CHECKPOINT_GRACE_SECONDS": "100"})
    assert all_due(stage, at(159), fence) == 0
    # With the first made, the second, which lacks nothing, need not wait.
    assert all_due(stage, at(160), fence) == 2
    assert [row["meta_jsonb"]["missing_scores"] for row in rows(engine, CHECKPOINTS)] == [1, 0]


@pytest.mark.parametrize("waiting", WAITED_FOR)
@pytest.mark.parametrize("slot_at", [-60, 60])
def test_what_is_due_in_another_period_is_not_waited_for(
    engine: Engine, fence: LeaseFence, waiting: Callable[[Session, float], None], slot_at: float
) -> None:
    with Session(engine) as session:
        anchored(session)
        waiting(session, slot_at)
        session.commit()
    assert all_due(stage_of(engine), at(60), fence) == 1


def test_a_late_score_counts_in_the_next_period_and_is_flagged(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        anchored(session)
        builders.model(session, "late")
        row = builders.market_input(session, actuals_jsonb={"profit": 1.0})
        builders.prediction(session, "late", row.id, id="late one", resolvable_at=at(59))
        session.commit()
    environ = {"CHECKPOINT_GRACE_SECONDS": "0"}
    stage = stage_of(engine, environ)
    assert all_due(stage, at(60), fence) == 1
    with Session(engine) as session:
        session.connection().execute(text("UPDATE predictions SET status = 'SCORED'"))
        builders.score(session, "late one")
        session.commit()
    snapshots = SnapshotStage(engine, CrunchConfig(metrics=[]), builders.settings_of(**MINUTE))
    assert snapshots.run_once(at(61), fence).counts["snapshots"] == 1
    assert all_due(stage, at(120), fence) == 1
    before, after = (row["meta_jsonb"]["ranking"] for row in rows(engine, CHECKPOINTS))
    assert [entry["model_id"] for entry in before] == ["first"]
    assert [(entry["model_id"], entry["late_snapshot_count"]) for entry in after] == [("late", 1)]


def emission_with(**changes: Any) -> Callable[..., Any]:
    def build(ranked_entries: list[dict[str, Any]], *addresses: Any) -> Any:
        return {**default_build_emission(ranked_entries, *addresses), **changes}

    return build


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda *arguments: {}["pot"], "KeyError: 'pot'"),
        (lambda *arguments: None, "expected a dict, got NoneType"),
        (emission_with(cruncher_rewards=[{"cruncher_index": 0, "reward_pct": 999_999_999}]), "sums to 999999999"),
        (emission_with(cruncher_rewards=[{"cruncher_index": 1, "reward_pct": 10**9}]), "unknown cruncher_index 1"),
        (emission_with(crunch="\x00"), "database cannot store"),
    ],
)
def test_a_bad_emission_leaves_the_period_open(
    engine: Engine, fence: LeaseFence, build: Callable[..., Any], problem: str
) -> None:
    with Session(engine) as session:
        anchored(session)
        session.commit()
    with pytest.raises(EmissionError, match=r"2026-03-01T12:00:00.*build_emission failed for 1 ranked") as raised:
        stage_of(engine, build_emission=build).run_once(at(60), fence)
    assert problem in str(raised.value)
    assert periods(engine) == []
    assert all_due(stage_of(engine), at(60), fence) == 1


def test_a_bad_emission_does_not_take_the_periods_before_it_along(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        anchored(session)
        row = builders.market_input(session)
        builders.prediction(session, "first", row.id, id="next", resolvable_at=at(90), status="SCORED")
        builders.score(session, "next")
        session.commit()
    snapshots = SnapshotStage(engine, CrunchConfig(metrics=[]), builders.settings_of(**MINUTE))
    assert snapshots.run_once(at(121), fence).counts["snapshots"] == 1
    calls: list[int] = []

    def build(ranked_entries: list[dict[str, Any]], *addresses: Any) -> Any:
        calls.append(len(ranked_entries))
        if len(calls) > 1:
            raise RuntimeError("no more")
        return default_build_emission(ranked_entries, *addresses)

    stage = stage_of(engine, build_emission=build)
    assert stage.run_once(at(180), fence).counts == {"checkpoints": 1}
    assert len(periods(engine)) == 1
    with pytest.raises(EmissionError, match="no more"):
        stage.run_once(at(180), fence)
    assert len(periods(engine)) == 1


def test_what_a_strategy_does_to_its_entries_is_not_what_is_stored(engine: Engine, fence: LeaseFence) -> None:
    def build(ranked_entries: list[dict[str, Any]], *addresses: Any) -> Any:
        ranked_entries[0]["result_summary"]["value"] = 10**6
        ranked_entries[0]["model_id"] = "mine"
        return default_build_emission(ranked_entries, *addresses)

    with Session(engine) as session:
        anchored(session)
        session.commit()
    stage_of(engine, build_emission=build).run_once(at(60), fence)
    [entry] = one(engine, "SELECT meta_jsonb -> 'ranking' FROM checkpoints")
    assert (entry["model_id"], entry["result_summary"]["value"]) == ("first", 0.5)


async def test_a_bad_emission_is_tried_again_at_growing_intervals(
    engine: Engine, fence: LeaseFence, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(engine) as session:
        anchored(session)
        session.commit()
    failures: list[int] = []
    seconds = loop.pause
    monkeypatch.setattr(loop, "pause", lambda count: failures.append(count) or 0.001)
    stop, reported = asyncio.Event(), list[Any]()

    def build(ranked_entries: list[dict[str, Any]], *addresses: Any) -> Any:
        if len(reported) < 4:
            raise RuntimeError("no pot")
        return default_build_emission(ranked_entries, *addresses)

    def report(result: Any) -> None:
        reported.append(result)
        if not isinstance(result, BaseException):
            stop.set()

    stage = stage_of(engine, build_emission=build)
    step = loop.in_thread(lambda: stage.run_once(at(60), fence))
    with capture_logs() as logged:
        await loop.run_loop(step, stop=stop, wake=asyncio.Event(), interval_seconds=60, report=report)
    assert [type(result) for result in reported[:4]] == [EmissionError] * 4
    assert "no pot; correct it, the period stays open" in str(reported[0])
    assert [line["event"] for line in logged[:4]] == ["pass failed; it will be tried again"] * 4
    assert failures == [1, 2, 3, 4]
    assert seconds(1) < seconds(3) < seconds(5)
    assert periods(engine) == [(0, 60)]


def test_a_crash_at_any_statement_leaves_whole_periods_to_be_made(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        anchored(session)
        session.commit()
    stage = stage_of(engine)
    executed = crash_at = 0

    class CrashError(Exception):
        pass

    def crash(*_: Any) -> None:
        nonlocal executed
        executed += 1
        if executed == crash_at:
            raise CrashError

    event.listen(engine, "before_cursor_execute", crash)
    crashes = 0
    while True:
        executed, crash_at = 0, crash_at + 1
        try:
            assert stage.run_once(at(130), fence).counts == {"checkpoints": 2}
            break
        except CrashError:
            crashes += 1
        executed = -10
        assert one(engine, "SELECT count(*) FROM engine_state") == 0
        assert periods(engine) == []
    assert crashes == crash_at - 1 > 15
    executed = -100
    assert all_due(stage, at(130), fence) == 0
    assert periods(engine) == [(0, 60), (60, 120)]


def test_periods_of_ours_cannot_overlap_and_older_ones_may(engine: Engine) -> None:
    with Session(engine) as session:
        builders.checkpoint(session, at(0), at(60))
        builders.checkpoint(session, at(0), at(60))
        builders.checkpoint(session, at(0), at(60), period=Range(at(0), at(60), bounds="[)"))
        builders.checkpoint(session, at(60), at(120), period=Range(at(60), at(120), bounds="[)"))
        session.commit()
        with pytest.raises(IntegrityError, match="ex_checkpoints_period"):
            builders.checkpoint(session, at(59), at(61), period=Range(at(59), at(61), bounds="[)"))


def test_a_lost_lease_writes_nothing(engine: Engine, fence: LeaseFence) -> None:
    with Session(engine) as session:
        anchored(session)
        session.connection().execute(text("UPDATE leases SET epoch = 2"))
        session.commit()
    with pytest.raises(LeaseLostError):
        stage_of(engine).run_once(at(60), fence)
    assert periods(engine) == []
    assert one(engine, "SELECT count(*) FROM engine_state") == 0


def test_two_workers_racing_over_three_missed_periods_make_three_checkpoints(
    engine: Engine, database_url: str, connect: Callable[[str], Engine], fence: LeaseFence
) -> None:
    """Both believe to hold the lease, which the fence's epoch cannot tell apart: the database still can."""
    with Session(engine) as session:
        anchored(session)
        session.commit()
    assert all_due(stage_of(engine), at(65), fence) == 1
    together = threading.Barrier(2)
    problems: list[BaseException] = []

    def race() -> None:
        try:
            stage = stage_of(connect(database_url))
            together.wait(timeout=10)
            for _ in range(8):
                stage.run_once(at(250), fence)
        except BaseException as error:
            problems.append(error)

    workers = [threading.Thread(target=race) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert problems == []
    assert periods(engine) == [(0, 60), (60, 120), (120, 180), (180, 240)]
    as_written = rows(engine, "SELECT period_start FROM checkpoints ORDER BY ctid")
    assert [row["period_start"] for row in as_written] == [at(0), at(60), at(120), at(180)]


def test_a_snapshot_cannot_slip_into_a_period_that_is_being_closed(
    engine: Engine, database_url: str, connect: Callable[[str], Engine], fence: LeaseFence
) -> None:
    """While a checkpoint is made, the snapshot stage waits, and then finds the period closed."""
    with Session(engine) as session:
        anchored(session)
        builders.scored(session, "first", resolvable_at=at(59))
        session.commit()
    snapshots = SnapshotStage(connect(database_url), CrunchConfig(metrics=[]), builders.settings_of(**MINUTE))
    slipping = threading.Thread(target=lambda: snapshots.run_once(at(60), fence))

    def build(ranked_entries: list[dict[str, Any]], *addresses: Any) -> Any:
        slipping.start()
        slipping.join(timeout=0.2)
        assert slipping.is_alive()
        return default_build_emission(ranked_entries, *addresses)

    stage_of(engine, {"CHECKPOINT_GRACE_SECONDS": "0"}, build_emission=build).run_once(at(60), fence)
    slipping.join(timeout=10)
    late = rows(engine, "SELECT meta_jsonb -> 'late' AS late FROM snapshots WHERE created_at = :now", now=at(60))
    assert late == [{"late": {"counts_in": at(60).isoformat()}}]


def test_an_unknown_ranking_key_is_refused_at_start(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="ranking_key"):
        stage_of(engine, aggregation=Aggregation(ranking_key="luck"))
