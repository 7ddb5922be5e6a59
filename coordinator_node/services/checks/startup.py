"""All checks by name, and those that each worker makes when it starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.error_places import reason_and_place_of
from coordinator_node.entities.errors import RAISED_BY_CALLABLES, ConfigurationError
from coordinator_node.services.checks import ranking, schedules
from coordinator_node.services.checks.competition import Competition
from coordinator_node.services.checks.feed import check_source
from coordinator_node.services.checks.findings import Finding, failed, fine, warn_of
from coordinator_node.services.checks.variables import unknown_variables
from coordinator_node.services.predict.model_nodes import model_credentials
from coordinator_node.services.predict.service import PredictService
from coordinator_node.services.tournament_predict import is_tournament

type Check = Callable[[Competition], list[Finding]]


def check_service(config: CrunchConfig) -> None:
    """Refuse a `predict_service_class` that is none of the engine's.

    Raises:
        ConfigurationError: it is a class of the operator's own.
    """
    service = config.predict_service_class
    if service is not None and not is_tournament(config) and not issubclass(PredictService, service):
        raise ConfigurationError(
            f"predict_service_class {service.__name__}: a service of one's own is not supported; leave it unset and use"
            " INFERENCE_INPUT_BUILDER, call_method and INFERENCE_OUTPUT_VALIDATOR"
        )


def _models(competition: Competition) -> list[Finding]:
    check_service(competition.config)
    shown = "those of GATEWAY_CERT_DIR or SECURE_CERT_DIR" if model_credentials(competition.settings) else "none"
    return fine("models", f"credentials that their nodes are shown: {shown}")


# In the order in which data flow, so that the first that failed is the one to begin with.
CHECKS: dict[str, Check] = {
    "feed": lambda competition: check_source(competition.settings),
    "schedules": schedules.check_schedules,
    "models": _models,
    "input": schedules.check_input,
    "output": lambda competition: competition.outputs.findings,
    "ground truth": lambda competition: competition.dry_run.truths.findings,
    "scoring": lambda competition: competition.dry_run.findings,
    "aggregation": ranking.check_aggregation,
    "metrics": ranking.check_metrics,
    "ensembles": ranking.check_ensembles,
    "emission": ranking.check_emission,
}
AT_START: dict[str, tuple[str, ...]] = {
    "predict": ("schedules", "input", "output"),
    "score": ("ground truth", "scoring", "aggregation", "metrics", "ensembles", "emission"),
    "checkpoint": ("emission",),
}
"""What a worker looks at: what it works with itself. The feed worker checks its own feed, the report worker none."""


def findings_of(names: Iterable[str], competition: Competition) -> list[Finding]:
    """What these checks find, in their order; each gives one finding at least."""
    return [finding for name in names for finding in _found(name, competition)]


def warn_at_start(role: str, settings: Settings, config: CrunchConfig) -> None:
    """Log what a worker's checks find as warnings; what must stop it, its own parts refuse when they are made."""
    warn_of(unknown_variables(os.environ))
    warn_of(findings_of(AT_START[role], Competition(config, settings)))


def _found(name: str, competition: Competition) -> list[Finding]:
    try:
        return CHECKS[name](competition)
    except ConfigurationError as error:
        return failed(name, str(error))
    except RAISED_BY_CALLABLES as error:  # an operator's types and callables may raise anything
        return failed(name, f"this could not be checked: {reason_and_place_of(error)}")
