"""Write the locks: every package that is installed, with hashes.

`requirements.lock` is what the engine, its extras and its tests need. The other two hold parts of it, in the same
versions, for images: what a running node needs, and what makes the wheel.

No index address is written, so that a lock serves whatever index an installer is set to.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bootstrap import ROOT, find_uv

EVERYTHING = Path("requirements.lock")
# In the scaffold, because a workspace's image is made with it too.
NODE = Path("scaffold/node/requirements.lock")
BUILD = Path("requirements-build.lock")


def main() -> None:
    """Resolve anew from pyproject.toml; versions already locked are taken up only where a constraint asks."""
    lock(EVERYTHING, "pyproject.toml", "--all-extras", "--group", "dev", "--upgrade")
    within = ("--no-annotate", "--constraint", str(EVERYTHING))
    lock(NODE, "pyproject.toml", "--extra", "models", *within)
    lock(BUILD, "--group", "pyproject.toml:build", *within)


def lock(target: Path, *what: str) -> None:
    """Write one lock, of what uv is told to resolve."""
    command = [find_uv(), "pip", "compile", *what, "--universal", "--python-version", "3.12", "--generate-hashes"]
    command += ["--no-header", "--no-emit-index-url", "--quiet", "--output-file", str(target)]
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
