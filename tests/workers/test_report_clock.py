"""Orders that are given over the API bear the database's time, whatever the machine's clock shows."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import httpx
from sqlalchemy import Engine, text

from coordinator_node.entities.times import utc_now
from coordinator_node.local.stack import free_port

PATIENCE_SECONDS = 30
AN_HOUR_AHEAD = """
import sys
from datetime import datetime, timedelta
from coordinator_node.entities import times

class Ahead(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(hours=1)

times.datetime = Ahead
from coordinator_node.workers.report_worker import main
sys.exit(main())
"""


def test_an_order_bears_the_databases_time(engine: Engine) -> None:
    port = free_port()
    given = {"REPORT_API_HOST": "127.0.0.1", "REPORT_API_PORT": str(port), "LOG_FORMAT": "json"}
    address = engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-c", AN_HOUR_AHEAD],
        env={**os.environ, "DATABASE_URL": address, **given},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert any("clock differs from the database's" in line for line in process.stderr)
        end = utc_now().replace(minute=0, second=0, microsecond=0)
        order = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s"}
        order |= {"start": (end - timedelta(hours=1)).isoformat(), "end": end.isoformat()}
        answer = httpx.post(f"http://127.0.0.1:{port}/reports/backfill", json=order, timeout=PATIENCE_SECONDS)
        assert answer.is_success, answer.text
    finally:
        process.kill()
        process.communicate()
    with engine.connect() as connection:
        off = connection.execute(text("SELECT clock_timestamp() - created_at FROM backfill_jobs")).scalar_one()
    assert timedelta() <= off < timedelta(minutes=30)
