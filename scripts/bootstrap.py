"""Make .venv/ in the checkout. Runs on any Python from 3.9, with nothing but venv and a package index.

uv does the work, because it brings Python 3.12 where the machine has none; where uv itself is missing it is installed
into .uv/ of the checkout. Nothing is done when .venv/ was made from the same files already.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".made-from"
INPUTS = ("pyproject.toml", "requirements.lock", ".python-version", "scripts/bootstrap.py")

# Settings of the environment or version manager that this script was started from: they would bind uv to it as well.
FOREIGN = ("VIRTUAL_ENV", "PYTHONPATH", "PYENV_VERSION", "PYENV_DIR")


def fingerprint() -> str:
    """A digest of the files that .venv/ is made from, and of where it stands (an environment cannot be moved)."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def find_uv() -> str:
    """The path of a uv that works: one on PATH, else one installed into .uv/."""
    candidates = [shutil.which("uv"), str(ROOT / ".uv" / "bin" / "uv")]
    for candidate in candidates:
        if candidate and works(candidate):
            return candidate
    print("setup: uv is not on this machine; installing it into .uv/", flush=True)
    try:
        venv.create(ROOT / ".uv", with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        raise SystemExit(
            "setup: this Python has no working venv; on Debian or Ubuntu: apt install python3-venv"
        ) from None
    run([str(ROOT / ".uv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"])
    return candidates[1] or ""


def works(command: str) -> bool:
    """Whether a command can be run here (a version manager's shim may exist without what it stands for)."""
    try:
        return subprocess.run([command, "--version"], capture_output=True, cwd=ROOT, check=False).returncode == 0
    except OSError:
        return False


def run(command: list[str]) -> None:
    """Run a command in the checkout; on failure end with its own output above and one line that names it."""
    environment = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    if not os.access(Path.home(), os.W_OK):
        environment.setdefault("UV_CACHE_DIR", str(ROOT / ".uv" / "cache"))
        environment.setdefault("UV_PYTHON_INSTALL_DIR", str(ROOT / ".uv" / "python"))
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if code:
        raise SystemExit(f"setup: failed with exit code {code}: {' '.join(command)}")


def main() -> None:
    """Make the environment unless it stands already."""
    if sys.version_info < (3, 9):
        raise SystemExit("setup: Python 3.9 or later is needed to start; uv brings Python 3.12 itself")
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    uv = find_uv()
    python = str(VENV / "bin" / "python")
    run([uv, "venv", "--quiet", "--clear", "--python", (ROOT / ".python-version").read_text().strip(), str(VENV)])
    # Compiled once here: where Python is set not to keep what it compiles, every process would do it again.
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    run([*install, "--require-hashes", "-r", "requirements.lock"])
    run([*install, "--no-deps", "-e", "."])
    STAMP.write_text(wanted)
    print("setup: .venv/ is ready", flush=True)


if __name__ == "__main__":
    main()
