"""Where the stack that runs in a workspace now is found, for commands that are given beside it.

While `up` runs, a file of the workspace says it: variables as a shell reads them, and the process id of the supervisor.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dotenv import dotenv_values

STATE_FOLDER = ".coordinator"
RUNNING_FILE = "running.env"
PID_VARIABLE = "UP_PID"


@contextmanager
def announced(state: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Say in the state folder how the stack of this process is reached, for as long as the context lasts."""
    file = state / RUNNING_FILE
    making = file.with_name(f"{RUNNING_FILE}.making")
    lines = {PID_VARIABLE: str(os.getpid()), **variables}
    making.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in lines.items()), encoding="utf-8")
    making.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def running_variables(workspace: Path) -> dict[str, str]:
    """The variables by which the stack that runs in a workspace is reached; {} where none does."""
    said = dotenv_values(workspace / STATE_FOLDER / RUNNING_FILE, interpolate=False)
    variables = {name: value for name, value in said.items() if value is not None}
    return variables if _is_alive(variables.pop(PID_VARIABLE, "")) else {}


def _is_alive(pid: str) -> bool:
    """Whether a process is there: one that was killed has left its file behind."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ValueError, OSError):
        return False
    return True
