"""A workspace as `coordinator-node up` runs it."""

from __future__ import annotations

from pathlib import Path

from dotenv import dotenv_values

from coordinator_node.config.settings import load_settings, variable_names
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.local.running import STATE_FOLDER
from coordinator_node.local.stack import StackPlan

ENV_FILE = ".local.env"


def workspace_variables(workspace: Path) -> dict[str, str | None]:
    """The variables of a workspace's .local.env, to be laid over the terminal's.

    None takes one away: of two names of one setting, that of the file counts, were it the older one.
    """
    given = {name: value for name, value in dotenv_values(workspace / ENV_FILE).items() if value is not None}
    variables: dict[str, str | None] = dict(given)
    for names in variable_names().values():
        if any(given.get(name) for name in names):
            variables.update((name, None) for name in names if name not in given)
    return variables


def workspace_plan(workspace: Path, submissions: Path | None, port: int | None) -> StackPlan:
    """The plan of a workspace: its .local.env over the terminal's variables, its models, its own state folder.

    Raises:
        ConfigurationError: the folder is no workspace, a variable is wrong, or there are no submissions.
    """
    workspace = workspace.resolve()
    if not workspace.is_dir():
        raise ConfigurationError(f"{workspace} is not a folder")
    variables = workspace_variables(workspace)
    models = (submissions or workspace / "submissions").resolve()
    if not models.is_dir():
        raise ConfigurationError(f"{models} is not a folder: name the models' folder with --submissions")
    settings = load_settings({name: value for name, value in variables.items() if value is not None})
    return StackPlan(
        workspace=workspace,
        submissions=models,
        state=workspace / STATE_FOLDER,
        environment=variables,
        crunch_id=settings.crunch_id,
        port=port or settings.report_api_port,
    )
