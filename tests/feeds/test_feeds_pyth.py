"""What only Pyth does: its ids, its key, exact prices, its two histories, its limits; the shared suite has the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_venue import NOON_MS, LocalVenue
from venue_cases import PATIENT, PYTH_IDS, Heard, pyth_feed
from venue_market import expected_updates, utc

from coordinator_node.feeds import FeedDataRecord, FeedFetchRequest, FeedSubscription, create_default_registry
from coordinator_node.feeds.errors import PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.pyth import PythFeed, client
from coordinator_node.feeds.pyth.client import Access, polite_bucket
from coordinator_node.feeds.pyth.errors import feed_error
from coordinator_node.feeds.pyth.feed_ids import FeedIds, normal_id
from coordinator_node.feeds.pyth.prices import update_of, updates_of
from coordinator_node.feeds.pyth.stream import events_of
from coordinator_node.feeds.venue.fields import UnreadableError
from coordinator_node.feeds.venue.token_bucket import TokenBucket

BTC = PYTH_IDS["BTC"]
NOON = NOON_MS // 1000


@pytest.fixture
def venue() -> Iterator[LocalVenue]:
    with LocalVenue() as made:
        yield made


def fetch(venue: LocalVenue, kind: str, granularity: str, **bounds: object) -> list[FeedDataRecord]:
    return list(asyncio.run(pyth_feed(venue).fetch(FeedFetchRequest(("BTC",), kind, granularity, **bounds))))


@pytest.mark.parametrize("text", [BTC, "0x" + BTC, "0X" + BTC.upper(), f"  {BTC.upper()} "])
def test_an_id_is_the_same_in_every_spelling(text: str) -> None:
    assert normal_id(text) == BTC
    assert FeedIds({"xyz": text}).id_of("XYZ") == BTC


@pytest.mark.parametrize("text", ["", "0x", BTC[1:], BTC + "0", BTC[:-1] + "g", "BTC"])
def test_what_is_no_id_is_refused(text: str) -> None:
    assert normal_id(text) is None
    with pytest.raises(PermanentFeedError, match=r"FEED_OPT_feed_id_doge is .*64 hexadecimal digits"):
        FeedIds({"doge": text})


def test_the_built_in_ids_are_the_right_ones() -> None:
    ids = FeedIds({})
    assert [ids.id_of(each)[:8] + ids.id_of(each)[-4:] for each in ("BTC", "eth", "Sol")] == [
        "e62df6c85b43",
        "ff61491a0ace",
        "ef0d8b6fb56d",
    ]
    with pytest.raises(
        PermanentFeedError, match="does not know the feed id of DOGE: set FEED_OPT_feed_id_DOGE"
    ) as caught:
        ids.id_of("DOGE")
    assert caught.value.subject == "DOGE"
    with pytest.raises(PermanentFeedError, match="BTC and XBT, which are the same Pyth feed"):
        FeedIds({"xbt": BTC}).by_id(("BTC", "XBT"))


def test_settings_and_options_reach_the_venue(venue: LocalVenue, monkeypatch: pytest.MonkeyPatch) -> None:
    venue.api_key = "s3cret"
    for name, text in venue.pyth_environ().items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("FEED_POLL_SECONDS", "9")
    feed = create_default_registry().create("pyth", {"feed_id_Ether": "0x" + PYTH_IDS["ETH"].upper()})
    request = FeedFetchRequest(("ETHER",), "tick", "1s", start_ts=NOON - 100, end_ts=NOON - 70)
    expected = expected_updates(venue.pyth, PYTH_IDS["ETH"], "tick", "1s", NOON_MS - 100_000, NOON_MS - 70_000)
    assert [(each.ts_event, each.values) for each in asyncio.run(feed.fetch(request))] == [
        (each.ts_event, each.values) for each in expected
    ]
    assert isinstance(feed, PythFeed)
    assert feed._poll_seconds == 9
    assert {"ETHER", "BTC", "SOL"} <= {each.symbol for each in asyncio.run(feed.list_subjects())}
    with pytest.raises(PermanentFeedError, match=r"no option FEED_OPT_key; it has .*FEED_OPT_feed_id_<SUBJECT>"):
        PythFeed.from_options({"key": "x"})


def test_the_real_addresses_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTH_HERMES_URL", "PYTH_BENCHMARKS_URL", "PYTH_TIMEOUT_SECONDS", "PYTH_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert PythFeed.from_options({})._access == Access(
        "https://hermes.pyth.network", "https://benchmarks.pyth.network", 5.0, ""
    )


def test_without_a_key_it_is_said_that_there_must_be_one(venue: LocalVenue) -> None:
    venue.api_key = "s3cret"
    for key, message in [("", "has required a key since 2026-08-26: set PYTH_API_KEY"), ("wr0ng", "is not accepted")]:
        feed = PythFeed(FeedIds({}), PATIENT, Access(venue.url, venue.url, 2.0, key))
        for attempt in (
            feed.fetch(FeedFetchRequest(("BTC",), "tick", "1s")),
            feed.listen(FeedSubscription(("BTC",), "tick", "1s"), Heard()),
        ):
            with pytest.raises(PermanentFeedError, match=f"HTTP 401.*{message}") as caught:
                asyncio.run(attempt)
            assert "wr0ng" not in str(caught.value)


def test_a_key_is_not_replaced_by_a_netrc_entry(
    venue: LocalVenue, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    netrc = tmp_path / "netrc"  # type: ignore[operator]  # pytest's tmp_path is a Path
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    venue.api_key = "s3cret"
    assert fetch(venue, "tick", "1s", start_ts=NOON - 100, end_ts=NOON - 70) != []


@pytest.mark.parametrize(
    ("status", "said", "expected", "subject"),
    [
        (404, f"Price ids not found: 0x{BTC}", PermanentFeedError, "BTC"),
        (403, f"Not entitled: feed {BTC}", PermanentFeedError, "BTC"),
        (403, "Not entitled", PermanentFeedError, None),
        (401, "", PermanentFeedError, None),
        (400, "Failed to deserialize query string", PermanentFeedError, None),
        (408, "", RetryableFeedError, None),
        (429, "", RetryableFeedError, None),
        (502, "<html>", RetryableFeedError, None),
    ],
)
def test_refusals_are_told_apart(status: int, said: str, expected: type[Exception], subject: str | None) -> None:
    error = feed_error("the prices", status, {}, said, {BTC: "BTC", PYTH_IDS["ETH"]: "ETH"}, with_key=True)
    assert type(error) is expected
    assert getattr(error, "subject", None) == subject
    assert getattr(error, "retry_after", None) == (60.0 if status == 429 else None)


def test_an_address_that_is_none_names_the_variable() -> None:
    feed = PythFeed(FeedIds({}), PATIENT, Access("hermes", "benchmarks"))
    with pytest.raises(PermanentFeedError, match="correct PYTH_HERMES_URL"):
        asyncio.run(feed.fetch(FeedFetchRequest(("BTC",), "tick", "1s")))


@given(price=st.integers(-(2**63) + 1, 2**63 - 1), conf=st.integers(0, 2**62), expo=st.integers(-18, 6))
def test_a_price_is_exact(price: int, conf: int, expo: int) -> None:
    row = {
        "id": "0x" + BTC.upper(),
        "price": {"price": str(price), "conf": str(conf), "expo": expo, "publish_time": 1},
    }
    update = update_of(row)
    assert update.price * 10 ** max(0, -expo) == price * 10 ** max(0, expo)
    assert update.confidence == Decimal(conf) * Decimal(10) ** expo
    assert (update.feed_id, update.previous_time, update.is_first) == (BTC, None, True)


def test_a_row_that_is_no_update_is_refused() -> None:
    good = {"price": "1", "conf": "1", "expo": -8, "publish_time": 5}
    for body, message in [
        ({**good, "price": "1.5"}, "price is '1.5'"),
        ({**good, "expo": -31}, "expo is -31"),
        ({**good, "publish_time": -1}, "publish_time is -1"),
        ({**good, "publish_time": 10**12}, "publish_time is 1000000000000"),
        ({"price": "1"}, "has no 'expo'"),
        ([], "has no 'expo'"),
    ]:
        with pytest.raises(UnreadableError, match=message):
            update_of({"id": BTC, "price": body})
    with pytest.raises(UnreadableError, match="expected a feed id"):
        update_of({"id": "BTC", "price": good})
    with pytest.raises(UnreadableError, match="'parsed' is a dict"):
        updates_of({"parsed": {}}, "x")
    assert [each.publish_time for each in updates_of({"parsed": [{"id": BTC, "price": good}, {}]}, "x")] == [5]


def test_events_are_read_as_the_standard_says() -> None:
    lines = [
        b": hello",
        b"",
        b"data:one",
        b"",
        b"event: x",
        b"data: two",
        b"data:three",
        b"id: 3",
        b"",
        b"",
        b"data:cut",
    ]
    assert list(events_of(lines)) == ["one", "two\nthree"]


@pytest.mark.parametrize("granularity", ["1s", "1m", "5m", "15m"])
@pytest.mark.parametrize("kind", ["tick", "candle"])
def test_every_granularity_is_sampled_alike(venue: LocalVenue, kind: str, granularity: str) -> None:
    start, end = NOON_MS - 3_600_000, NOON_MS - 900_000
    expected = expected_updates(venue.pyth, BTC, kind, granularity, start, end)
    found = fetch(venue, kind, granularity, start_ts=utc(start), end_ts=utc(end), limit=20)
    assert found == expected[:20]
    assert len(found) >= 3


def test_a_coarse_tick_costs_about_one_request(venue: LocalVenue) -> None:
    assert len(fetch(venue, "tick", "1h", start_ts=NOON - 50 * 3600, end_ts=NOON - 3600)) == 49
    assert len(venue.asked) < 49 * 1.5


@pytest.mark.parametrize("kind", ["tick", "candle"])
@pytest.mark.parametrize("granularity", ["1m", "1h"])
def test_a_closed_market_is_passed_over_quickly(venue: LocalVenue, kind: str, granularity: str) -> None:
    opened, closed = NOON - 6 * 86_400 + 1234, NOON - 3 * 3600 - 77
    venue.pyth.closed.append((opened, closed))
    start = (opened // 3600 - 1) * 3600
    expected = [
        *expected_updates(venue.pyth, BTC, kind, granularity, start * 1000, (opened // 3600 + 1) * 3_600_000),
        *expected_updates(venue.pyth, BTC, kind, granularity, closed // 3600 * 3_600_000, NOON_MS - 3_600_000),
    ]
    found = fetch(venue, kind, granularity, start_ts=start, end_ts=NOON - 3600)
    assert found == expected
    assert len(venue.asked) < 300


@pytest.mark.parametrize("kind", ["tick", "candle"])
@pytest.mark.parametrize("behind", [0, 1, 30, 100])
def test_what_the_past_does_not_have_yet_is_completed(venue: LocalVenue, kind: str, behind: int) -> None:
    venue.benchmarks_behind = behind
    found = fetch(venue, kind, "1s", start_ts=NOON - 200)
    assert found == expected_updates(venue.pyth, BTC, kind, "1s", NOON_MS - 200_000, NOON_MS)[: len(found)]
    assert found[-1].ts_event >= utc(NOON_MS - 2000)


def test_a_market_that_stays_closed_gives_its_last_record_when_the_clock_says_so(venue: LocalVenue) -> None:
    venue.pyth.closed.append((NOON - 30, NOON + 10**6))
    whole = expected_updates(venue.pyth, BTC, "candle", "1m", NOON_MS - 600_000, NOON_MS)
    assert fetch(venue, "candle", "1m", start_ts=NOON - 600) == whole[:-1]
    assert fetch(venue, "tick", "1m", start_ts=NOON - 600)[-1].ts_event < utc(NOON_MS - 60_000)
    venue.now_ms += 60_000
    assert fetch(venue, "candle", "1m", start_ts=NOON - 600) == whole
    assert fetch(venue, "tick", "1m", start_ts=NOON - 600)[-1].ts_event == utc((NOON - 31) * 1000)


@settings(max_examples=25, deadline=None)
@given(
    closed=st.lists(st.tuples(st.integers(-4000, 0), st.integers(1, 1500)), max_size=4),
    start=st.integers(-4000, -300),
    size=st.sampled_from(["1m", "5m"]),
)
def test_a_coarse_tick_is_found_however_the_market_pauses(
    shared_venue: LocalVenue, closed: list[tuple[int, int]], start: int, size: str
) -> None:
    shared_venue.pyth.closed[:] = [(NOON + at, min(NOON + at + length, NOON - 1)) for at, length in closed]
    start = (NOON + start) // 300 * 300
    expected = expected_updates(shared_venue.pyth, BTC, "tick", size, start * 1000, NOON_MS - 300_000)
    assert fetch(shared_venue, "tick", size, start_ts=start, end_ts=NOON - 300) == expected


@pytest.fixture(scope="module")
def shared_venue() -> Iterator[LocalVenue]:
    with LocalVenue() as made:
        yield made


def test_the_limit_of_the_venue_is_kept(venue: LocalVenue, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that sleeping moves on: how many requests are made in any ten of its seconds."""
    now = 0.0
    made_at: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    class Counted(TokenBucket):
        def reserve(self) -> float:
            seconds = super().reserve()
            made_at.append(now + seconds)
            return seconds

    polite = polite_bucket()
    bucket = Counted(polite._burst, polite._per_second, lambda: now)
    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    start = NOON - 4800
    feed = pyth_feed(venue, bucket=bucket)
    request = FeedFetchRequest(("BTC",), "candle", "1m", start_ts=start, end_ts=NOON - 600)
    assert len(asyncio.run(feed.fetch(request))) == 70
    assert len(made_at) == len(venue.asked) > 60
    assert max(sum(at <= other < at + 10 for other in made_at) for at in made_at) <= 30


