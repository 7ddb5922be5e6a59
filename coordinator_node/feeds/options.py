"""The FEED_OPT_ settings of a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coordinator_node.feeds.errors import PermanentFeedError

OPTION_PREFIX = "FEED_OPT_"


def options_from_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The provider options among the environment's variables: what follows FEED_OPT_, spelt as it is there."""
    return {name.removeprefix(OPTION_PREFIX): text for name, text in environ.items() if name.startswith(OPTION_PREFIX)}


def read_options(provider: str, options: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """The options of `provider` by their name in lower case; blank ones are left out, as if they were not set.

    Raises:
        PermanentFeedError: an option that the provider does not have, or one given twice in different spelling.
    """
    names = sorted(known)
    read: dict[str, str] = {}
    for name, text in options.items():
        key = name.lower()
        if key not in names:
            listing = ", ".join(OPTION_PREFIX + each for each in names)
            raise PermanentFeedError(f"FEED_SOURCE={provider} has no option {OPTION_PREFIX}{name}; it has {listing}")
        if not str(text).strip():
            continue
        if key in read:
            raise PermanentFeedError(f"{OPTION_PREFIX}{key} is set twice, in different spelling: keep one")
        read[key] = str(text).strip()
    return read
