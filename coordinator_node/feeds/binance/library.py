"""Imports python-binance, which takes half a second and warns while it is imported."""

from __future__ import annotations

import logging
import warnings
from typing import Any


def binance_library() -> Any:
    """The module `binance`."""
    with warnings.catch_warnings():
        # It imports a name of websockets for an annotation only, and nobody here can change that.
        warnings.filterwarnings(
            "ignore", r"websockets\.(WebSocketClientProtocol|legacy) is deprecated", DeprecationWarning
        )
        import binance  # type: ignore[import-untyped]  # it publishes no type information
    # What it logs as errors reaches us as exceptions and messages, and is told once, with what comes of it.
    logging.getLogger("binance").setLevel(logging.CRITICAL)
    return binance
