"""The tests of the documentation use the API's server, around rows that the stages themselves made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))

from api_cases import KEY, report_app, running
from evidence_cases import Competition


@pytest.fixture
def competition(request: pytest.FixtureRequest) -> Iterator[Callable[[], tuple[Engine, str]]]:
    """Makes, when it is called, a competition with checkpoints, and an API over a socket: its engine and address."""
    servers = []

    def make() -> tuple[Engine, str]:
        engine = request.getfixturevalue("engine")
        made = Competition(engine)
        made.run()
        server = running(report_app(engine, made.config, API_KEY=KEY))
        servers.append(server)
        return engine, f"http://127.0.0.1:{server.__enter__().port}"

    yield make
    for server in servers:
        server.__exit__(None, None, None)
