"""The report API: put together from its parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.middleware.cors import CORSMiddleware

from coordinator_node.api.auth import AuthMiddleware, Door, warn_if_open
from coordinator_node.api.context import ReportContext
from coordinator_node.api.custom_routers import mount_custom_routers
from coordinator_node.api.errors import install_error_answers
from coordinator_node.api.routes import BUILT_IN, TOURNAMENT
from coordinator_node.api.sessions import DatabaseProbe, ReportDatabase
from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.times import utc_now
from coordinator_node.schemas.report.wire import InputProblem, Problem
from coordinator_node.services.tournament_predict import is_tournament


def create_app(
    settings: Settings, engine: Engine, config: CrunchConfig, clock: Callable[[], datetime] = utc_now
) -> FastAPI:
    """The report API of one competition.

    Raises:
        ConfigurationError: an operator's own router cannot be imported or mounted; the message names it.
    """
    app = FastAPI(
        title=f"Report API of {settings.crunch_id}",
        version=version("coordinator-node"),
        responses={
            401: {"model": Problem, "description": "No key, or a wrong one."},
            422: {"model": InputProblem, "description": "A parameter or the body is not as it must be."},
            503: {"model": Problem, "description": "The database does not answer, or not in time."},
        },
    )
    app.state.context = ReportContext(settings, config, ReportDatabase(engine), DatabaseProbe(engine), clock)
    app.state.door = Door(settings)
    for router in BUILT_IN + TOURNAMENT if is_tournament(config) else BUILT_IN:
        app.include_router(router)
    mount_custom_routers(app, settings)
    install_error_answers(app)
    warn_if_open(settings)
    app.add_middleware(AuthMiddleware, door=app.state.door)
    # Outermost, so that a browser may read a refusal too.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.api_cors_origins,
        allow_credentials="*" not in settings.api_cors_origins,
        allow_methods=("*",),
        allow_headers=("*",),
    )
    return app
