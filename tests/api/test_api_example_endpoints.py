"""The example of a custom router that every workspace ships, switched on."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from api_cases import KEY, NOW, Client, ClientMaker, model, prediction, stage, store
from sqlalchemy import Engine

from coordinator_node.cli.templates import scaffold_folder
from coordinator_node.db.tables import SnapshotRow


@pytest.fixture
def client(client_of: ClientMaker, named_by_environment: None, tmp_path: Path) -> Client:
    example = scaffold_folder() / "node" / "api" / "example_endpoints.py.disabled"
    shutil.copy(example, tmp_path / "example_endpoints.py")
    return client_of(API_ROUTES_DIR=str(tmp_path))


def test_players_have_their_models(client: Client, engine: Engine) -> None:
    store(engine, *(model(name, player_name=player) for name, player in (("b", "Ada"), ("a", "Ada"), ("c", "Bob"))))
    store(engine, model("__ensemble_main__", player_name=""))
    assert client.rows("/custom/players") == [
        {"player": "Ada", "models": ["name of a", "name of b"]},
        {"player": "Bob", "models": ["name of c"]},
    ]


def test_a_models_progress_is_told_from_its_oldest_snapshot_on(client: Client, engine: Engine) -> None:
    stage(engine, "a", "b")
    ends = [NOW - timedelta(hours=hours) for hours in (3, 2, 1)]
    store(
        engine,
        prediction("a", NOW),
        prediction("b", NOW),
        *(
            SnapshotRow(
                model_id="a",
                period_start=end - timedelta(hours=1),
                period_end=end,
                prediction_count=count,
                result_summary_jsonb={"value": count / 10},
            )
            for count, end in enumerate(ends, 1)
        ),
    )
    found = client.rows("/custom/models/a/progress", limit=2)
    assert (found["model"], found["waiting"]) == ("name of a", 1)
    assert [(row["predictions"], row["value"]) for row in found["periods"]] == [(2, 0.2), (3, 0.3)]
    assert client.get("/custom/models/nobody/progress").json() == {"detail": "there is no model nobody"}
    assert client.get("/custom/models/a/progress", limit=-1).status_code == 422
    assert client.get("/custom/models/%00/progress").status_code == 422


def test_it_needs_the_key_once_there_is_one(client_of: ClientMaker, client: Client, tmp_path: Path) -> None:
    closed = client_of(API_ROUTES_DIR=str(tmp_path), API_KEY=KEY)
    assert closed.get("/custom/players").status_code == 401
    assert closed.get("/custom/players", api_key=KEY).json() == []
