"""Which price feed of Pyth a subject is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from coordinator_node.feeds.errors import PermanentFeedError

FEED_IDS = {
    "btc": "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43",
    "eth": "ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace",
    "sol": "ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d",
}
"""Crypto.BTC/USD, Crypto.ETH/USD and Crypto.SOL/USD."""

_FEED_ID = re.compile("(0x)?([0-9a-f]{64})")


def normal_id(text: str) -> str | None:
    """A feed id as it is compared: 64 lower-case hexadecimal digits without 0x; None where the text is none."""
    found = _FEED_ID.fullmatch(text.strip().lower())
    return None if found is None else found.group(2)


class FeedIds:
    """The built-in ids, and those that the operator sets, by subject in any case."""

    def __init__(self, configured: Mapping[str, str]) -> None:
        """`configured` are ids by subject, with or without 0x, in any case.

        Raises:
            PermanentFeedError: one is no id.
        """
        self._ids = dict(FEED_IDS)
        for subject, text in configured.items():
            feed_id = normal_id(text)
            if feed_id is None:
                raise PermanentFeedError(
                    f"FEED_OPT_feed_id_{subject} is {text!r}: set it to the feed's id, 64 hexadecimal digits"
                )
            self._ids[subject.lower()] = feed_id

    def subjects(self) -> list[str]:
        """The subjects whose id is known, in upper case."""
        return [subject.upper() for subject in self._ids]

    def id_of(self, subject: str) -> str:
        """The feed id of a subject.

        Raises:
            PermanentFeedError: there is none.
        """
        feed_id = self._ids.get(subject.strip().lower())
        if feed_id is None:
            raise PermanentFeedError(
                f"FEED_SOURCE=pyth does not know the feed id of {subject}: set FEED_OPT_feed_id_{subject} to the 64 "
                f"hexadecimal digits that Pyth lists for it, or take it out of FEED_SUBJECTS",
                subject=subject,
            )
        return feed_id

    def by_id(self, subjects: Sequence[str]) -> dict[str, str]:
        """The subject of each feed id.

        Raises:
            PermanentFeedError: a subject has no id, or two have the same, so that one would be stored twice.
        """
        found: dict[str, str] = {}
        for subject in subjects:
            feed_id = self.id_of(subject)
            if feed_id in found:
                raise PermanentFeedError(
                    f"FEED_SUBJECTS names {found[feed_id]} and {subject}, which are the same Pyth feed: keep one",
                    subject=subject,
                )
            found[feed_id] = subject
        return found
