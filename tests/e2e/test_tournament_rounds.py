"""Two predict worker processes in tournament mode, one killed with -9 in the middle of a round."""

from __future__ import annotations

import asyncio
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from test_predict_shards import HOLDERS, MODELS, predict_worker

sys.path.insert(0, str(Path(__file__).parents[1] / "services"))

from model_cluster import ModelCluster
from predict_cases import UNBALANCED, rows, until_rows

from coordinator_node.config_loader import CrunchConfig
from coordinator_node.db.engine import transaction
from coordinator_node.entities.times import utc_now
from coordinator_node.services.tournament.rounds import queue_round

CONFIG = """
from coordinator_node.crunch_config import CallMethodArg, CallMethodConfig, CrunchConfig
contract = CrunchConfig(mode="tournament", call_method=CallMethodConfig(
    args=[CallMethodArg(name="feature_index", type="INT")]))
"""
FEATURES = 60


async def test_kill_9_of_one_of_two_in_the_middle_of_a_round(tmp_path: Path, engine: Engine, database_url: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "crunch_config.py").write_text(CONFIG)
    asked: dict[str, list[int]] = {name: [] for name in MODELS}

    def slow(name: str) -> Any:
        async def behave(method: str, arguments: list[Any]) -> Any:
            asked[name].append(arguments[0])
            await asyncio.sleep(0.05)
            return {"value": float(arguments[0])}

        return behave

    async with ModelCluster(**{name: slow(name) for name in MODELS}) as cluster:
        with (
            predict_worker(tmp_path, database_url, cluster.port) as first,
            predict_worker(tmp_path, database_url, cluster.port) as second,
        ):
            await until_rows(engine, HOLDERS, lambda found: len(found) == 2 and sum(row.count for row in found) == 12)
            present = "SELECT 1 FROM models WHERE presence = 'PRESENT'"
            await until_rows(engine, present, lambda found: len(found) == len(MODELS))
            with transaction(engine) as session:
                queue_round(session, CrunchConfig(), "r1", [{"number": n} for n in range(FEATURES)], utc_now())
            each = "SELECT model_id FROM predictions GROUP BY model_id HAVING count(*) > 5"
            await until_rows(engine, each, lambda found: len(found) == len(MODELS))
            first.send_signal(signal.SIGKILL)
            await until_rows(engine, HOLDERS, lambda found: [row.count for row in found] == [12])
            await until_rows(engine, "SELECT 1 FROM slot_calls WHERE closed_at IS NULL", lambda found: not found)
            second.terminate()
            assert await asyncio.to_thread(second.wait, 15) == 0
    assert rows(engine, UNBALANCED) == []
    # None failed: had a model ever had two callers, its node would have refused the second.
    wrong = "status <> 'PENDING' OR (inference_output_jsonb->>'value')::float8 <> (scope_jsonb->>'feature_index')::int"
    assert rows(engine, f"SELECT model_id, failed_reason FROM predictions WHERE {wrong}") == []
    taken_over = 0
    for calls in asked.values():
        back = [later for earlier, later in pairwise(calls) if later <= earlier]
        assert len(back) <= 1
        assert len(calls) - FEATURES <= 6, "only what was asked last and not stored yet is asked again"
        assert sorted(set(calls)) == list(range(FEATURES))
        taken_over += bool(back)
    assert 0 < taken_over < len(MODELS)
