"""Which symbol of Binance a subject is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator_node.feeds.errors import PermanentFeedError

DOLLAR_COINS = ("USDT", "USDC", "FDUSD", "TUSD", "BUSD")
OTHER_QUOTES = ("BTC", "ETH", "BNB", "EUR", "TRY", "BRL", "JPY")

SHORTEST_BASE = 3
"""Coins whose own names end like these other quotes (WBTC, BETH, AEUR) have fewer letters before the end."""


class Symbols:
    """BTC is BTCUSDT, or with another quote; what is a pair already (ETHBTC, BTC/USDT) is itself."""

    def __init__(self, quote: str, overrides: Mapping[str, str]) -> None:
        """`overrides` are symbols by subject in lower case."""
        self._quote = quote.upper()
        self._overrides = overrides

    def symbol_of(self, subject: str) -> str:
        """The venue's name of a subject, whether or not the venue has it."""
        override = self._overrides.get(subject.strip().lower())
        if override is not None:
            return override.upper()
        name = subject.strip().upper()
        letters = "".join(each for each in name if each not in "/-_ ")
        return letters if letters != name or self._is_pair(name) else name + self._quote

    def by_subject(self, subjects: Sequence[str]) -> dict[str, str]:
        """The symbol of each subject.

        Raises:
            PermanentFeedError: two subjects are the same symbol, so that one would be stored twice.
        """
        found: dict[str, str] = {}
        for subject in subjects:
            symbol = self.symbol_of(subject)
            same = next((each for each, taken in found.items() if taken == symbol), None)
            if same is not None:
                raise PermanentFeedError(
                    f"FEED_SUBJECTS names {same} and {subject}, which are both {symbol} at Binance: keep one",
                    subject=subject,
                )
            found[subject] = symbol
        return found

    def _is_pair(self, name: str) -> bool:
        dollar = any(name.endswith(quote) and name != quote for quote in (*DOLLAR_COINS, self._quote))
        other = any(name.endswith(quote) and len(name) - len(quote) >= SHORTEST_BASE for quote in OTHER_QUOTES)
        return dollar or other
