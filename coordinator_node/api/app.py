"""The report API: put together from its parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.middleware.cors import CORSMiddleware

from coordinator_node.api.auth import AuthMiddleware, Door, KeyMiddleware, warn_if_open
from coordinator_node.api.body_limit import BodyLimitMiddleware
from coordinator_node.api.compression import CompressionMiddleware
from coordinator_node.api.context import ReportContext
from coordinator_node.api.custom_routers import mount_custom_routers
from coordinator_node.api.errors import install_error_answers
from coordinator_node.api.health_probe import HealthProbe
from coordinator_node.api.live import LiveHub
from coordinator_node.api.openapi import describe
from coordinator_node.api.parameters import EACH_ONCE
from coordinator_node.api.rate_limit import RateLimitMiddleware, TokenBuckets
from coordinator_node.api.readiness import HealthJudge
from coordinator_node.api.ready import answer_first
from coordinator_node.api.request_metrics import RequestMetricsMiddleware
from coordinator_node.api.routes import BUILT_IN, READY, TOURNAMENT
from coordinator_node.api.routes.backfill import PARQUET
from coordinator_node.api.security_headers import SecurityHeadersMiddleware
from coordinator_node.api.sessions import DatabaseProbe, ReportDatabase
from coordinator_node.api.spellings import SpellingMiddleware
from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.times import utc_now
from coordinator_node.schemas.report.wire import InputProblem, Problem
from coordinator_node.services.tournament_predict import is_tournament

# Headers of answers that a page of another origin may read.
EXPOSED = ("ETag", "Link", "Retry-After", "WWW-Authenticate", "X-Next-Cursor")


def create_app(
    settings: Settings,
    engine: Engine,
    config: CrunchConfig,
    clock: Callable[[], datetime] = utc_now,
    *,
    replica: Engine | None = None,
) -> FastAPI:
    """The report API of one competition; reports are read from `replica` where there is one.

    Raises:
        ConfigurationError: an operator's own router cannot be imported or mounted; the message names it.
    """
    app = FastAPI(
        title=f"Report API of {settings.crunch_id}",
        version=version("coordinator-node"),
        # A redirect would lose a key that stands in the address; SpellingMiddleware asks again instead.
        redirect_slashes=False,
        # Clients of 0.1.84 could leave the type of their JSON out.
        strict_content_type=False,
        responses={
            401: {"model": Problem, "description": "No key, or a wrong one."},
            403: {"model": Problem, "description": "Writing is closed: no API_KEY is set on the mainnet."},
            413: {"model": Problem, "description": "The body is too large."},
            422: {"model": InputProblem, "description": "A parameter or the body is not as it must be."},
            429: {"model": Problem, "description": "Too many requests; Retry-After says when to try again."},
            503: {"model": Problem, "description": "The database does not answer, or not in time."},
        },
    )
    health = HealthProbe(engine, clock, replica)
    judge = HealthJudge(settings, config, health.head)
    app.state.context = ReportContext(
        settings,
        config,
        ReportDatabase(engine, replica),
        DatabaseProbe(engine),
        clock,
        health,
        judge,
        LiveHub(engine, judge, clock, replica),
    )
    app.state.door = Door(settings)
    for router in BUILT_IN + TOURNAMENT if is_tournament(config) else BUILT_IN:
        app.include_router(router, dependencies=[EACH_ONCE])
    mount_custom_routers(app, settings)
    answer_first(app, READY)
    install_error_answers(app)
    describe(app, app.state.door)
    warn_if_open(settings)
    _add_middleware(app, settings)
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """What a request passes before it reaches a route; from the innermost to the outermost."""
    door = app.state.door
    app.add_middleware(
        CompressionMiddleware,
        # One is compressed already, the other must not wait until there is enough to compress.
        exclude_content_types=(PARQUET, "text/event-stream"),
    )
    app.add_middleware(SpellingMiddleware)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(AuthMiddleware, door=door)
    if settings.request_rate is not None:
        app.add_middleware(RateLimitMiddleware, buckets=TokenBuckets(*settings.request_rate))
    app.add_middleware(KeyMiddleware, door=door)
    app.add_middleware(RequestMetricsMiddleware, routes=app)
    app.add_middleware(SecurityHeadersMiddleware)
    # Outermost, so that a browser may read a refusal too.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.api_cors_origins,
        allow_credentials="*" not in settings.api_cors_origins,
        allow_methods=("*",),
        allow_headers=("*",),
        expose_headers=EXPOSED,
    )
