"""How often one client may ask."""

from __future__ import annotations

import functools

import pytest
from api_cases import KEY, ClientMaker, report_app, running
from fastapi import WebSocket
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from coordinator_node.api import app, rate_limit
from coordinator_node.api.rate_limit import TokenBuckets
from coordinator_node.config.settings import load_settings
from coordinator_node.entities.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given_rate", "rate"),
    [
        ("", None),
        ("off", None),
        ("600", (600, 60.0)),
        ("600/minute", (600, 60.0)),
        ("20/second", (20, 1.0)),
        ("9/hour", (9, 3600.0)),
    ],
)
def test_a_rate_is_a_number_of_requests_per_time(given_rate: str, rate: tuple[int, float] | None) -> None:
    assert load_settings({"API_RATE_LIMIT": given_rate}).request_rate == rate


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "5/day", "5/", "/minute", "1.5/second", "5 /minute"])
def test_a_wrong_rate_stops_the_worker_by_name(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="API_RATE_LIMIT: is neither off nor"):
        load_settings({"API_RATE_LIMIT": wrong})


def test_beyond_the_limit_it_says_when_to_try_again(client_of: ClientMaker) -> None:
    client = client_of(API_RATE_LIMIT="2/hour")
    assert [client.get("/info").status_code for _ in range(3)] == [200, 200, 429]
    answer = client.request("GET", "/info", headers={"Origin": "https://ui.example"})
    assert 1700 < int(answer.headers["retry-after"]) <= 1800
    assert answer.json()["detail"].startswith("too many requests: try again in 1")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
    assert client.get("/healthz").status_code == 200


def test_who_guesses_keys_is_limited_by_address_and_the_holder_is_not(client_of: ClientMaker) -> None:
    client = client_of(API_RATE_LIMIT="3/hour", API_KEY=KEY)
    guesses = [client.get("/reports/checkpoints/latest", api_key=f"guess{n}").status_code for n in range(4)]
    assert guesses == [401, 401, 401, 429]
    assert client.get("/reports/checkpoints/latest", api_key=KEY).status_code == 404


def test_who_watches_the_service_is_never_turned_away_and_nobody_else(client_of: ClientMaker) -> None:
    client = client_of(API_RATE_LIMIT="1/hour")
    assert client.get("/info").status_code == 200
    for path in ("/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code != 429, path
    for path in ("/healthzz", "/readyz/x", "/metrics/", "/reports/leaderboard"):
        assert client.get(path).status_code == 429, path


def test_the_holder_of_the_key_has_a_limit_too(client_of: ClientMaker) -> None:
    client = client_of(API_RATE_LIMIT="2/hour", API_KEY=KEY)
    assert [client.get("/info", api_key=KEY).status_code for _ in range(3)] == [200, 200, 429]
    assert client.get("/info").status_code == 200


def test_whoever_waits_as_long_as_told_is_let_in(client_of: ClientMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    buckets = functools.partial(TokenBuckets, clock=lambda: now[0])
    monkeypatch.setattr(app, "TokenBuckets", buckets)
    client = client_of(API_RATE_LIMIT="2/second")
    assert [client.get("/info").status_code for _ in range(3)] == [200, 200, 429]
    now[0] += 0.1
    answer = client.get("/info")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    now[0] += 1
    assert client.get("/info").status_code == 200


def test_a_websocket_counts_too(engine: Engine) -> None:
    report = report_app(engine, API_RATE_LIMIT="1/hour")

    @report.websocket("/custom/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    with running(report) as server:
        address = f"ws://127.0.0.1:{server.port}/custom/live"
        connect(address).close()
        with pytest.raises(InvalidStatus, match="403"):
            connect(address)


def test_the_address_behind_a_proxy_is_believed_from_trusted_ones_alone(engine: Engine) -> None:
    def statuses(**variables: str) -> list[int]:
        with running(report_app(engine, API_RATE_LIMIT="1/hour", **variables)) as server:
            return [server.request("GET", "/info", {"X-Forwarded-For": f"192.0.2.{n}"})[0] for n in range(3)]

    assert statuses() == [200, 429, 429]
    assert statuses(API_TRUSTED_PROXIES="198.51.100.1") == [200, 429, 429]
    assert statuses(API_TRUSTED_PROXIES="127.0.0.0/8") == [200, 200, 200]


@pytest.mark.parametrize("wrong", ["*", "proxy", "172.16.0.1/12", "10.0.0.0/33", "0.0.0.0/0", "::/0", "10.0.0.1,*"])
def test_a_proxy_that_is_no_address_stops_the_worker_by_name(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"API_TRUSTED_PROXIES: .*is (no address|everybody)"):
        load_settings({"API_TRUSTED_PROXIES": wrong})


def test_a_client_behind_a_proxy_cannot_pretend_to_be_another(engine: Engine) -> None:
    """What a client writes there itself stands before what the proxy adds; only that counts."""
    with running(report_app(engine, API_RATE_LIMIT="1/hour", API_TRUSTED_PROXIES="127.0.0.1")) as server:
        forwarded = [{"X-Forwarded-For": f"192.0.2.{n}, 198.51.100.7"} for n in range(3)]
        assert [server.request("GET", "/info", headers)[0] for headers in forwarded] == [200, 429, 429]


def test_one_machine_with_many_ipv6_addresses_is_one_client() -> None:
    def client(host: str) -> str:
        return rate_limit._client({rate_limit.FOUND: rate_limit.Keys.NONE, "client": (host, 1)})

    assert client("2001:db8::1") == client("2001:db8::2:3") != client("2001:db8:1::1")
    assert client("192.0.2.1") != client("192.0.2.2")


@given(st.integers(1, 20), st.floats(0.1, 100), st.lists(st.floats(0, 50), max_size=200))
def test_never_more_in_any_span_than_what_fits_in_it(count: int, seconds: float, pauses: list[float]) -> None:
    now = 0.0
    buckets = TokenBuckets(count, seconds, lambda: now)
    taken: list[float] = []
    for pause in pauses:
        now += pause
        wait = buckets.take("one")
        if wait == 0:
            taken.append(now)
        else:
            assert 0 < wait <= seconds / count * (1 + 1e-9)
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= count + (taken[last] - begin) * count / seconds + 1e-6


def test_what_is_remembered_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST_CLIENTS", 3)
    buckets = TokenBuckets(1, 1e9, lambda: 0.0)
    assert [buckets.take(name) == 0 for name in "abcabcd"] == [True] * 3 + [False] * 3 + [True]
    assert buckets.take("a") == 0
