"""Checkpoints, emissions, prizes, and the moves of a checkpoint."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api_cases import (
    KEY,
    NOW,
    PATIENCE_SECONDS,
    Client,
    ClientMaker,
    checkpoint,
    emission,
    report_app,
    running,
    store,
    until,
    waiting_for_locks,
)
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from coordinator_node.db import DBCheckpointRepository
from coordinator_node.entities.emission import allocate_exactly
from coordinator_node.entities.prediction import CheckpointStatus
from coordinator_node.services.payout import cli_emission, prizes

WEEK = timedelta(days=7)
PERIOD = {
    "status": "PENDING",
    "period_start": "2026-02-22T12:00:00+00:00",
    "period_end": "2026-03-01T12:00:00+00:00",
}


def post(client: Client, checkpoint_id: str, tx_hash: Any) -> Any:
    return client.request("POST", f"/reports/checkpoints/{checkpoint_id}/confirm", json={"tx_hash": tx_hash})


def patch(client: Client, checkpoint_id: str, status: Any) -> Any:
    return client.request("PATCH", f"/reports/checkpoints/{checkpoint_id}/status", json={"status": status})


def test_checkpoints_newest_first(client: Client, engine: Engine) -> None:
    store(engine, *(checkpoint(f"c{age}", NOW - age * WEEK) for age in range(25)))
    store(engine, checkpoint("paid", NOW - 30 * WEEK, status="PAID", tx_hash="t", submitted_at=NOW))
    rows = client.rows("/reports/checkpoints")
    assert [row["id"] for row in rows] == [f"c{age}" for age in range(20)]
    assert rows[0] == {
        "id": "c0",
        **PERIOD,
        "entries": [emission([700_000_000, 300_000_000])],
        "meta": {"ranking": [{"model_id": "m0", "rank": 1}, {"model_id": "m1", "rank": 2}]},
        "created_at": "2026-03-01T12:00:00+00:00",
        "tx_hash": None,
        "submitted_at": None,
        "merkle_root": None,
    }
    assert [row["id"] for row in client.rows("/reports/checkpoints", limit=2)] == ["c0", "c1"]
    (paid,) = client.rows("/reports/checkpoints", status="PAID")
    assert (paid["id"], paid["tx_hash"], paid["submitted_at"]) == ("paid", "t", "2026-03-01T12:00:00+00:00")


def test_latest_is_the_checkpoint_whose_period_ends_last_and_no_id(client: Client, engine: Engine) -> None:
    store(engine, checkpoint("made-later", NOW - WEEK, created_at=NOW + WEEK), checkpoint("c0"))
    assert client.rows("/reports/checkpoints/latest")["id"] == "c0"
    store(engine, checkpoint("latest", NOW - 2 * WEEK))
    assert client.rows("/reports/checkpoints/latest")["id"] == "c0"
    assert client.rows("/reports/checkpoints/latest/prizes", total_prize=10)["checkpoint_id"] == "c0"
    assert client.rows("/reports/emissions/latest") == {
        "checkpoint_id": "c0",
        **PERIOD,
        "emission": emission([700_000_000, 300_000_000]),
    }


@pytest.mark.parametrize(
    "path",
    [
        "checkpoints/latest",
        "checkpoints/latest/prizes?total_prize=1",
        "emissions/latest",
        "checkpoints/c1/payload",
        "checkpoints/c1/emission",
        "checkpoints/c1/emission/cli-format",
        "checkpoints/c1/prizes?total_prize=1",
    ],
)
def test_what_is_not_there_is_404(client: Client, path: str) -> None:
    answer = client.request("GET", f"/reports/{path}")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("there is no checkpoint")


def test_the_files_of_a_payout(client: Client, engine: Engine) -> None:
    providers = {
        "compute_provider_rewards": [{"provider": "cloud", "reward_pct": 1_000_000_000}],
        "data_provider_rewards": [
            {"provider": "venue", "reward_pct": 333_333_333},
            {"provider": "other", "reward_pct": 666_666_667},
        ],
    }
    made = emission([700_000_000, 300_000_000], **providers)
    store(engine, checkpoint("c1", entries_jsonb=[made]))
    assert client.rows("/reports/checkpoints/c1/payload") == {
        "checkpoint_id": "c1",
        **PERIOD,
        "entries": [made],
        "meta": {"ranking": [{"model_id": "m0", "rank": 1}, {"model_id": "m1", "rank": 2}]},
    }
    assert client.rows("/reports/checkpoints/c1/emission") == made
    assert client.rows("/reports/checkpoints/c1/emission/cli-format") == {
        "crunch": "crunch-address",
        "crunchEmission": {"m0": 70.0, "m1": 30.0},
        "computeProvider": {"cloud": 100.0},
        "dataProvider": {"venue": 33.3333333, "other": 66.6666667},
    }
    timestamp = int(NOW.timestamp())
    shared = [
        {"prizeId": "c1-m0", "timestamp": timestamp, "model": "m0", "prize": 701},
        {"prizeId": "c1-m1", "timestamp": timestamp, "model": "m1", "prize": 300},
    ]
    assert client.rows("/reports/checkpoints/c1/prizes", total_prize=1001) == shared
    assert client.rows("/reports/checkpoints/latest/prizes", total_prize=1001) == {
        "checkpoint_id": "c1",
        **PERIOD,
        "total_prize": 1001,
        "prizes": shared,
    }


@given(
    weights=st.lists(st.integers(min_value=0, max_value=1000), min_size=1, max_size=20).filter(any),
    total=st.integers(min_value=0, max_value=2**63 - 1),
)
def test_prizes_sum_to_the_pool_and_follow_the_shares(weights: list[int], total: int) -> None:
    shares = [weight * 1_000_000_000 // sum(weights) for weight in weights]
    shares[0] += 1_000_000_000 - sum(shares)
    made = checkpoint("c1", shares=shares)
    row = {"id": "c1", "entries": made.entries_jsonb, "meta": made.meta_jsonb, "period_end": NOW}
    paid = {prize["model"]: prize["prize"] for prize in prizes(row, total)}
    assert sum(paid.values()) == total
    assert set(paid) == {f"m{i}" for i, share in enumerate(shares) if share}
    for i, share in enumerate(shares):
        assert abs(paid.get(f"m{i}", 0) * 1_000_000_000 - share * total) < 1_000_000_000
    assert round(sum(cli_emission(row)["crunchEmission"].values()), 6) == 100


def test_ten_thousand_models_sum_to_the_pool_and_to_a_hundred_percent() -> None:
    made = checkpoint("c1", shares=allocate_exactly(list(range(10_000, 0, -1))))
    row = {"id": "c1", "entries": made.entries_jsonb, "meta": made.meta_jsonb, "period_end": NOW}
    assert round(math.fsum(cli_emission(row)["crunchEmission"].values()), 6) == 100
    for total in (0, 1, 9_999, 10**6 + 1, 10**18 + 7):
        assert sum(prize["prize"] for prize in prizes(row, total)) == total


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"entries_jsonb": []}, "holds no emission"),
    ({"entries_jsonb": None}, "holds no emission"),
    ({"entries_jsonb": {"crunch": "crunch-address"}}, "holds no emission"),
    ({"entries_jsonb": [{"model_id": "m1", "score": 3}]}, "is no emission"),
    ({"meta_jsonb": ["odd"]}, "names no model for cruncher_index 0"),
    ({"meta_jsonb": None}, "names no model for cruncher_index 0"),
    ({"meta_jsonb": {"ranking": [{"model_id": "m0"}]}}, "names no model for cruncher_index 1"),
]


@pytest.mark.parametrize(("values", "reason"), UNUSABLE)
def test_a_checkpoint_that_cannot_be_paid_from_says_why(
    client: Client, engine: Engine, values: dict[str, Any], reason: str
) -> None:
    store(engine, checkpoint("c1", **values))
    for path in ("emission/cli-format", "prizes?total_prize=5"):
        answer = client.request("GET", f"/reports/checkpoints/c1/{path}")
        assert answer.status_code == 409
        assert reason in answer.json()["detail"]
    assert client.get("/reports/checkpoints/c1/payload").status_code == 200


def test_prizes_are_in_rank_order_and_one_a_model(client: Client, engine: Engine) -> None:
    """An emission of an operator's code, or of 0.1.84, may list its shares in any order, and some index twice."""
    shares = [(1, 300_000_000), (0, 600_000_000), (1, 100_000_000)]
    rewards = [{"cruncher_index": index, "reward_pct": share} for index, share in shares]
    store(engine, checkpoint("c1", entries_jsonb=[emission([], cruncher_rewards=rewards)]))
    paid = client.rows("/reports/checkpoints/c1/prizes", total_prize=11)
    assert [(prize["prizeId"], prize["prize"]) for prize in paid] == [("c1-m0", 7), ("c1-m1", 4)]
    assert list(client.rows("/reports/checkpoints/c1/emission/cli-format")["crunchEmission"]) == ["m0", "m1"]
    assert [row["reward_pct"] for row in client.rows("/reports/checkpoints/rewards")] == [60.0, 40.0]


