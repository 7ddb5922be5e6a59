"""Not a router: its name begins with an underscore."""

from collections.abc import Generator

from sqlmodel import Session

from coordinator_node.db import create_session


def get_session() -> Generator[Session, None, None]:
    with create_session() as session:
        yield session
