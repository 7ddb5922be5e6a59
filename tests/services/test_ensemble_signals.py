"""Ensemble signals: made once, by whoever closes a slot, of what was known at the slot and answered in it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import builders
import pytest
from builders import START, at, rows
from pydantic import BaseModel
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session
from structlog.testing import capture_logs

from coordinator_node.crunch_config import CrunchConfig, EnsembleConfig
from coordinator_node.db.engine import transaction
from coordinator_node.db.tables import (
    EnsembleWeightsRow,
    ModelRow,
    PredictionSlotRow,
    ScheduledPredictionConfigRow,
    SlotCallRow,
)
from coordinator_node.entities.ensemble import ensemble_model_id
from coordinator_node.services.predict.ensemble_signals import MOST_FIELDS, EnsembleSignals
from coordinator_node.services.predict.outcomes import Outcomes
from coordinator_node.services.predict.slots import close_calls, end_left_calls

SHARDS = ("predict/00", "predict/01")
SIGNALS = """
    SELECT model_id, status, inference_output_jsonb AS output, meta_jsonb->'weights' AS weights, slot_id, input_id,
           prediction_config_id, scope_key, scope_jsonb, performed_at, resolvable_at, answered_at, exec_time_ms
    FROM predictions WHERE starts_with(model_id, '__ensemble_') ORDER BY model_id, performed_at
