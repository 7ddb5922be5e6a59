"""A small competition from its predictions to its checkpoints, by the stages themselves: for tests of the log."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import builders
from builders import at
from sqlalchemy import Engine, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.tables import PredictionRow, PredictionSlotRow, ScheduledPredictionConfigRow
from coordinator_node.entities.prediction import PredictionStatus, SlotStatus
from coordinator_node.services.checkpoint import CheckpointStage
from coordinator_node.services.merkle.commitments import commit_predictions
from coordinator_node.services.score import ScoreStage
from coordinator_node.services.snapshot import SnapshotStage

VERIFY = Path(__file__).parents[1] / "docs" / "verify" / "verify.py"
ENVIRON = {"CHECKPOINT_INTERVAL_SECONDS": "120", "SCORE_INTERVAL_SECONDS": "15", "CHECKPOINT_GRACE_SECONDS": "0"}
MODELS = ("m1", "m2", "m3")
SLOT = 30
HORIZON = 60


def verifier() -> ModuleType:
    """The script that strangers run."""
    spec = importlib.util.spec_from_file_location("docs_verify", VERIFY)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scaled_profit(prediction: dict[str, Any], ground_truth: dict[str, Any]) -> dict[str, Any]:
    if prediction["value"] == 13.0:
        return {"success": False, "failed_reason": "unlucky"}
    return {"value": prediction["value"] * ground_truth["profit"], "actual_return": ground_truth["profit"]}


class Competition:
    """Rows and stages of one database, with a clock of its own; all models answer each slot."""

    def __init__(self, engine: Engine, **fields: Any) -> None:
        self.engine = engine
        self.config = CrunchConfig(**{"metrics": [], "scoring_function": scaled_profit, **fields})
        self.settings = builders.settings_of(**ENVIRON)
        with Session(engine) as session:
            for model_id in MODELS:
                builders.model(session, model_id)
            session.add(ScheduledPredictionConfigRow(id="schedule", scope_key="BTC-60"))
            builders.ticks(session, {second: 100 + second % 7 for second in range(-5, 400)})
            self.fence = builders.lease(session)
            session.commit()
        self._score = ScoreStage(engine, self.config, self.settings)
        self._snapshots = SnapshotStage(engine, self.config, self.settings)
        self._checkpoints = CheckpointStage(engine, self.config, self.settings)

    def slot(self, number: int, *, committed_after: float | None = 1.0, outputs: tuple[float, ...] = ()) -> None:
        """All models answer one slot; `committed_after` is in seconds, None does not commit."""
        called = number * SLOT
        with Session(self.engine) as session:
            given = builders.market_input(session, id=f"input-{number}", received_at=at(called))
            slot = PredictionSlotRow(
                prediction_config_id="schedule",
                slot_at=at(called),
                status=SlotStatus.CALLED.value,
                input_id=given.id,
                deadline_at=at(called + 6),
                created_at=at(called),
            )
            builders.add(session, slot)
            rows = [
                {
                    "slot_id": slot.id,
                    "id": f"p-{number}-{model_id}",
                    "input_id": given.id,
                    "model_id": model_id,
                    "prediction_config_id": "schedule",
                    "scope_key": "BTC-60",
                    "scope_jsonb": {"subject": "BTC"},
                    "status": PredictionStatus.PENDING.value,
                    "inference_output_jsonb": {"value": value, "big": 1e22, "small": 1e-7, "note": "é\U0001f600"},
                    "performed_at": at(called),
                    "resolvable_at": at(called) + timedelta(seconds=HORIZON),
                }
                for model_id, value in zip(MODELS, outputs or (1.5, -0.25 * number, 0.1 + number), strict=True)
            ]
            if committed_after is not None:
                rows = commit_predictions(session, rows, at(called + committed_after))
            session.connection().execute(insert(PredictionRow), rows)
            session.commit()

    def count(self, second: float) -> None:
        """Score and count what is due."""
        self._score.run_once(at(second))
        self._snapshots.run_once(at(second), self.fence)

    def check_point(self, second: float) -> int:
        """Make the checkpoints that are due; returns how many."""
        return sum(self._checkpoints.run_once(at(second), self.fence).counts.values())

    def run(self) -> None:
        """Three periods of 120 s with all that a log may hold."""
        for number in range(9):
            self.slot(number, committed_after=None if number == 2 else 1.0)
        self.slot(9, outputs=(13.0, 1.0, 1.0))
        self.slot(10, committed_after=HORIZON + 0.5)
        for second in range(95, 400, 60):
            self.count(second)
        assert self.check_point(400) == 3

    def execute(self, statement: str, **values: Any) -> None:
        """Change the database behind the log's back."""
        with self.engine.begin() as connection:
            assert connection.execute(text(statement), values).rowcount > 0
