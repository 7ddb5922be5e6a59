"""Which paths are open, which need a key: the decision alone, without any HTTP."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from enum import IntEnum
from urllib.parse import unquote

from coordinator_node.config.settings import Settings

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

# A path may reach us encoded more than once; nobody means more than this.
_DECODINGS = 3


class Tier(IntEnum):
    """Who may come in where API_KEY is set, from everybody to key holders only.

    READ needs the key only with API_READ_AUTH.
    """

    PUBLIC = 0
    READ = 1
    ADMIN = 2


class AccessRules:
    """The tier of each path, by the prefixes of the settings.

    A prefix matches whole segments; one that ends in a slash matches only what is below it. The longest matching prefix
    decides, of equally long ones the stricter. A path is as closed as the most closed of its spellings: with slashes
    collapsed, dots resolved, percent signs decoded.
    """

    def __init__(self, settings: Settings) -> None:
        self._read_auth = settings.api_read_auth
        self._prefixes = [
            (tuple(_segments(prefix)), len(prefix) > 1 and prefix.endswith("/"), tier)
            for tier, prefixes in (
                (Tier.PUBLIC, settings.api_public_prefixes),
                (Tier.ADMIN, settings.api_admin_prefixes),
            )
            for prefix in prefixes
        ]

    def needs_key(self, method: str, path: str) -> bool:
        """Whether a request needs the key; one that may write always does."""
        if method not in READING_METHODS:
            return True
        tier = self.tier(path)
        return tier is Tier.ADMIN or (tier is Tier.READ and self._read_auth)

    def tier(self, path: str) -> Tier:
        """The strictest tier of a path's spellings."""
        return max(self._tier(segments) for segments in _spellings(path))

    def _tier(self, segments: tuple[str, ...]) -> Tier:
        matching = [
            (len(prefix), tier)
            for prefix, only_below, tier in self._prefixes
            if segments[: len(prefix)] == prefix and (len(segments) > len(prefix) or not only_below)
        ]
        return max(matching)[1] if matching else Tier.READ


def _spellings(path: str) -> Iterator[tuple[str, ...]]:
    for _ in range(_DECODINGS):
        slashed = path.replace("\\", "/")
        yield tuple(_segments(slashed))
        yield tuple(_segments(posixpath.normpath(f"/{slashed}")))
        path = unquote(path)


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]
