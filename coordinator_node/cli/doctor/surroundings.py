"""What stands around a competition: the API's own routes, the database, the orchestrator, the port."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from sqlalchemy.exc import DBAPIError
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from coordinator_node.api.app import create_app
from coordinator_node.client import ApiError, CoordinatorClient
from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import engine_from
from coordinator_node.db.failures import one_line
from coordinator_node.db.migrations import schema_revisions
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.services.checks.findings import Finding, failed, fine, warning

ANSWER_SECONDS = 5.0
MOST_BYTES = 64 * 1024 * 1024


def check_routes(config: CrunchConfig, settings: Settings) -> list[Finding]:
    """The operator's own routers can be mounted; no database is asked."""
    engine = engine_from(settings, "doctor")
    try:
        create_app(settings, engine, config)
    except ConfigurationError as error:
        return failed("routes", str(error), "the report worker does not start with it")
    finally:
        engine.dispose()
    return fine("routes", f"the report API starts with what is in {settings.api_routes_dir} and API_ROUTES")


def check_database(settings: Settings) -> list[Finding]:
    """It answers, and its schema is that of this version."""
    remedy = "run coordinator-node migrate"
    engine = engine_from(settings, "doctor")
    try:
        current, head = schema_revisions(engine)
    except DBAPIError as error:
        return failed("database", one_line(error), "start it, or correct POSTGRES_* or DATABASE_URL")
    except ConfigurationError as error:
        return failed("database", str(error))
    finally:
        engine.dispose()
    if current is None:
        return failed("database", "it has no schema of this version", remedy)
    if current != head:
        return failed("database", f"its schema is at revision {current}, and this version's is {head}", remedy)
    return fine("database", f"it answers, at revision {head}")


def check_orchestrator(settings: Settings) -> list[Finding]:
    """It answers and says which models there are."""
    address = f"ws://{settings.model_runner_node_host}:{settings.model_runner_node_port}/{settings.crunch_id}"
    remedy = "start it, or correct MODEL_RUNNER_NODE_HOST and MODEL_RUNNER_NODE_PORT"
    try:
        with connect(address, open_timeout=ANSWER_SECONDS, close_timeout=1, max_size=MOST_BYTES) as socket_:
            event = json.loads(socket_.recv(timeout=ANSWER_SECONDS))
            models: list[Any] = event["data"]
    except TimeoutError:
        return failed("orchestrator", f"{address} does not answer within {ANSWER_SECONDS:g} s", remedy)
    except (OSError, WebSocketException) as error:
        return failed("orchestrator", f"{address} cannot be reached: {error}", remedy)
    except (ValueError, KeyError, TypeError):
        return failed("orchestrator", f"what {address} sends is no list of models", "is it a model orchestrator?")
    if not models:
        return warning("orchestrator", f"{address} knows no model yet")
    return fine("orchestrator", f"{address} knows {len(models)} model(s)")


def check_port(settings: Settings) -> list[Finding]:
    """The API's port is free, or this competition's own API has it."""
    host, port = settings.report_api_host, settings.report_api_port
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if _is_own_api(settings):
            return fine("port", f"this competition's API answers at {host}:{port}")
        message = f"the API cannot listen on {host}:{port}: {os.strerror(error.errno) if error.errno else error}"
        return failed("port", message, "end what uses it, or set REPORT_API_HOST and REPORT_API_PORT")
    return fine("port", f"{host}:{port} is free for the report API")


def _is_own_api(settings: Settings) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.report_api_host, settings.report_api_host)  # noqa: S104 - only compared with
    url = f"http://{host}:{settings.report_api_port}"
    try:
        with CoordinatorClient(url, timeout_seconds=2, attempts=1) as client:
            return client.info().crunch_id == settings.crunch_id
    except ApiError:
        return False
