"""A workspace as `coordinator-node up` runs it."""

from __future__ import annotations

from pathlib import Path

from dotenv import dotenv_values

from coordinator_node.config.settings import load_settings
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.local.stack import StackPlan

ENV_FILE = ".local.env"


def workspace_plan(workspace: Path, submissions: Path | None, port: int | None) -> StackPlan:
    """The plan of a workspace: its .local.env over the terminal's variables, its models, its own state folder.

    Raises:
        ConfigurationError: the folder is no workspace, a variable is wrong, or there are no submissions.
    """
    workspace = workspace.resolve()
    if not workspace.is_dir():
        raise ConfigurationError(f"{workspace} is not a folder")
    file = workspace / ENV_FILE
    variables = {name: value for name, value in dotenv_values(file).items() if value is not None}
    models = (submissions or workspace / "submissions").resolve()
    if not models.is_dir():
        raise ConfigurationError(f"{models} is not a folder: name the models' folder with --submissions")
    settings = load_settings(variables)
    return StackPlan(
        workspace=workspace,
        submissions=models,
        state=workspace / ".coordinator",
        environment=dict(variables),
        crunch_id=settings.crunch_id,
        port=port or settings.report_api_port,
    )
