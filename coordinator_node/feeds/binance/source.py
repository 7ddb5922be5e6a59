"""The Binance source: spot candles, ticks and depth, and the funding of USD-M perpetuals.

Every granularity is one that the venue has, by the same name. What a record is, `candles`, `ticks`, `depth` and
`funding` say. A record is handed over once its interval is over at the venue; what is still running never is.

Options: `FEED_OPT_quote`, the asset that prices are in (USDT); `FEED_OPT_symbol_<SUBJECT>`, a subject's symbol where
it is not the subject followed by the quote; `FEED_OPT_poll_seconds`, how often the venue is asked where no stream can
be had (FEED_POLL_SECONDS where it is not set); `FEED_OPT_api_url`, `FEED_OPT_stream_url`, `FEED_OPT_futures_url` and
`FEED_OPT_futures_stream_url`, where the venue is (its own addresses; api_url ends in /api, futures_url in /fapi).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

from coordinator_node.config.settings import load_settings
from coordinator_node.entities.granularity import GRANULARITY_SECONDS
from coordinator_node.feeds.binance.candles import Candles
from coordinator_node.feeds.binance.client import Addresses, Allowances, open_client
from coordinator_node.feeds.binance.depth import Depth
from coordinator_node.feeds.binance.funding import Funding
from coordinator_node.feeds.binance.kind import SOURCE, BinanceKind
from coordinator_node.feeds.binance.session import BinanceSession
from coordinator_node.feeds.binance.symbols import Symbols
from coordinator_node.feeds.binance.ticks import Ticks
from coordinator_node.feeds.contracts import FeedDataKind, SubjectDescriptor
from coordinator_node.feeds.errors import RetryableFeedError
from coordinator_node.feeds.options import read_options, seconds_option
from coordinator_node.feeds.venue.fields import UnreadableError, entry
from coordinator_node.feeds.venue.session import VenueSession
from coordinator_node.feeds.venue.source import VenueFeed

KINDS: dict[FeedDataKind, type[BinanceKind]] = {
    FeedDataKind.TICK: Ticks,
    FeedDataKind.CANDLE: Candles,
    FeedDataKind.DEPTH: Depth,
    FeedDataKind.FUNDING: Funding,
}
SYMBOL_OPTION = "symbol_"
OPTIONS = ("quote", "poll_seconds", "api_url", "stream_url", "futures_url", "futures_stream_url")
DEFAULT_QUOTE = "USDT"


class BinanceFeed(VenueFeed):
    """Binance; see the module. Nothing is asked before one of the three verbs is used."""

    source = SOURCE
    kinds = tuple(KINDS)

    def __init__(self, symbols: Symbols, poll_seconds: float, addresses: Addresses | None = None) -> None:
        super().__init__(poll_seconds)
        self._symbols = symbols
        self._addresses = addresses or Addresses()
        self._allowances = Allowances()

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Self:
        """Made from the FEED_OPT_ options; raises PermanentFeedError for one that is unknown or wrong."""
        given = read_options(cls.source, options, OPTIONS, [SYMBOL_OPTION])
        overrides = {
            name.removeprefix(SYMBOL_OPTION): text for name, text in given.items() if name.startswith(SYMBOL_OPTION)
        }
        polls = given.get("poll_seconds")
        return cls(
            Symbols(given.get("quote", DEFAULT_QUOTE), overrides),
            load_settings().feed_poll_seconds if polls is None else seconds_option("poll_seconds", polls),
            Addresses(
                api=given.get("api_url"),
                stream=given.get("stream_url"),
                futures=given.get("futures_url"),
                futures_stream=given.get("futures_stream_url"),
            ),
        )

    async def list_subjects(self) -> Sequence[SubjectDescriptor]:
        """The coins that are traded in the quote asset now; any other pair may be named as well.

        Raises:
            RetryableFeedError, PermanentFeedError: as for a fetch.
        """
        async with open_client(self._addresses, self._allowances, futures=False) as client:
            answer = await client.ask("its list of symbols", lambda api: api.get_exchange_info())
        try:
            rows = entry(answer, "symbols")
            return [self._descriptor(row) for row in rows if self._is_traded(row)]
        except (UnreadableError, TypeError) as error:
            raise RetryableFeedError(f"Binance's list of symbols cannot be read: {error}") from error

    def check_subjects(self, subjects: Sequence[str]) -> None:
        """Any subject may be a symbol; no two may be the same."""
        self._symbols.by_subject(tuple(dict.fromkeys(subjects)))

    @asynccontextmanager
    async def session(self, kind: FeedDataKind, granularity: str) -> AsyncIterator[VenueSession]:
        """A client of the market that has the kind."""
        made = KINDS[kind](granularity, self._poll_seconds)
        async with open_client(self._addresses, self._allowances, futures=made.futures) as client:
            yield BinanceSession(client, made, self._symbols)

    def _is_traded(self, row: object) -> bool:
        symbol: object = entry(row, "symbol")
        return entry(row, "status") == "TRADING" and self._symbols.symbol_of(str(entry(row, "baseAsset"))) == symbol

    def _descriptor(self, row: object) -> SubjectDescriptor:
        base, quote = entry(row, "baseAsset"), entry(row, "quoteAsset")
        return SubjectDescriptor(
            symbol=base,
            display_name=f"{base}/{quote}",
            kinds=self.kinds,
            granularities=tuple(GRANULARITY_SECONDS),
            source=self.source,
            metadata={"symbol": entry(row, "symbol")},
        )
