"""Write requirements.lock: every package that the engine, its extras and its tests need, with hashes.

No index address is written, so that the lock serves whatever index an installer is set to.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bootstrap import ROOT, find_uv

TARGET = Path("requirements.lock")


def main() -> None:
    """Resolve anew from pyproject.toml; versions already locked are taken up only where a constraint asks."""
    command = [find_uv(), "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.12", "--all-extras"]
    command += ["--group", "dev", "--generate-hashes", "--upgrade", "--no-header", "--no-emit-index-url"]
    command += ["--quiet", "--output-file", str(TARGET)]
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
