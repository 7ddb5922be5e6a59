"""What every endpoint works with, given to it by dependency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from coordinator_node.api.answers import SharedAnswers
from coordinator_node.api.health_probe import HealthProbe
from coordinator_node.api.live import LiveHub
from coordinator_node.api.readiness import HealthJudge
from coordinator_node.api.sessions import DatabaseProbe, ReportDatabase
from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig


@dataclass(frozen=True)
class ReportContext:
    """One application's settings, config, database and clock, and how it knows its health."""

    settings: Settings
    config: CrunchConfig
    database: ReportDatabase
    probe: DatabaseProbe
    clock: Callable[[], datetime]
    health: HealthProbe
    judge: HealthJudge
    live: LiveHub
    answers: SharedAnswers = field(default_factory=SharedAnswers)


async def _of_request(request: Request) -> ReportContext:
    context: ReportContext = request.app.state.context
    return context


Context = Annotated[ReportContext, Depends(_of_request)]
