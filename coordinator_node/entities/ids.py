"""Identifiers of rows."""

from __future__ import annotations

import secrets
import time


def new_id() -> str:
    """32 hexadecimal digits: 48 bits of the time in milliseconds, then 80 random bits.

    Ids made one after another are close in an index, so that inserting beside millions of rows stays cheap.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def new_ids(count: int) -> list[str]:
    """So many ids at once, in ascending order: one as `new_id` makes it, and those that follow it."""
    first = int(new_id(), 16)
    return [f"{first + position:032x}" for position in range(count)]
