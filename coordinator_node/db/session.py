"""Sessions for an operator's own code."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.config.settings import load_settings
from coordinator_node.db.engine import make_engine


def database_url() -> str:
    """The database of the environment, as SQLAlchemy takes it."""
    return load_settings().sqlalchemy_url


@lru_cache(maxsize=4)
def _engine(url: str) -> Engine:
    return make_engine(url, "coordinator-node custom")


def create_session() -> Session:
    """A session on the environment's database, to be used as a context manager; the caller commits."""
    return Session(_engine(database_url()), expire_on_commit=False)