def test_a_long_history_says_how_long_it_takes(venue: LocalVenue, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(venue, "candle", "1m", start_ts=NOON - 3600, end_ts=NOON - 3000)
    assert "a long history" not in capsys.readouterr().out
    slow = TokenBucket(10**6, 1e6)
    slow.seconds_for = polite_bucket().seconds_for  # type: ignore[method-assign]  # what it would be at the real venue
    request = FeedFetchRequest(("BTC",), "candle", "1m", start_ts=NOON - 3600, end_ts=NOON)
    asyncio.run(pyth_feed(venue, bucket=slow).fetch(request))
    said = capsys.readouterr().out
    assert "a long history" in said
    assert "requests=60" in said
    assert "seconds=22" in said


def test_updates_that_are_not_the_first_of_their_second_do_not_count(venue: LocalVenue) -> None:
    async def run() -> None:
        sink = Heard()
        feed = pyth_feed(venue)
        handle = await feed.listen(FeedSubscription(("BTC",), "tick", "1s"), sink)
        plain = venue._happened

        def twice(name: str, since_ms: int) -> list[object]:
            later = [venue._updates("stream", [venue.pyth.update(name, venue.now_ms // 1000, first=False)])]
            return plain(name, since_ms) + (later if venue.pyth.has_update(venue.now_ms // 1000) else [])

        venue._happened = twice  # type: ignore[method-assign]  # a venue that does not heed benchmarks_only
        for _ in range(12):
            venue.advance(1)
        expected = expected_updates(venue.pyth, BTC, "tick", "1s", NOON_MS - 60_000, NOON_MS + 9000)
        await sink.holds("BTC", len(expected))
        await handle.stop()
        assert sink.of("BTC")[: len(expected)] == expected

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["depth", "funding"])
def test_it_has_neither_depth_nor_funding(venue: LocalVenue, kind: str) -> None:
    with pytest.raises(PermanentFeedError, match=f"has no {kind} records: set FEED_KIND=tick or FEED_KIND=candle"):
        fetch(venue, kind, "1s")
    assert venue.asked == []
