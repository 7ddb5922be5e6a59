"""A client of the report API on a fresh database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_cases import Client, ClientMaker, report_app
from sqlalchemy import Engine

from coordinator_node.crunch_config import CrunchConfig


@pytest.fixture
def client_of(engine: Engine) -> Iterator[ClientMaker]:
    """Makes clients of an application with these environment variables."""
    made: list[Client] = []

    def make(config: CrunchConfig | None = None, **variables: str) -> Client:
        made.append(Client(report_app(engine, config, **variables)))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(client_of: ClientMaker) -> Client:
    """A client of the application with its defaults."""
    return client_of()
