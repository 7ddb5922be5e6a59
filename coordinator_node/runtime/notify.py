"""LISTEN and NOTIFY: they only wake a worker earlier; polling is what finds the work."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, text
from sqlmodel import Session

from coordinator_node.runtime.connections import CLIENT_OPTIONS
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

FEED_RECORDS = "coordinator_feed_records"
PREDICTIONS = "coordinator_predictions"
SCORES = "coordinator_scores"
SNAPSHOTS = "coordinator_snapshots"
CHECKPOINTS = "coordinator_checkpoints"
ROUNDS = "coordinator_rounds"

RECONNECT_SECONDS = 1.0


def notify(session: Session, channel: str) -> None:
    """Wake the channel's listeners when the session's transaction commits."""
    session.connection().execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel})


def libpq_url(engine: Engine) -> str:
    """The engine's address as libpq takes it, for a connection of one's own that notices a cut as the pool's do.

    What SQLAlchemy writes itself, libpq refuses where a space is in it.
    """
    _, parameters = engine.dialect.create_connect_args(engine.url)
    parameters.pop("context", None)  # the driver's, of how values are converted
    return make_conninfo("", **{**CLIENT_OPTIONS, **parameters})


async def listen(engine: Engine, channels: tuple[str, ...], wake: asyncio.Event) -> None:
    """Set `wake` at every notification, for ever, on one connection that is made anew when it breaks.

    The connection stays open during passes, so that nothing sent meanwhile is lost; a new one sets `wake` too, because
    something may have been sent while there was none.
    """
    while True:
        with contextlib.suppress(psycopg.Error, OSError):
            async with await psycopg.AsyncConnection.connect(libpq_url(engine), autocommit=True) as connection:
                for channel in channels:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                wake.set()
                async for _ in connection.notifies():
                    wake.set()
        log.debug("listening connection lost; polling goes on", retry_seconds=RECONNECT_SECONDS)
        await asyncio.sleep(RECONNECT_SECONDS)
