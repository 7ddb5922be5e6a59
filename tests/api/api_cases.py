"""What the tests of the report API share: rows to report on, an application, a real server around it."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import Engine
from sqlmodel import Session, SQLModel

from coordinator_node.api.app import create_app
from coordinator_node.api.server import listen_on, serve
from coordinator_node.config.settings import Settings, load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.tables import (
    CheckpointRow,
    InputRow,
    ModelRow,
    PredictionRow,
    ScheduledPredictionConfigRow,
    ScoreRow,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SCHEDULE = "BTC-60-schedule"
INPUT = "input"
PATIENCE_SECONDS = 60
ClientMaker = Callable[..., "Client"]
KEY = "correct horse battery staple"


def settings(**variables: str) -> Settings:
    """The settings of an environment that holds these variables and no custom routes."""
    return load_settings({"API_ROUTES_DIR": "no-such-folder", **variables})


def report_app(engine: Engine, config: CrunchConfig | None = None, **variables: str) -> FastAPI:
    """The application at NOW."""
    return create_app(settings(**variables), engine, config or CrunchConfig(), clock=lambda: NOW)


def store(engine: Engine, *rows: SQLModel) -> None:
    """Rows of one table after another, in the order given; what others refer to comes first."""
    with Session(engine) as session:
        for _, of_one_table in groupby(rows, type):
            session.add_all(of_one_table)
            session.flush()
        session.commit()


def model(model_id: str, **values: Any) -> ModelRow:
    return ModelRow(
        **{
            "id": model_id,
            "name": f"name of {model_id}",
            "deployment_identifier": f"deployment of {model_id}",
            "player_id": f"player of {model_id}",
            "player_name": f"player name of {model_id}",
            **values,
        }
    )


def schedule(schedule_id: str = SCHEDULE, **values: Any) -> ScheduledPredictionConfigRow:
    return ScheduledPredictionConfigRow(**{"id": schedule_id, "scope_key": "BTC-60", **values})


def stage(engine: Engine, *model_ids: str) -> None:
    """What predictions refer to: models, a schedule and an input."""
    store(engine, *(model(model_id) for model_id in model_ids), schedule(), InputRow(id=INPUT))


def prediction(model_id: str, performed_at: datetime, **values: Any) -> PredictionRow:
    horizon = values.pop("horizon", timedelta(seconds=60))
    return PredictionRow(
        **{
            "input_id": INPUT,
            "model_id": model_id,
            "prediction_config_id": SCHEDULE,
            "scope_key": "BTC-60",
            "scope_jsonb": {"subject": "BTC", "step_seconds": 15},
            "performed_at": performed_at,
            "resolvable_at": performed_at + horizon,
            **values,
        }
    )


def score(scored: PredictionRow, **values: Any) -> ScoreRow:
    return ScoreRow(**{"prediction_id": scored.id, "generation": 1, "result_jsonb": {"value": 0.5}, **values})


def emission(shares: list[int], **values: Any) -> dict[str, Any]:
    return {
        "crunch": "crunch-address",
        "cruncher_rewards": [{"cruncher_index": i, "reward_pct": share} for i, share in enumerate(shares)],
        "compute_provider_rewards": [],
        "data_provider_rewards": [],
        **values,
    }


def checkpoint(checkpoint_id: str, period_end: datetime = NOW, **values: Any) -> CheckpointRow:
    shares = values.pop("shares", [700_000_000, 300_000_000])
    ranking = [{"model_id": f"m{i}", "rank": i + 1} for i in range(len(shares))]
    return CheckpointRow(
        **{
            "id": checkpoint_id,
            "period_start": period_end - timedelta(days=7),
            "period_end": period_end,
            "entries_jsonb": [emission(shares)],
            "meta_jsonb": {"ranking": ranking},
            "created_at": period_end,
            **values,
        }
    )


class Client:
    """Requests to an application without a server, one after another."""

    def __init__(self, app: FastAPI) -> None:
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://api")

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **options))

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.request("GET", path, params=params)

    def rows(self, path: str, **params: Any) -> Any:
        """The body of an answer that must be 200."""
        answer = self.get(path, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


class RunningServer:
    """A server in a thread of its own, on a loopback port."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._listener = listen_on("127.0.0.1", 0)
        self.port: int = self._listener.getsockname()[1]
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),))

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await serve(self._app, self._listener, self._stop)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """What SIGTERM does."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        self._thread.join(timeout=PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send the target exactly as it is spelled; status, headers (names in lower case) and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in {**(headers or {}), "Content-Length": str(len(body or b""))}.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


@contextmanager
def running(app: FastAPI) -> Iterator[RunningServer]:
    server = RunningServer(app)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.join()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come; fails after a patience that no working machine needs."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.01)


def waiting_for_locks(engine: Engine) -> int:
    """How many of the database's sessions wait for a lock."""
    with engine.connect() as connection:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return int(connection.exec_driver_sql(waiting).scalar_one())
