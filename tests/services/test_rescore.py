"""Scoring a closed period again: a new generation that every reader takes, beside what was there before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import builders
import pytest
from builders import at, one, rows
from invariants import broken_rules
from sqlalchemy import Engine, text
from sqlmodel import Session, SQLModel

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db import DBPredictionRepository, DBScoreRepository, DBSnapshotRepository
from coordinator_node.db.reports.predictions import PredictionQuestion, newest_predictions
from coordinator_node.db.reports.snapshots import newest_snapshots
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.prediction import CheckpointStatus
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.checkpoint import CheckpointStage
from coordinator_node.services.ranking import Ranking
from coordinator_node.services.rescore import Period, RescoreError, RescoreReport, rescore, staging
from coordinator_node.services.rescore import again as again_module
from coordinator_node.services.rescore import publish as publish_module
from coordinator_node.services.score import ScoreStage
from coordinator_node.services.snapshot import SnapshotStage
from coordinator_node.services.window_sums import read_window_sums

ALL = Period(at(0), at(1000))
NOW = at(2000)


def plain(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    """The first scoring function; it fails where the prediction says so."""
    if prediction["value"] == 13:
        raise ValueError("unlucky")
    return {"value": prediction["value"] * ground_truth["profit"]}


def negated(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    return {"value": -prediction["value"] * ground_truth["profit"]}


def config_of(function: Callable[..., Any] = plain, **fields: Any) -> CrunchConfig:
    return CrunchConfig(scoring_function=function, **{"metrics": ["ic", "max_drawdown"], **fields})


def again(
    engine: Engine, function: Callable[..., Any] = negated, period: Period = ALL, **options: Any
) -> RescoreReport:
    fields = options.pop("fields", {})
    config = config_of(function, **fields)
    values = {"dry_run": False, **options}
    return rescore(engine, config, builders.settings_of(), period, NOW, **values)


@pytest.fixture
def fence(engine: Engine) -> LeaseFence:
    with Session(engine) as session:
        held = builders.lease(session)
        session.commit()
    return held


class Competition:
    """Two models, three slots of 100 s, scored and counted by the live stages in a cycle each."""

    def __init__(self, engine: Engine, fence: LeaseFence) -> None:
        self.engine, self.fence = engine, fence
        self.score = ScoreStage(engine, config_of(), builders.settings_of())
        self.snapshots = SnapshotStage(engine, config_of(), builders.settings_of())
        with Session(engine) as session:
            for model_id in ("a", "b"):
                builders.model(session, model_id)
            session.commit()

    def slot(self, start: float, profit: float = 0.5, **outputs: float) -> None:
        with Session(self.engine) as session:
            row = builders.market_input(session, actuals_jsonb={"profit": profit}, status="RESOLVED")
            for model_id, value in (outputs or {"a": 1.0, "b": 2.0}).items():
                builders.prediction(
                    session,
                    model_id,
                    row.id,
                    id=f"{model_id}-{start:g}",
                    performed_at=at(start),
                    resolvable_at=at(start + 60),
                    inference_output_jsonb={"value": value},
                )
            session.commit()
        self.cycle(start + 61)

    def cycle(self, second: float) -> None:
        while self.score.run_once(at(second)).counts:
            pass
        self.snapshots.run_once(at(second), self.fence)


@pytest.fixture
def competition(engine: Engine, fence: LeaseFence) -> Competition:
    made = Competition(engine, fence)
    made.slot(0)
    made.slot(100, profit=-0.25, a=13.0, b=4.0)
    made.slot(200, a=3.0)
    return made


def everything(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    return {
        table.name: rows(engine, f'SELECT * FROM "{table.name}" AS t ORDER BY CAST(t AS text)')
        for table in SQLModel.metadata.sorted_tables
    }


CURRENT = """
    SELECT model_id, period_start, period_end, prediction_count, result_summary_jsonb AS summary, meta_jsonb AS meta
    FROM snapshots WHERE superseded_by IS NULL ORDER BY period_end, model_id
