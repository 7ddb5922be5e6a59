"""An operator who seals a lie about which snapshots and predictions belong to a checkpoint; all hashes are right."""

from __future__ import annotations

import re

import pytest
from api_cases import report_app, running
from builders import at, rows
from evidence_cases import Competition, verifier
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.services.merkle import checkpoints
from coordinator_node.services.merkle.commitments import commit_predictions

verify = verifier()


def lie_in(engine: Engine) -> str:
    """What is said of the newest checkpoint."""
    with running(report_app(engine)) as server, pytest.raises(verify.LieError) as lie:
        verify.verify(f"http://127.0.0.1:{server.port}")
    return str(lie.value)


@pytest.fixture
def competition(engine: Engine) -> Competition:
    made = Competition(engine)
    for number in range(6):
        made.slot(number)
    return made


NAME_COMMITMENT = text("UPDATE predictions SET commitment_id = :name, commitment_index = :place WHERE id = :id")
COVER_BUT_ONE = checkpoints._COVER.text.replace("cycle.position IS NOT NULL", "cycle.position <> {position}")


@pytest.mark.parametrize("hidden", [1, 2])
def test_a_cycle_that_no_checkpoint_covers_is_named(
    hidden: int, competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    competition.count(95)
    if hidden == 2:
        assert competition.check_point(130) == 1
        competition.count(185)
    monkeypatch.setattr(checkpoints, "_COVER", text(COVER_BUT_ONE.format(position=hidden)))
    assert competition.check_point(hidden * 120 + 5) == 1
    assert re.search("snapshot .* which does not cover its cycle", lie_in(competition.engine))


def test_nor_does_one_hide_that_was_there_when_the_checkpoint_before_was_made(
    competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    competition.count(155)
    monkeypatch.setattr(checkpoints, "_COVER", text(COVER_BUT_ONE.format(position=2)))
    assert competition.check_point(245) == 2
    assert re.search("snapshot .* which does not cover its cycle", lie_in(competition.engine))


def test_the_oldest_snapshots_that_the_ranking_looks_back_to_are_not_hidden(competition: Competition) -> None:
    competition.count(95)
    assert competition.check_point(130) == 1
    competition.execute("UPDATE snapshots SET period_end = period_end - interval '30 days' WHERE model_id = 'm1'")
    competition.execute("UPDATE snapshots SET period_end = period_end - interval '30 days' WHERE model_id <> 'm1'")
    competition.count(185)
    assert competition.check_point(250) == 1
    assert re.search("snapshot .* its sums or its times are not those", lie_in(competition.engine))


def test_a_prediction_that_is_committed_once_it_was_counted_is_named(engine: Engine) -> None:
    competition = Competition(engine)
    competition.slot(0, committed_after=None)
    competition.slot(1)
    competition.count(65)
    with Session(engine) as session:  # in the name of an earlier moment
        found = rows(engine, "SELECT * FROM predictions WHERE input_id = 'input-0' ORDER BY id")
        pending = [{**row, "status": "PENDING", "slot_id": None} for row in found]
        given = commit_predictions(session, pending, at(1))
        for row in given:
            values = {"id": row["id"], "name": row["commitment_id"], "place": row["commitment_index"]}
            session.connection().execute(NAME_COMMITMENT, values)
        session.commit()
    competition.count(95)
    assert competition.check_point(130) == 1
    assert re.search("commitment .* is later than cycle .* which counts what it holds", lie_in(engine))
