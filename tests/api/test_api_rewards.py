"""Rewards of many checkpoints: of one model as among all, and never all of them in memory."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from api_cases import NOW, Client, checkpoint, store
from sqlalchemy import Engine

from coordinator_node.db.reports import checkpoints

ODD_RANKINGS: list[Any] = [
    {"ranking": [None, 5, "m1", {"model_id": 5, "rank": 1}, {"model_id": True}, {}, {"model_id": "m1"}, []]},
    {"ranking": [{"model_id": "m1", "result_summary": {"value": 1}}, {"model_id": "m1", "rank": 2}]},
    {"ranking": []},
    {"ranking": {"model_id": "m1"}},
    {"ranking": None},
    {},
    None,
]


def test_the_rewards_of_one_model_are_its_rows_among_all(client: Client, engine: Engine) -> None:
    shares = [125_000_000] * 8
    store(
        engine,
        *(
            checkpoint(f"c{number}", NOW - timedelta(days=7 * number), shares=shares, meta_jsonb=meta)
            for number, meta in enumerate(ODD_RANKINGS)
        ),
    )
    every = client.rows("/reports/checkpoints/rewards")
    assert [row["model_id"] for row in every] == ["5", "True", "None", "m1", "m1", "m1"]
    for model_id in ("m1", "5", "True", "None", "nobody"):
        own = client.rows("/reports/checkpoints/rewards", model_id=model_id)
        assert own == [row for row in every if row["model_id"] == model_id], model_id


@pytest.mark.parametrize("params", [{}, {"model_id": "m1"}, {"limit": 2}, {"limit": 4}])
def test_rewards_of_many_checkpoints_are_read_a_few_at_a_time(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch, params: dict[str, Any]
) -> None:
    meta = {"ranking": [{"model_id": "m0"}, {"model_id": "m1"}]}
    store(engine, *(checkpoint(f"c{n}", NOW - timedelta(days=7 * n), meta_jsonb=meta) for n in range(5)))
    expected = client.get("/reports/checkpoints/rewards", **params)
    assert expected.json()
    read: list[int] = []
    fetch = checkpoints.fetch

    def noting(*asked: Any) -> list[dict[str, Any]]:
        found = fetch(*asked)
        read.append(len(found))
        return found

    monkeypatch.setattr(checkpoints, "fetch", noting)
    monkeypatch.setattr(checkpoints, "AT_ONCE", 2)
    answer = client.get("/reports/checkpoints/rewards", **params)
    assert (answer.json(), answer.links) == (expected.json(), expected.links)
    assert max(read) == 2
    assert sum(read) <= params.get("limit", 20) + 1
