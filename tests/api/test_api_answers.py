"""Answers that are made by hand: their encoding, and those that are sent without a search for their route."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import math
import threading

from api_cases import KEY, PATIENCE_SECONDS, Client, ClientMaker
from hypothesis import given
from hypothesis import strategies as st
from report_rows import seed_everything
from sqlalchemy import Engine, text
from starlette.requests import Request

from coordinator_node.api.answers import Encoded, SharedAnswers, encode, json_answer
from coordinator_node.api.compression import compress
from coordinator_node.db.series import ONCE

READY = ("/reports/leaderboard", "/reports/schema")
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
    )
)
def test_whatever_json_holds_is_encoded_as_it_is(value: object) -> None:
    assert json.loads(encode(value)) == value
    assert gzip.decompress(compress(encode(value))) == encode(value)


def test_what_json_cannot_hold_is_null_and_large_integers_are_kept() -> None:
    rows = [{"nan": math.nan, "infinite": -math.inf}, {"integer": 2**70, "nan": math.nan}]
    assert json.loads(encode(rows)) == [{"nan": None, "infinite": None}, {"integer": 2**70, "nan": None}]


def asking(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw})


def test_a_long_answer_is_compressed_and_tagged_alike_for_all() -> None:
    rows = [{"number": number} for number in range(500)]
    plain = json_answer(asking(), rows, tagged=True)
    packed = json_answer(asking(accept_encoding="br, gzip"), rows, {"X-Next-Cursor": "c"}, tagged=True)
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert json.loads(bytes(plain.body)) == rows
    assert packed.headers["x-next-cursor"] == "c"
    assert packed.headers["etag"] == plain.headers["etag"]
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    held = json_answer(asking(if_none_match=plain.headers["etag"]), rows, tagged=True)
    assert (held.status_code, held.body) == (304, b"")
    assert "etag" not in json_answer(asking(), rows).headers


def test_whoever_leaves_while_an_answer_is_looked_up_takes_it_from_nobody() -> None:
    entered, release = threading.Event(), threading.Event()
    looked: list[int] = []

    def make(last: Encoded | None) -> Encoded:
        looked.append(1)
        entered.set()
        release.wait(PATIENCE_SECONDS)
        return Encoded.of(1, ["told"])

    async def ask() -> Encoded:
        answers = SharedAnswers()
        first, second = (asyncio.create_task(answers.get("key", make)) for _ in range(2))
        await asyncio.to_thread(entered.wait, PATIENCE_SECONDS)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        release.set()
        return await second

    assert json.loads(asyncio.run(ask()).plain) == ["told"]
    assert looked == [1]


def test_an_answer_of_which_nothing_is_sent_again_still_says_what_it_varies_by(
    engine: Engine, client_of: ClientMaker
) -> None:
    seed_everything(engine)
    client = client_of()
    for path in (*READY, "/reports/checkpoints", "/reports/models/global", "/reports/checkpoints/latest"):
        whole = client.get(path)
        held = client.request("GET", path, headers={"If-None-Match": f'"other", {whole.headers["etag"]}'})
        lines = [("If-None-Match", '"other"'), ("If-None-Match", whole.headers["etag"])]
        for answer in (held, client.request("GET", path, headers=lines), client.request("HEAD", path, headers=lines)):
            assert (answer.status_code, answer.content) == (304, b""), path
            assert "Accept-Encoding" in answer.headers["vary"]
            assert answer.headers["cache-control"] == whole.headers["cache-control"] == "no-cache"
            assert "content-type" not in answer.headers


def test_the_ready_answers_are_those_of_their_routes(engine: Engine, client_of: ClientMaker) -> None:
    seed_everything(engine)
    client = client_of()
    for path in READY:
        ready, routed = client.get(path), client.get(path, include_ensembles="false")
        assert (ready.status_code, ready.content) == (routed.status_code, routed.content)
        assert dict(ready.headers) == dict(routed.headers)
        held = client.request("GET", path, headers={"If-None-Match": ready.headers["etag"]})
        assert (held.status_code, held.content) == (304, b"")
        assert client.request("POST", path).status_code == 405


def test_the_ready_answers_are_closed_like_their_routes(client_of: ClientMaker) -> None:
    client: Client = client_of(API_KEY=KEY, API_ADMIN_PREFIXES=",".join(READY))
    for path in READY:
        for address in (path, f"{path}?include_ensembles=false"):
            assert client.request("GET", address).status_code == 401
            assert client.request("GET", address, headers={"X-API-Key": KEY}).status_code == 200
        assert client.get(path, api_key=KEY).status_code == 200


def test_what_is_computed_once_may_be_computed_by_several_processes(engine: Engine) -> None:
    once = f"SELECT sum(n) FROM (SELECT CAST(meta_jsonb ->> 'n' AS int) AS n FROM snapshots {ONCE}) AS found"
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT set_config('max_parallel_workers_per_gather', '2', true),"
                " set_config('min_parallel_table_scan_size', '0', true),"
                " set_config('parallel_setup_cost', '0', true), set_config('parallel_tuple_cost', '0', true)"
            )
        )
        plan = "\n".join(connection.execute(text(f"EXPLAIN {once}")).scalars())
    assert "Gather" in plan