"""


def windows(engine: Engine) -> Any:
    with Session(engine) as session:
        return read_window_sums(session, config_of().aggregation, NOW)


def test_a_new_generation_replaces_what_counts_and_nothing_is_overwritten(competition: Competition) -> None:
    engine = competition.engine
    before = everything(engine)
    report = again(engine)
    assert (report.generation, report.counts.scored, report.counts.failed, report.counts.differing) == (2, 5, 0, 5)
    scores = rows(engine, "SELECT prediction_id, result_jsonb, success FROM scores WHERE generation = 2 ORDER BY 1")
    assert [(row["prediction_id"], row["result_jsonb"]["value"]) for row in scores] == [
        ("a-0", -0.5),
        ("a-100", 3.25),
        ("a-200", -1.5),
        ("b-0", -1.0),
        ("b-100", 1.0),
    ]
    after = everything(engine)
    for table in ("scores", "leaderboards", "checkpoints", "inputs", "predictions", "engine_state"):
        assert all(row in after[table] for row in before[table]), table
    for old in before["snapshots"]:
        assert {**old, "superseded_by": 2} in after["snapshots"]
    assert len(after["snapshots"]) == 2 * len(before["snapshots"])
    current = rows(engine, CURRENT)
    assert [row["prediction_count"] for row in current] == [1, 1, 1, 1, 1]
    assert current[2]["summary"]["value"] == 3.25
    assert current[2]["meta"]["failed_count"] == 0
    assert broken_rules(engine) == {}


def test_the_new_snapshots_are_those_that_the_live_stage_would_have_made(
    competition: Competition,
) -> None:
    """With the function it was scored by, all comes out again as it was, to the last digit."""
    before = rows(competition.engine, CURRENT)
    report = again(competition.engine, plain)
    assert report.counts.differing == 0
    assert report.before == report.after
    after = rows(competition.engine, CURRENT)
    for row in after:
        del row["meta"]["rescore"]
    assert after == before
    assert one(competition.engine, "SELECT count(*) FROM snapshots WHERE superseded_by = 2") == len(before)


def test_a_dry_run_writes_nothing_and_shows_what_would_come(competition: Competition) -> None:
    before = everything(competition.engine)
    dry = again(competition.engine, dry_run=True)
    assert everything(competition.engine) == before
    assert dry.generation is None
    real = again(competition.engine)
    assert (dry.counts, dry.before) == (real.counts, real.before)
    unscored = [(s.model_id, s.rank, s.windows) for s in dry.after]
    assert unscored == [(s.model_id, s.rank, s.windows) for s in real.after] == standing_now(competition.engine)


def standing_now(engine: Engine) -> list[tuple[str, int | None, dict[str, Any]]]:
    ranking = Ranking(config_of(), builders.settings_of())
    with Session(engine) as session:
        return [(s.model_id, s.rank, s.windows) for s in ranking.ranked(ranking.standings(session, at(1000)))]


def test_a_second_rescore_replaces_the_first(competition: Competition) -> None:
    first = windows(competition.engine)
    again(competition.engine)
    assert windows(competition.engine) != first
    second = again(competition.engine, plain)
    assert second.generation == 3
    assert windows(competition.engine) == first
    assert one(competition.engine, "SELECT count(*) FROM scores WHERE generation = 3") == 5
    assert rows(competition.engine, "SELECT DISTINCT superseded_by FROM snapshots ORDER BY 1") == [
        {"superseded_by": 2},
        {"superseded_by": 3},
        {"superseded_by": None},
    ]
    assert one(competition.engine, "SELECT count(DISTINCT origin_id) FROM snapshots WHERE superseded_by IS NULL") == 5
    assert broken_rules(competition.engine) == {}


def test_a_part_of_a_snapshot_takes_the_rest_along_unchanged(competition: Competition) -> None:
    with Session(competition.engine) as session:
        for second in (300, 310):
            row = builders.market_input(session, actuals_jsonb={"profit": 1.0}, status="RESOLVED")
            times = {"performed_at": at(second), "resolvable_at": at(second + 60)}
            builders.prediction(session, "a", row.id, id=f"a-{second}", **times)
        session.commit()
    competition.cycle(400)
    report = again(competition.engine, period=Period(at(365), at(400)))
    assert (report.counts.scored, report.counts.beside, report.counts.snapshots) == (1, 1, 1)
    found = rows(competition.engine, "SELECT prediction_id, result_jsonb FROM scores WHERE generation = 2 ORDER BY 1")
    assert [(row["prediction_id"], row["result_jsonb"]["value"]) for row in found] == [("a-300", 1.0), ("a-310", -1.0)]
    assert rows(competition.engine, CURRENT)[-1]["summary"]["value"] == 0.0
    assert broken_rules(competition.engine) == {}


def test_misses_stay_missing(competition: Competition) -> None:
    with Session(competition.engine) as session:
        row = builders.market_input(session, actuals_jsonb={"profit": 1.0}, status="RESOLVED")
        schedule = (
            "INSERT INTO scheduled_prediction_configs (id, scope_key, active, \"order\") VALUES ('s', 'x', true, 0)"
        )
        session.connection().execute(text(schedule))
        session.connection().execute(
            text(
                "INSERT INTO prediction_slots (id, prediction_config_id, slot_at, status, input_id, deadline_at,"
                " created_at) VALUES ('slot', 's', :at, 'CALLED', :input, :at, :at)"
            ),
            {"at": at(300), "input": row.id},
        )
        times = {"performed_at": at(300), "resolvable_at": at(360), "slot_id": "slot"}
        builders.prediction(session, "a", row.id, **times)
        builders.prediction(session, "b", row.id, status="ABSENT", **times)
        session.commit()
    competition.cycle(361)
    before = rows(competition.engine, CURRENT)[-2:]
    again(competition.engine, plain, Period(at(360), at(361)))
    after = rows(competition.engine, CURRENT)[-2:]
    assert [row["meta"]["absent_count"] for row in after] == [row["meta"]["absent_count"] for row in before] == [0, 1]
    again(competition.engine, plain)
    assert broken_rules(competition.engine) == {}


@pytest.mark.parametrize("place", ["scoring", "staging", "publishing"])
def test_whatever_ends_it_nothing_half_written_is_read(
    competition: Competition, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    before = everything(competition.engine)
    calls: list[int] = []

    def killed(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if place == "staging":
            patched.setattr(again_module.CycleScorer, "_score_rows", killed)
        if place == "publishing":
            patched.setattr(publish_module.Leaderboard, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            again(competition.engine, killed if place == "scoring" else negated)
    assert calls
    assert everything(competition.engine) == before
    assert again(competition.engine).generation == 2


def test_a_connection_that_is_cut_leaves_nothing_and_the_next_one_may_begin(competition: Competition) -> None:
    before = everything(competition.engine)

    def cut(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
        with competition.engine.begin() as connection:
            holders = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7204004"
            connection.execute(text(holders))
        return {"value": 0.0}

    with pytest.raises(Exception, match=r"terminat|closed|lost"):
        again(competition.engine, cut)
    assert everything(competition.engine) == before
    assert again(competition.engine).generation == 2


def test_only_one_runs_at_a_time(competition: Competition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "LOCK_WAIT_MILLISECONDS", 10)
    said: list[str] = []

    def meanwhile(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
        with pytest.raises(RescoreError) as refused:
            again(competition.engine)
        said.append(str(refused.value))
        return {"value": 0.0}

    again(competition.engine, meanwhile, Period(at(60), at(61)))
    assert said == ["another rescore is running; wait until it has ended"] * 2


def test_a_live_leader_goes_on_and_counts_by_the_new_scores(competition: Competition) -> None:
    """One that had all in memory, and one that begins afresh, write the same."""
    engine = competition.engine

    def meanwhile(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
        if prediction["prediction_id"] == "a-0":
            competition.slot(300)
        return negated(prediction, ground_truth)

    again(engine, meanwhile)
    competition.snapshots.run_once(NOW, competition.fence)
    kept = one(engine, "SELECT entries_jsonb FROM leaderboards ORDER BY created_at DESC, id DESC LIMIT 1")
    competition.slot(400)
    fresh = SnapshotStage(engine, config_of(), builders.settings_of())
    fresh.run_once(at(2001), competition.fence)
    assert {entry["model_id"]: entry["score"]["metrics"]["score_recent"] for entry in kept} == pytest.approx(
        {"a": (-0.5 + 3.25 - 1.5 + 0.5) / 4, "b": (-1.0 + 1.0 + 1.0) / 3}
    )
    both = rows(engine, "SELECT entries_jsonb FROM leaderboards ORDER BY created_at DESC, id DESC LIMIT 1")
    competition.snapshots.run_once(at(2002), competition.fence)
    assert both[0]["entries_jsonb"]
    assert broken_rules(engine) == {}
    with Session(engine) as session:
        again_read = Ranking(config_of(), builders.settings_of()).standings(session, at(2001))
    shown = {entry["model_id"]: entry["score"]["metrics"] for entry in both[0]["entries_jsonb"]}
    assert {s.model_id: s.metrics for s in again_read} == shown


def test_one_that_is_published_in_the_middle_of_a_pass_is_in_that_passs_leaderboard(
    competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = SnapshotStage._write_leaderboard

    def after_a_rescore(*given: Any) -> bool:
        again(competition.engine)
        return write(*given)

    with monkeypatch.context() as patched:
        patched.setattr(SnapshotStage, "_write_leaderboard", after_a_rescore)
        competition.slot(300)
    shown = "SELECT entries_jsonb FROM leaderboards WHERE NOT meta_jsonb ? 'rescore' ORDER BY created_at DESC LIMIT 1"
    written = {e["model_id"]: e["score"]["metrics"]["score_recent"] for e in one(competition.engine, shown)}
    assert written == {model_id: windows["score_recent"] for model_id, _, windows in standing_now(competition.engine)}


def test_the_leader_remembers_the_new_scores(competition: Competition) -> None:
    again(competition.engine)
    competition.slot(300)
    kept = rows(competition.engine, CURRENT)[-2]
    assert kept["model_id"] == "a"
    # -0.5, 3.25, -1.5, 0.5: the curve falls from 2.75 to 1.25, and from 0 to -0.5 before.
    assert kept["summary"]["max_drawdown"] == pytest.approx(-1.5)


def test_a_leaderboard_says_that_a_rescore_wrote_it(competition: Competition) -> None:
    again(competition.engine)
    newest = rows(competition.engine, "SELECT created_at, meta_jsonb FROM leaderboards ORDER BY created_at")[-1]
    assert newest == {"created_at": NOW, "meta_jsonb": {"rescore": 2}}
    assert one(
        competition.engine, "SELECT overall_score_jsonb -> 'ranking' ->> 'value' FROM models WHERE id = 'a'"
    ) == (one(competition.engine, "SELECT CAST(1.25 / 3 AS float8)::text"))


def test_a_model_that_never_scored_gets_its_first_score(competition: Competition) -> None:
    with Session(competition.engine) as session:
        builders.model(session, "c")
        session.commit()
    competition.slot(300, c=13.0)
    first = "SELECT first_scored_at FROM models WHERE id = :id"
    a = one(competition.engine, first, id="a")
    assert one(competition.engine, first, id="c") is None
    again(competition.engine)
    assert one(competition.engine, first, id="c") == NOW
    assert one(competition.engine, first, id="a") == a


def test_every_reader_takes_the_newest_and_only_that(competition: Competition) -> None:
    again(competition.engine)
    with Session(competition.engine) as session:
        scores = DBScoreRepository(session).find(model_id="a")
        assert sorted(score.result["value"] for score in scores) == [-1.5, -0.5, 3.25]
        [score] = DBScoreRepository(session).find(prediction_id="a-100")
        assert (score.success, score.result["value"]) == (True, 3.25)
        scored = DBPredictionRepository(session).query_scores(model_ids=["b"])["b"]
        assert [one_.score.result["value"] for one_ in scored if one_.score] == [-1.0, 1.0]
        assert len(DBSnapshotRepository(session).find()) == 5
        connection = session.connection()
        assert len(newest_snapshots(connection, model_id="a", since=None, until=None, limit=100)) == 3
        question = PredictionQuestion(at(0), at(1000), ["a"], "value")
        shown = newest_predictions(connection, question, 10)
    assert [(row["score_value"], row["score_failed"]) for row in shown] == [(-1.5, False), (3.25, False), (-0.5, False)]


def test_a_function_that_fails_costs_its_row_and_is_counted(competition: Competition) -> None:
    def moody(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
        if prediction["prediction_id"] == "a-0":
            sys.exit("no more")
        return {"value": float("nan")} if prediction["prediction_id"] == "b-0" else negated(prediction, ground_truth)

    report = again(competition.engine, moody)
    assert (report.counts.scored, report.counts.failed) == (3, 2)
    assert dict(report.counts.reasons) == {"SystemExit: no more": 1, "UnstorableError: score.value is nan": 1}
    failed = rows(competition.engine, "SELECT success, failed_reason FROM scores WHERE generation = 2 AND NOT success")
    assert len(failed) == 2
    # Its first score stays the prediction's status; the newest one counts.
    assert one(competition.engine, "SELECT status FROM predictions WHERE id = 'a-0'") == "SCORED"
    current = rows(competition.engine, CURRENT)
    assert [(row["prediction_count"], row["meta"]["failed_count"]) for row in current[:2]] == [(0, 1), (0, 1)]


def test_a_period_that_is_not_closed_is_refused_with_counts(competition: Competition) -> None:
    with Session(competition.engine) as session:
        row = builders.market_input(session)
        for _ in range(2):
            builders.prediction(session, "a", row.id, performed_at=at(300), resolvable_at=at(360))
        session.commit()
    before = everything(competition.engine)
    with pytest.raises(RescoreError, match=r"2 predictions of .* are not final yet.*GROUND_TRUTH_TIMEOUT_SECONDS"):
        again(competition.engine)
    assert again(competition.engine, period=Period(at(0), at(360)), dry_run=True).counts.scored == 5
    with Session(competition.engine) as session:
        builders.scored(session, "a", performed_at=at(0), resolvable_at=at(60))
        session.commit()
    with pytest.raises(RescoreError, match=r"1 scores of .* are in no snapshot yet.*SCORE_INTERVAL_SECONDS"):
        again(competition.engine, period=Period(at(0), at(360)))
    assert {**everything(competition.engine), "scores": [], "predictions": [], "inputs": []} == {
        **before,
        "scores": [],
        "predictions": [],
        "inputs": [],
    }


@pytest.mark.parametrize(
    ("start", "end", "said"), [(0, 2001, "in the future"), (60, 60, "is not before"), (70, 60, "is not before")]
)
def test_a_period_that_is_none_is_refused(engine: Engine, start: float, end: float, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        again(engine, period=Period(at(start), at(end)))


def test_nothing_to_score_is_said(competition: Competition) -> None:
    with pytest.raises(RescoreError, match=r"no prediction of .* has a score"):
        again(competition.engine, period=Period(at(1000), at(1100)))
    with Session(competition.engine) as session:
        row = builders.prediction(
            session, "a", builders.market_input(session).id, resolvable_at=at(1050), status="SCORED"
        )
        builders.score(session, row.id, generation=None, snapshot_state="COUNTED")
        session.commit()
    with pytest.raises(RescoreError, match=r"1 predictions of .* have a score, and none of them"):
        again(competition.engine, period=Period(at(1000), at(1100)))


def test_what_has_no_stored_truth_keeps_its_score(competition: Competition) -> None:
    with competition.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE inputs SET actuals_jsonb = NULL WHERE id = (SELECT input_id FROM predictions WHERE id = 'a-0')"
            )
        )
    report = again(competition.engine)
    assert (report.counts.scored, report.counts.without_truth) == (3, 2)
    values = rows(competition.engine, "SELECT result_jsonb FROM scores WHERE generation = 2 AND prediction_id = 'a-0'")
    assert values[0]["result_jsonb"]["value"] == 0.5
    # That the truth was taken out of the database, the log does not hide.
    assert set(broken_rules(competition.engine)) == {"the Merkle log verifies"}


def test_stateful_scoring_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="stateful_scoring"):
        again(engine, lambda prediction, truth, state: {}, fields={"stateful_scoring": True})


@pytest.fixture
def checkpoints(engine: Engine, competition: Competition) -> CheckpointStage:
    settings = builders.settings_of(CHECKPOINT_INTERVAL_SECONDS="150")
    return CheckpointStage(engine, config_of(), settings)


def test_a_checkpoint_that_is_made_stays_and_the_next_pays_by_the_new_scores(
    competition: Competition, checkpoints: CheckpointStage
) -> None:
    engine = competition.engine
    checkpoints.run_once(at(151), competition.fence)
    [made] = rows(engine, "SELECT * FROM checkpoints")
    report = again(engine)
    assert rows(engine, "SELECT * FROM checkpoints") == [made]
    [named] = report.checkpoints
    assert (named.id, named.status, named.end) == (made["id"], CheckpointStatus.PENDING, at(150))
    checkpoints.run_once(at(1000), competition.fence)
    second = rows(engine, "SELECT meta_jsonb FROM checkpoints ORDER BY period_start")[1]["meta_jsonb"]
    shown = {entry["model_id"]: entry for entry in second["ranking"]}
    assert (shown["a"]["prediction_count"], shown["a"]["snapshot_count"]) == (2, 2)
    assert shown["a"]["result_summary"]["score_recent"] == pytest.approx(1.25 / 3)


def test_batches_are_whole_cycles_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PREDICTIONS_AT_ONCE", 10)
    sizes = [(1, 4), (2, 6), (3, 1), (5, 30), (6, 2)]
    assert list(staging.batches(sizes)) == [(1, 2), (3, 3), (5, 5), (6, 6)]
    assert list(staging.batches([])) == []


def test_small_batches_come_to_the_same(competition: Competition, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = again(competition.engine, dry_run=True)
    monkeypatch.setattr(staging, "PREDICTIONS_AT_ONCE", 1)
    seen: list[tuple[int, int]] = []
    parts = again(competition.engine, dry_run=True, progress=lambda done, of: seen.append((done, of)))
    assert parts.counts == whole.counts
    assert parts.after[0] == whole.after[0]
    assert parts.after == whole.after
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
