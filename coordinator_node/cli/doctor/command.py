"""What the command does, in its order."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from coordinator_node.cli.doctor import surroundings
from coordinator_node.cli.doctor.report import print_json, print_text, verdict_of
from coordinator_node.cli.doctor.workspace import inside, workspace_folder
from coordinator_node.config.settings import Settings, load_settings
from coordinator_node.config_loader import config_path, load_config
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import RAISED_BY_CALLABLES, ConfigurationError
from coordinator_node.entities.json_values import reason_of
from coordinator_node.local.running import running_variables
from coordinator_node.local.workspace import ENV_FILE
from coordinator_node.services.checks.competition import Competition
from coordinator_node.services.checks.findings import Finding, Level, failed, fine, warning
from coordinator_node.services.checks.startup import CHECKS, findings_of
from coordinator_node.services.checks.variables import unknown_variables


def run_doctor(workspace: Path, *, offline: bool, as_json: bool) -> int:
    """Check a workspace and say what was found; returns the exit code: 1 if anything would fail in production.

    Raises:
        ConfigurationError: the folder is no workspace.
    """
    folder = workspace_folder(workspace)
    with inside(folder), _without_logs():
        findings = examined(offline=offline)
    if as_json:
        print_json(folder, findings, offline=offline)
    else:
        print_text(folder, findings)
    return 1 if verdict_of(findings) is Level.FAILED else 0


def examined(*, offline: bool) -> list[Finding]:
    """What is found in the workspace that is the present folder; `offline` asks nobody else."""
    findings, settings = _settings()
    findings += unknown_variables(os.environ) or fine("variables", "none that looks misspelt")
    loaded, config = _config()
    findings += loaded
    if settings is None or config is None:
        what = "the variables" if settings is None else "the config"
        return [*findings, *warning("others", f"not checked, because {what} cannot be used")]
    findings += findings_of(CHECKS, Competition(config, settings))
    findings += surroundings.check_routes(config, settings)
    if not offline:
        findings += surroundings.check_database(settings)
        findings += surroundings.check_orchestrator(settings)
        findings += surroundings.check_port(settings)
    return findings


@contextmanager
def _without_logs() -> Iterator[None]:
    """What the engine logs beside is said by the findings, and must not stand among them."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _settings() -> tuple[list[Finding], Settings | None]:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return failed("settings", str(error), "no worker starts with it"), None
    beside = f"{ENV_FILE} and the environment" if Path(ENV_FILE).is_file() else f"the environment (no {ENV_FILE} here)"
    beside += ", and the local stack that runs here" if running_variables(Path()) else ""
    return fine("settings", f"{beside}: competition {settings.crunch_id} on {settings.network}"), settings


def _config() -> tuple[list[Finding], CrunchConfig | None]:
    try:
        path, config = config_path(), load_config()
    except ConfigurationError as error:
        return failed("config", str(error), "no worker starts with it"), None
    except RAISED_BY_CALLABLES as error:  # an operator's module may even call sys.exit
        return failed("config", f"it cannot be loaded: {reason_of(error)}", "no worker starts with it"), None
    if path is None:
        remedy = "write config/crunch_config.py, or set CRUNCH_CONFIG_MODULE"
        return warning("config", "there is none: the engine's default competition runs", remedy), config
    return fine("config", f"{path} loads"), config
