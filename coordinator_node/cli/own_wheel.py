"""The wheel of a checkout, for the images of workspaces that are made from it: its version may not be released."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import coordinator_node


def checkout() -> Path | None:
    """The folder of the checkout that this engine runs from; None where it was installed."""
    folder = Path(coordinator_node.__file__).parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def put_wheel(source: Path, target: Path) -> str | None:
    """Build the wheel of a checkout into a folder; returns why it could not be built, or None."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target.resolve())]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode == 0:
        return None
    return next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
