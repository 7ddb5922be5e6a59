"""Names that may stand in a path without leading out of its folder."""

from __future__ import annotations

import re

SAFE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+=@-]{0,99}$"
"""Letters, digits and a few signs; neither a separator nor a leading dot. As JSON Schema reads it, too."""

_SAFE_NAME = re.compile(SAFE_NAME_PATTERN.removesuffix("$") + r"\Z")


class UnsafeNameError(ValueError):
    """A name that cannot be a folder's or file's; the message says why."""


def safe_name(what: str, name: str) -> str:
    """Returns `name` if a file or folder may have it.

    Raises:
        UnsafeNameError: it may not; the message begins with `what`.
    """
    if not _SAFE_NAME.match(name):
        raise UnsafeNameError(
            f"{what} {name!r} cannot name a folder: at most 100 letters, digits and . _ + = @ - are allowed, and the"
            " first must be a letter or digit"
        )
    return name