def test_what_an_emission_retains_is_stated_where_it_is(client: Client, engine: Engine) -> None:
    made = emission([700_000_000, 300_000_000], retained_pct=250_000_000)
    store(engine, checkpoint("c1", entries_jsonb=[made]))
    assert client.rows("/reports/checkpoints/c1/emission") == made
    assert client.rows("/reports/emissions/latest")["emission"] == made
    assert client.rows("/reports/checkpoints/latest")["entries"] == [made]
    assert sum(prize["prize"] for prize in client.rows("/reports/checkpoints/c1/prizes", total_prize=7)) == 7


def test_an_empty_period_has_no_prizes(client: Client, engine: Engine) -> None:
    store(engine, checkpoint("c1", shares=[]))
    assert client.rows("/reports/checkpoints/c1/prizes", total_prize=100) == []
    assert client.rows("/reports/checkpoints/c1/emission/cli-format")["crunchEmission"] == {}


def test_a_checkpoint_goes_its_way_one_step_at_a_time(client: Client, engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    for early in ("CLAIMABLE", "PAID", "PENDING"):
        assert patch(client, "c1", early).status_code == 409
    confirmed = post(client, "c1", "tx-1")
    assert confirmed.status_code == 200
    assert (confirmed.json()["status"], confirmed.json()["tx_hash"]) == ("SUBMITTED", "tx-1")
    assert confirmed.json()["submitted_at"] == "2026-03-01T12:00:00+00:00"
    for wrong in ("SUBMITTED", "PAID", "PENDING"):
        assert patch(client, "c1", wrong).status_code == 409
    assert patch(client, "c1", "CLAIMABLE").json()["status"] == "CLAIMABLE"
    refused = patch(client, "c1", "SUBMITTED")
    assert refused.status_code == 409
    assert refused.json()["detail"] == (
        "checkpoint c1 is CLAIMABLE and cannot become SUBMITTED; from CLAIMABLE it may become PAID"
    )
    assert patch(client, "c1", "PAID").json()["status"] == "PAID"
    assert patch(client, "c1", "CLAIMABLE").status_code == 409
    assert client.rows("/reports/checkpoints/latest")["tx_hash"] == "tx-1"


def test_the_first_step_may_be_taken_without_a_transaction(client: Client, engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    moved = patch(client, "c1", "SUBMITTED").json()
    assert (moved["status"], moved["tx_hash"], moved["submitted_at"]) == (
        "SUBMITTED",
        None,
        "2026-03-01T12:00:00+00:00",
    )


def test_confirming_again_is_fine_with_the_same_transaction_only(client: Client, engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    assert post(client, "c1", "tx-1").status_code == 200
    assert post(client, "c1", " tx-1 ").status_code == 200
    assert post(client, "c1", "tx-2").status_code == 409
    assert patch(client, "c1", "CLAIMABLE").status_code == 200
    again = post(client, "c1", "tx-1")
    assert (again.status_code, again.json()["status"]) == (200, "CLAIMABLE")
    assert client.rows("/reports/checkpoints/latest")["tx_hash"] == "tx-1"


def test_moves_of_an_unknown_checkpoint_are_404_and_of_latest_too(client: Client, engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    for checkpoint_id in ("nobody", "latest"):
        assert post(client, checkpoint_id, "tx-1").status_code == 404
        assert patch(client, checkpoint_id, "SUBMITTED").status_code == 404


def test_bad_bodies_are_422_and_change_nothing(client: Client, engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    for tx_hash in ("", " ", "a b", "\x00", "é", "x" * 201, None, 5, ["t"]):
        assert post(client, "c1", tx_hash).status_code == 422, tx_hash
    for status in ("DONE", "submitted", None, 1):
        assert patch(client, "c1", status).status_code == 422, status
    for content in (b"", b"{", b"[]", b"tx_hash=t", b'{"tx_hash": "\\ud800"}', b"\xff"):
        headers = {"content-type": "application/json"}
        answer = client.request("POST", "/reports/checkpoints/c1/confirm", content=content, headers=headers)
        assert answer.status_code in (400, 422), content
        assert "detail" in answer.json()
    assert client.rows("/reports/checkpoints/latest")["status"] == "PENDING"


MOVES = "SELECT checkpoint_id, moved_by, from_status, to_status, tx_hash, request_id FROM checkpoint_moves ORDER BY id"


def moves(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(MOVES)]


def test_every_move_leaves_a_row_and_what_was_refused_or_repeated_leaves_none(
    client: Client, engine: Engine, client_of: ClientMaker
) -> None:
    store(engine, checkpoint("c1"))
    before = datetime.now(UTC)
    confirmed = post(client, "c1", "tx-1")
    post(client, "c1", "tx-1")
    post(client, "c1", "tx-2")
    patch(client, "c1", "PAID")
    keyed = client_of(API_KEY=KEY)
    body = {"json": {"status": "CLAIMABLE"}}
    for headers in ({"X-Request-ID": "mine"}, {"X-API-Key": KEY, "X-Request-ID": "mine"}):
        answer = keyed.request("PATCH", "/reports/checkpoints/c1/status", headers=headers, **body)
    assert answer.headers["X-Request-ID"] == "mine"
    odd = client.request(
        "PATCH", "/reports/checkpoints/c1/status", json={"status": "PAID"}, headers={"X-Request-ID": "x" * 129}
    )
    nobody, holder = "report API without a key, from 127.0.0.1", "report API with the key, from 127.0.0.1"
    assert moves(engine) == [
        ("c1", nobody, "PENDING", "SUBMITTED", "tx-1", confirmed.headers["X-Request-ID"]),
        ("c1", holder, "SUBMITTED", "CLAIMABLE", "tx-1", "mine"),
        ("c1", nobody, "CLAIMABLE", "PAID", "tx-1", odd.headers["X-Request-ID"]),
    ]
    assert len(odd.headers["X-Request-ID"]) < 129
    with engine.connect() as connection:
        at = list(connection.exec_driver_sql("SELECT moved_at FROM checkpoint_moves ORDER BY id").scalars())
    assert before - timedelta(minutes=1) < at[0] <= at[1] <= at[2] < datetime.now(UTC) + timedelta(minutes=1)


def test_a_move_by_hand_or_by_an_operators_code_leaves_a_row_too(engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    with Session(engine) as session:
        repository = DBCheckpointRepository(session)
        record = repository.find()[0]
        record.status = CheckpointStatus.SUBMITTED
        repository.save(record)
        repository.save(record)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE checkpoints SET status = 'PENDING', tx_hash = 'undone'")
    who = "database user "
    assert [(by[: len(who)], *rest) for _, by, *rest in moves(engine)] == [
        (who, "PENDING", "SUBMITTED", None, None),
        (who, "SUBMITTED", "PENDING", "undone", None),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE checkpoint_moves SET moved_by = 'somebody else'",
        "UPDATE checkpoint_moves SET moved_by = 'somebody else' WHERE false",
        "DELETE FROM checkpoint_moves",
        "TRUNCATE checkpoint_moves",
        "TRUNCATE checkpoints CASCADE",
        "DELETE FROM checkpoints",
    ],
)
def test_the_rows_of_moves_can_only_be_added_to(client: Client, engine: Engine, statement: str) -> None:
    store(engine, checkpoint("c1"))
    post(client, "c1", "tx-1")
    before = moves(engine)
    with pytest.raises(DBAPIError, match="checkpoint_moves"), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert moves(engine) == before


def at_once(engine: Engine, requests: list[tuple[str, str, str]]) -> list[int]:
    """Send (method, path below c1, body) at once; all wait at the row, held by a transaction of the test."""
    answers: list[int] = []

    def send(method: str, path: str, body: str) -> None:
        headers = {"Content-Type": "application/json"}
        answers.append(server.request(method, f"/reports/checkpoints/c1/{path}", headers, body.encode())[0])

    with running(report_app(engine)) as server:
        threads = [threading.Thread(target=send, args=request) for request in requests]
        with engine.connect() as held:
            held.exec_driver_sql("SELECT id FROM checkpoints WHERE id = 'c1' FOR UPDATE")
            for thread in threads:
                thread.start()
            until(lambda: waiting_for_locks(engine) == len(requests))
            held.rollback()
        for thread in threads:
            thread.join(timeout=PATIENCE_SECONDS)
    return sorted(answers)


def test_of_two_confirmations_at_once_one_wins(engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    assert at_once(engine, [("POST", "confirm", f'{{"tx_hash": "tx-{i}"}}') for i in range(2)]) == [200, 409]
    [(_, _, source, target, tx_hash, _)] = moves(engine)
    assert (source, target) == ("PENDING", "SUBMITTED")
    with engine.connect() as connection:
        stored = connection.exec_driver_sql("SELECT status, tx_hash FROM checkpoints").one()
    assert tuple(stored) == ("SUBMITTED", tx_hash)
    assert tx_hash in ("tx-0", "tx-1")


@pytest.mark.parametrize(
    ("status", "target"), [("PENDING", "SUBMITTED"), ("SUBMITTED", "CLAIMABLE"), ("CLAIMABLE", "PAID")]
)
def test_of_two_steps_at_once_one_wins(engine: Engine, status: str, target: str) -> None:
    store(engine, checkpoint("c1", status=status))
    assert at_once(engine, [("PATCH", "status", f'{{"status": "{target}"}}')] * 2) == [200, 409]
    assert [move[2:4] for move in moves(engine)] == [(status, target)]


def test_the_same_confirmation_twice_at_once_is_one_move_and_no_error(engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    assert at_once(engine, [("POST", "confirm", '{"tx_hash": "tx"}')] * 2) == [200, 200]
    assert len(moves(engine)) == 1


def test_of_a_confirmation_and_a_step_at_once_one_wins(engine: Engine) -> None:
    store(engine, checkpoint("c1"))
    both = [("POST", "confirm", '{"tx_hash": "tx"}'), ("PATCH", "status", '{"status": "SUBMITTED"}')]
    assert at_once(engine, both) == [200, 409]
    assert len(moves(engine)) == 1
