"""The Pyth source: prices of Pyth's feeds, live from Hermes' stream and past from Benchmarks and Hermes.

Pyth gives updates, about one a second that count (`history`); both kinds are sampled from them, alike from the stream
and from the past:

- `tick`: the last update of each interval of the granularity that has one, at its publish time (`price`).
- `candle`: open, high, low and close of the updates in an interval, `ts_event` its open time; an interval without an
  update has no candle. Pyth has no volume: it is 0.

The confidence interval of the (last) price is in the metadata as `conf`. A record is handed over once its interval is
over at the venue. The venue allows few requests, so a long history of candles takes long: an hour of them half a
minute. How long is logged before it begins.

Options: `FEED_OPT_feed_id_<SUBJECT>`, the feed of a subject other than BTC, ETH and SOL; `FEED_OPT_poll_seconds`, how
often the venue is asked where the stream cannot be had (FEED_POLL_SECONDS where it is not set). PYTH_HERMES_URL,
PYTH_BENCHMARKS_URL, PYTH_TIMEOUT_SECONDS and PYTH_API_KEY say where Pyth is and how it is asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

from coordinator_node.config.settings import load_settings
from coordinator_node.entities.granularity import GRANULARITY_SECONDS
from coordinator_node.feeds.contracts import FeedDataKind, SubjectDescriptor
from coordinator_node.feeds.options import read_options, seconds_option
from coordinator_node.feeds.pyth.client import BENCHMARKS_URL, HERMES_URL, Access, open_client, polite_bucket
from coordinator_node.feeds.pyth.feed_ids import FeedIds
from coordinator_node.feeds.pyth.session import SOURCE, PythSession, Wanted
from coordinator_node.feeds.venue.session import VenueSession
from coordinator_node.feeds.venue.source import VenueFeed
from coordinator_node.feeds.venue.token_bucket import TokenBucket

ID_OPTION = "feed_id_"


class PythFeed(VenueFeed):
    """Pyth; see the module. Nothing is asked before one of the verbs is used."""

    source = SOURCE
    kinds = (FeedDataKind.TICK, FeedDataKind.CANDLE)

    def __init__(
        self, ids: FeedIds, poll_seconds: float, access: Access | None = None, bucket: TokenBucket | None = None
    ) -> None:
        super().__init__(poll_seconds)
        self._ids = ids
        self._access = access or Access()
        self._bucket = bucket or polite_bucket()

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Self:
        """Made from the FEED_OPT_ options and the PYTH_ variables.

        Raises:
            PermanentFeedError: an option that is unknown or wrong.
            ConfigurationError: a variable of the environment that is wrong.
        """
        given = read_options(cls.source, options, ["poll_seconds"], [ID_OPTION])
        settings = load_settings()
        polls = given.get("poll_seconds")
        return cls(
            FeedIds({name.removeprefix(ID_OPTION): text for name, text in given.items() if name.startswith(ID_OPTION)}),
            settings.feed_poll_seconds if polls is None else seconds_option("poll_seconds", polls),
            Access(
                hermes_url=(settings.pyth_hermes_url or HERMES_URL).rstrip("/"),
                benchmarks_url=(settings.pyth_benchmarks_url or BENCHMARKS_URL).rstrip("/"),
                timeout_seconds=settings.pyth_timeout_seconds,
                api_key=settings.pyth_api_key.get_secret_value().strip(),
            ),
        )

    async def list_subjects(self) -> Sequence[SubjectDescriptor]:
        """The subjects whose feed id is known; Pyth has many more, which FEED_OPT_feed_id_<SUBJECT> brings here."""
        return [
            SubjectDescriptor(
                symbol=subject,
                display_name=None,
                kinds=self.kinds,
                granularities=tuple(GRANULARITY_SECONDS),
                source=self.source,
                metadata={"feed_id": self._ids.id_of(subject)},
            )
            for subject in self._ids.subjects()
        ]

    def check_subjects(self, subjects: Sequence[str]) -> None:
        """Each must have a feed id, and one of its own."""
        self._ids.by_id(tuple(dict.fromkeys(subjects)))

    @asynccontextmanager
    async def session(self, kind: FeedDataKind, granularity: str) -> AsyncIterator[VenueSession]:
        """A client of Hermes and Benchmarks."""
        with open_client(self._access, self._bucket) as client:
            yield PythSession(client, Wanted(kind, granularity), self._ids, self._poll_seconds)
