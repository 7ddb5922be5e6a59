"""What commands that run in the test's own process leave behind is taken away."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command sends logs to the stderr of its time, which is closed when the next test logs."""
    yield
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