"""


def signals_of(*names: str, settings: dict[str, str] | None = None, **config: Any) -> EnsembleSignals:
    ensembles = [EnsembleConfig(name=name) for name in names or ("main",)]
    made = CrunchConfig(**{"ensembles": ensembles, **config})
    return EnsembleSignals(made, Outcomes(made, builders.settings_of(**(settings or {})), lambda: at(1)), commits=False)


def ensure_model(session: Session, model_id: str) -> None:
    if session.get(ModelRow, model_id) is None:
        builders.model(session, model_id)


def weigh(session: Session, weights: Any, computed_at: datetime = START, name: str = "main") -> None:
    model_id = ensemble_model_id(name)
    ensure_model(session, model_id)
    values = {"model_id": model_id, "computed_at": computed_at, "weights_jsonb": weights}
    builders.add(session, EnsembleWeightsRow(id=builders.numbered("weights"), **values))


def slot(session: Session, answers: dict[str, Any], slot_at: datetime = START, horizon: int = 60) -> str:
    """A slot whose models were asked in two calls, still open, and what each answered; None: it failed."""
    envelope = {"prediction_interval_seconds": 15, "resolve_horizon_seconds": horizon}
    config = builders.add(session, ScheduledPredictionConfigRow(scope_key="BTC-60", schedule_jsonb=envelope)).id
    given = builders.market_input(session).id
    values = {"prediction_config_id": config, "slot_at": slot_at, "input_id": given, "deadline_at": at(5)}
    slot_id = builders.add(session, PredictionSlotRow(status="CALLED", **values)).id
    for number, shard in enumerate(SHARDS):
        names = sorted(answers)[number::2]
        builders.add(session, SlotCallRow(slot_id=slot_id, lease_name=shard, epoch=1, model_ids_jsonb=names))
    for model_id, output in answers.items():
        ensure_model(session, model_id)
        answered = {"status": "PENDING" if output else "FAILED", "inference_output_jsonb": output or {}}
        builders.prediction(session, model_id, given, slot_id=slot_id, performed_at=slot_at, **answered)
    return slot_id


def close(session: Session, signals: EnsembleSignals, *slots: str, shards: tuple[str, ...] = SHARDS) -> int:
    close_calls(session, [(slot_id, shard) for slot_id in slots for shard in shards], at(1))
    return signals.make(session, slots)


def test_the_last_call_of_a_slot_makes_the_signal(engine: Engine) -> None:
    signals = signals_of()
    with transaction(engine) as session:
        weigh(session, {"a": 0.5, "b": 0.25, "gone": 0.25})
        slot_id = slot(session, {"a": {"value": 1.0}, "b": {"value": 4.0}, "c": {"value": 100.0}, "d": None})
        assert close(session, signals, slot_id, shards=SHARDS[:1]) == 0
    assert rows(engine, SIGNALS) == []
    with transaction(engine) as session:
        assert close(session, signals, slot_id, shards=SHARDS[1:]) == 1
        assert signals.make(session, [slot_id]) == 0
    (made,) = rows(engine, SIGNALS)
    assert made["output"] == pytest.approx({"value": 2.0})
    assert made["weights"] == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    (member,) = rows(engine, "SELECT * FROM predictions WHERE model_id = 'a'")
    (own,) = rows(engine, "SELECT * FROM prediction_slots")
    assert made["prediction_config_id"] == own["prediction_config_id"]
    assert (made["model_id"], made["status"], made["exec_time_ms"]) == ("__ensemble_main__", "PENDING", 0.0)
    for column in ("input_id", "scope_key", "scope_jsonb", "performed_at", "resolvable_at", "slot_id"):
        assert made[column] == member[column], column
    assert START <= made["answered_at"] < made["resolvable_at"]


def test_many_slots_at_once_agree_with_a_naive_average_in_three_statements(engine: Engine) -> None:
    chance = random.Random(7)
    names = [f"m{number}" for number in range(6)]
    weights = {"main": {name: chance.uniform(0.1, 1) for name in names[:4]}, "other": {"m4": 0.5, "m5": 0.5}}
    expected: dict[tuple[str, str], float] = {}
    signals = signals_of("main", "other")
    with transaction(engine) as session:
        for name, given in weights.items():
            weigh(session, given, name=name)
        slots = []
        for number in range(30):
            answers = {name: chance.choice([None, {"value": chance.uniform(-5, 5), "note": "x"}]) for name in names}
            slots.append(slot(session, answers, at(15 * number)))
            for ensemble, given in weights.items():
                there = {name: output["value"] for name, output in answers.items() if output and name in given}
                if there:
                    mean = sum(given[name] * value for name, value in there.items()) / sum(given[n] for n in there)
                    expected[slots[-1], ensemble_model_id(ensemble)] = mean
        statements: list[str] = []
        close_calls(session, [(slot_id, shard) for slot_id in slots for shard in SHARDS], at(1))
        event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert signals.make(session, slots) == len(expected) > 30
        assert len([said for said in statements if "SAVEPOINT" not in said]) == 3
    made = {(row["slot_id"], row["model_id"]): row["output"]["value"] for row in rows(engine, SIGNALS)}
    assert made == pytest.approx(expected, rel=1e-12)


def test_only_weights_that_were_known_at_the_slot_count(engine: Engine) -> None:
    signals = signals_of()
    with transaction(engine) as session:
        weigh(session, {"a": 1.0}, at(10))
        weigh(session, {"b": 1.0}, at(20))
        weigh(session, {}, at(40))
        slots = [slot(session, {"a": {"value": 1.0}, "b": {"value": 2.0}}, at(s)) for s in (9, 10, 19, 20, 39, 41)]
        assert close(session, signals, *slots) == 4
    assert [(row["performed_at"], row["output"]["value"]) for row in rows(engine, SIGNALS)] == [
        (at(10), 1.0),
        (at(19), 1.0),
        (at(20), 2.0),
        (at(39), 2.0),
    ]


def test_no_row_without_a_member_that_answered_nor_for_what_is_not_enabled(engine: Engine) -> None:
    off = [EnsembleConfig(name="main", enabled=False)]
    with transaction(engine) as session:
        for name in ("main", "other"):
            weigh(session, {"a": 1.0}, name=name)
        unanswered = slot(session, {"a": None, "b": {"value": 1.0}})
        answered = slot(session, {"a": {"value": 3.0}}, at(15))
        statements: list[str] = []
        session.flush()
        close_calls(session, [(answered, shard) for shard in SHARDS], at(1))
        event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert signals_of(ensembles=off).make(session, [answered]) == 0
        assert signals_of(ensembles=[]).make(session, [answered]) == 0
        assert signals_of(mode="tournament").make(session, [answered]) == 0
        assert signals_of().make(session, []) == 0
        assert statements == [], "it costs nothing where there is nothing to do"
        assert close(session, signals_of("main"), unanswered) == 0
        assert close(session, signals_of("main", "unweighted"), answered) == 1
    assert [row["model_id"] for row in rows(engine, SIGNALS)] == ["__ensemble_main__"]


def test_what_the_score_stage_made_of_an_answer_meanwhile_changes_nothing(engine: Engine) -> None:
    with transaction(engine) as session:
        weigh(session, {"a": 0.5, "b": 0.25, "c": 0.25})
        slot_id = slot(session, {"a": {"value": 1.0}, "b": {"value": 2.0}, "c": {"value": 4.0}}, horizon=0)
        session.flush()
        session.connection().execute(text("UPDATE predictions SET status = 'SCORED' WHERE model_id = 'a'"))
        session.connection().execute(text("UPDATE predictions SET status = 'FAILED' WHERE model_id = 'b'"))
        close(session, signals_of(), slot_id)
    (made,) = rows(engine, SIGNALS)
    assert made["output"] == pytest.approx({"value": 2.0})
    assert made["resolvable_at"] == made["performed_at"] == START


class Quantiles(BaseModel):
    median: float
    hi: float = 9.0
    count: int = 0
    certain: bool = False


def test_every_number_is_averaged_over_those_that_have_it(engine: Engine) -> None:
    answers = {
        "a": {"median": 1, "hi": 2.0, "certain": True, "own": 1.0, "both": 1.0, "note": "x", "deep": {"x": 1}},
        "b": {"median": 3, "both": 3.0, "more": [1, 2], "null": None},
        "c": {"certain": True},
    }
    with transaction(engine) as session:
        weigh(session, {"a": 0.25, "b": 0.25, "c": 0.5})
        close(session, signals_of(output_type=Quantiles), slot(session, answers))
    (made,) = rows(engine, SIGNALS)
    # What `output_type` does not declare counts where more than half of the members that sent numbers sent it.
    assert made["output"] == {"median": 2.0, "hi": 2.0, "count": 0, "certain": False, "both": 2.0}
    assert made["weights"] == {"a": 0.5, "b": 0.5}


def test_a_model_that_sends_thousands_of_numbers_adds_none_of_its_own(engine: Engine) -> None:
    own = {f"a{number:05}": 1.0 for number in range(20_000)}
    with transaction(engine) as session:
        weigh(session, {"a": 0.5, "b": 0.5})
        weigh(session, {"a": 1.0}, name="alone")
        close(session, signals_of("main", "alone"), slot(session, {"a": {**own, "value": 1.0}, "b": {"value": 3.0}}))
    alone, main = rows(engine, SIGNALS)
    assert main["output"] == {"value": 2.0}
    assert alone["output"]["value"] == 1.0
    assert len(alone["output"]) == MOST_FIELDS


class Counted(BaseModel):
    value: float
    direction: str


def refuse(output: dict[str, Any]) -> None:
    """An INFERENCE_OUTPUT_VALIDATOR that refuses everything."""


@pytest.mark.parametrize(
    ("weights", "config", "settings", "said"),
    [
        ([1, 2], {}, {}, "AttributeError"),
        ({"a": 1.0}, {"output_type": Counted}, {}, "wrong shape: direction: Field required"),
        ({"a": 1.0}, {}, {"INFERENCE_OUTPUT_VALIDATOR": "test_ensemble_signals:refuse"}, "refused by the output valid"),
    ],
)
def test_a_signal_that_cannot_be_made_is_said_once_and_holds_nothing_up(
    engine: Engine, weights: Any, config: dict[str, Any], settings: dict[str, str], said: str
) -> None:
    signals = signals_of("main", settings=settings, **config)
    with capture_logs() as logs, transaction(engine) as session:
        weigh(session, weights)
        for number in range(3):
            close(session, signals, slot(session, {"a": {"value": 1.0, "direction": "up"}}, at(number)))
    assert [(log["ensemble"], log["reason"].startswith(said)) for log in logs] == [("main", True)], logs
    assert rows(engine, SIGNALS) == []
    assert rows(engine, "SELECT 1 FROM slot_calls WHERE closed_at IS NULL") == []


def test_bad_weights_of_one_ensemble_cost_no_other(engine: Engine) -> None:
    signals = signals_of("main", "other", "odd")
    with transaction(engine) as session:
        weigh(session, "none at all")
        weigh(session, {"a": "much", "b": -1, "c": None, "d": 2.0, "__ensemble_other__": 5}, name="odd")
        weigh(session, {"a": 1.0}, name="other")
        with capture_logs() as logs:
            assert close(session, signals, slot(session, {"a": {"value": 1.0}, "d": {"value": 4.0}})) == 2
    assert [log["ensemble"] for log in logs] == ["main"]
    assert [row["output"]["value"] for row in rows(engine, SIGNALS)] == [4.0, 1.0]


def test_a_database_that_refuses_the_step_does_not_lose_the_closing(engine: Engine) -> None:
    signals = signals_of()
    with transaction(engine) as session:
        weigh(session, {"a": 1.0})
        first, second = (slot(session, {"a": {"value": 1.0}}, at(number)) for number in (0, 15))
    with capture_logs() as logs, transaction(engine) as session:
        session.connection().execute(text("SET LOCAL lock_timeout = '20ms'"))
        with engine.connect() as other:
            other.execute(text("SELECT 1 FROM prediction_slots FOR UPDATE"))
            assert close(session, signals, first) == 0
    assert [log["ensemble"] for log in logs] == ["all"]
    assert len(rows(engine, "SELECT 1 FROM slot_calls WHERE closed_at IS NULL")) == 2
    with transaction(engine) as session:
        assert close(session, signals, second) == 1


def test_a_lost_connection_is_not_taken_for_a_signal_that_failed(engine: Engine) -> None:
    with transaction(engine) as session:
        weigh(session, {"a": 1.0})
        slot_id = slot(session, {"a": {"value": 1.0}})
    with Session(engine) as session:
        own = session.connection().execute(text("SELECT pg_backend_pid()")).scalar_one()
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:own, 5000)"), {"own": own})
        with pytest.raises(OperationalError):
            signals_of().make(session, [slot_id])


def test_what_a_dead_worker_left_has_its_signal_too(engine: Engine) -> None:
    with transaction(engine) as session:
        weigh(session, {"a": 0.5, "b": 0.5})
        slot_id = slot(session, {"a": {"value": 1.0}, "b": {"value": 3.0}})
        whole = slot(session, {"a": {"value": 1.0}, "b": {"value": 3.0}}, at(15))
        session.flush()
        session.connection().execute(
            text("DELETE FROM predictions WHERE model_id = 'b' AND slot_id = :id"), {"id": slot_id}
        )
        close(session, signals_of(), slot_id, shards=SHARDS[:1])
    with transaction(engine) as session:
        left = end_left_calls(session, SHARDS, [], at(30))
        assert (left.predictions, sorted(left.slots)) == (1, sorted([slot_id, whole]))
        assert signals_of().make(session, left.slots) == 2
    assert [row["output"]["value"] for row in rows(engine, SIGNALS)] == [1.0, 2.0]
    assert (
        rows(engine, "SELECT failed_reason FROM predictions WHERE status = 'FAILED'")[0]["failed_reason"]
        == "interrupted"
    )


@pytest.mark.parametrize("close_both_first", [True, False])
def test_two_workers_that_close_the_last_two_calls_at_once_make_it_once(
    engine: Engine, database_url: str, connect: Callable[[str], Engine], close_both_first: bool
) -> None:
    """However the two transactions interleave, neither leaves the signal to the other."""
    count = 15
    with transaction(engine) as session:
        weigh(session, {"a": 0.5, "b": 0.5})
        slots = [slot(session, {"a": {"value": 1.0}, "b": {"value": 3.0}}, at(15 * n)) for n in range(count)]
    engines = [connect(database_url), connect(database_url)]
    together = threading.Barrier(2)
    made: list[int] = []

    def work(own: Engine, shard: str) -> None:
        signals = signals_of()
        for slot_id in slots:
            with transaction(own) as session:
                session.connection()
                together.wait(30)
                close_calls(session, [(slot_id, shard)], at(1))
                if close_both_first:
                    together.wait(30)  # neither sees that the other has closed its call
                made.append(signals.make(session, [slot_id]))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(engines, SHARDS, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(made) == count
    assert len(rows(engine, SIGNALS)) == count
    assert rows(engine, "SELECT slot_id FROM predictions GROUP BY slot_id, model_id HAVING count(*) > 1") == []


@pytest.mark.parametrize("name", ["", "a\x00b", "a\nb", "\ud800"])
def test_an_ensemble_needs_a_name_that_makes_it_one(name: str) -> None:
    with pytest.raises(ValueError, match="name must be printable and not empty"):
        EnsembleConfig(name=name)


def test_two_ensembles_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two ensembles have the name 'main'"):
        CrunchConfig(ensembles=[EnsembleConfig(name="main"), EnsembleConfig(name="main", enabled=False)])
