"""Errors told apart by what whoever meets them should do."""

from __future__ import annotations

from asyncio import CancelledError
from typing import Final

RAISED_BY_CALLABLES: Final[tuple[type[BaseException], ...]] = (Exception, SystemExit, CancelledError)
"""What an operator's callable may raise without ending the process: it costs the row that it was called for.

`sys.exit()` in it, or the end of an event loop of its own, is no order to the worker. KeyboardInterrupt is left out:
it comes from the keyboard.
"""


class ConfigurationError(Exception):
    """A setting, an operator's config or a database cannot be used as it is; the message says what to change.

    A process that meets it at start ends with exit code 2.
    """


class TemporaryError(Exception):
    """Something outside the engine does not work for now; the same may work later, without anybody's doing.

    What meets it waits and tries again, and logs it as a warning in one line.
    """
