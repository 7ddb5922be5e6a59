"""Which paths are open, which need a key: the decision alone, without any HTTP."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from enum import IntEnum
from urllib.parse import unquote

from coordinator_node.config.settings import DEFAULT_ADMIN_PREFIXES, DEFAULT_PUBLIC_PREFIXES, Settings

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

# The tiers of so many paths, of so many characters each, are remembered; then all are forgotten.
_MOST_KNOWN = 1000
_LONGEST_KNOWN = 200

# A path may reach us encoded more than once; nobody means more than this.
_DECODINGS = 3


class Tier(IntEnum):
    """Who may come in where API_KEY is set, from everybody to key holders only.

    READ needs the key only with API_READ_AUTH.
    """

    PUBLIC = 0
    READ = 1
    ADMIN = 2


class Prefixes:
    """The tier of each path, by prefixes.

    A prefix matches whole segments; one that ends in a slash matches only what is below it. The longest matching prefix
    decides, of equally long ones the stricter.
    """

    def __init__(self, public: Iterable[str], admin: Iterable[str]) -> None:
        self._prefixes = [
            (tuple(_segments(prefix)), len(prefix) > 1 and prefix.endswith("/"), tier)
            for tier, prefixes in ((Tier.PUBLIC, public), (Tier.ADMIN, admin))
            for prefix in prefixes
        ]

    def tier(self, segments: tuple[str, ...]) -> Tier | None:
        """The tier of a path's segments; None where no prefix matches."""
        matching = [
            (len(prefix), tier)
            for prefix, only_below, tier in self._prefixes
            if segments[: len(prefix)] == prefix and (len(segments) > len(prefix) or not only_below)
        ]
        return max(matching)[1] if matching else None


class AccessRules:
    """The tier of each path, by the prefixes of the settings, and of each route, by those and what it declares."""

    def __init__(self, settings: Settings) -> None:
        self._read_auth = settings.api_read_auth
        self._prefixes = Prefixes(settings.api_public_prefixes, settings.api_admin_prefixes)
        self._known: dict[str, Tier] = {}
        self._built_in = Prefixes(DEFAULT_PUBLIC_PREFIXES, DEFAULT_ADMIN_PREFIXES)

    def needs_key(self, method: str, tier: Tier) -> bool:
        """Whether a request needs the key; one that may write always does."""
        return method not in READING_METHODS or tier is Tier.ADMIN or (tier is Tier.READ and self._read_auth)

    def tier_of_path(self, path: str) -> Tier:
        """The tier of a path, which is as closed as the most closed of its spellings.

        Its spellings are those with slashes collapsed, dots resolved, percent signs decoded.
        """
        tier = self._known.get(path)
        if tier is None:
            found = (self._prefixes.tier(segments) for segments in _spellings(path))
            tier = max(Tier.READ if each is None else each for each in found)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            if len(path) <= _LONGEST_KNOWN:
                self._known[path] = tier
        return tier

    def tier_of_route(self, declared: Tier, path: str) -> Tier:
        """The tier of a route: what the prefixes of the settings say of its path, else what it declares.

        A declaration that only repeats a built-in prefix goes with it when the settings replace the built-in ones.
        """
        segments = tuple(_segments(path))
        adjusted = self._prefixes.tier(segments)
        if adjusted is not None:
            return adjusted
        return declared if self._built_in.tier(segments) is None else Tier.READ


def _spellings(path: str) -> Iterator[tuple[str, ...]]:
    for _ in range(_DECODINGS):
        slashed = path.replace("\\", "/")
        yield tuple(_segments(slashed))
        yield tuple(_segments(posixpath.normpath(f"/{slashed}")))
        path = unquote(path)


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]
