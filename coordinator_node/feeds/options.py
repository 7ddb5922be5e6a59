"""The FEED_OPT_ settings of a source."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from coordinator_node.feeds.errors import PermanentFeedError

OPTION_PREFIX = "FEED_OPT_"


def options_from_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The provider options among the environment's variables: what follows FEED_OPT_, spelt as it is there."""
    return {name.removeprefix(OPTION_PREFIX): text for name, text in environ.items() if name.startswith(OPTION_PREFIX)}


def read_options(
    provider: str, options: Mapping[str, str], known: Iterable[str], families: Iterable[str] = ()
) -> dict[str, str]:
    """The options of `provider` by their name in lower case; blank ones are left out, as if they were not set.

    `families` are beginnings of names, such as `symbol_`, of which there is one option a subject.

    Raises:
        PermanentFeedError: an option that the provider does not have, or one given twice in different spelling.
    """
    names, beginnings = sorted(known), sorted(families)
    read: dict[str, str] = {}
    for name, text in options.items():
        key = name.lower()
        if key not in names and not any(key.startswith(each) and key != each for each in beginnings):
            listing = ", ".join(OPTION_PREFIX + each for each in [*names, *(f"{each}<SUBJECT>" for each in beginnings)])
            raise PermanentFeedError(f"FEED_SOURCE={provider} has no option {OPTION_PREFIX}{name}; it has {listing}")
        if not str(text).strip():
            continue
        if key in read:
            raise PermanentFeedError(f"{OPTION_PREFIX}{key} is set twice, in different spelling: keep one")
        read[key] = str(text).strip()
    return read


def seconds_option(name: str, text: str) -> float:
    """A duration in seconds, above 0.

    Raises:
        PermanentFeedError: the text of FEED_OPT_`name` is no such number.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise PermanentFeedError(f"{OPTION_PREFIX}{name} is {text!r}: set it to a number of seconds above 0, such as 5")
    return seconds
