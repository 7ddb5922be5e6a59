"""Play every pack as its users do: outside the checkout, from the built wheel, in fresh environments.

For each pack: `init`, its challenge installed on its own with its tests, `make validate`; `make up` for a minute, its
API behind a key, with `make verify-e2e` beside it; and once more, with `make preflight` and `make init-db`.
`python scripts/verify_packs.py [PACK…]`; exit code 0 if all of it passed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV_BIN = ROOT / ".venv" / "bin"
UV = VENV_BIN / "uv"
# The one that .venv/ was made from, by its own path: a version manager's shim answers by the folder it is called in.
BASE_PYTHON = str(Path(sys.executable).resolve())
RUN_SECONDS = 60
# For one command; the longest runs a minute and drains.
PATIENCE_SECONDS = 600
POLL_SECONDS = 0.2

# What would lead back to the checkout, or change what is run.
FOREIGN_PREFIXES = ("ARGS", "PYTHON", "VIRTUAL_ENV", "FEED_", "API_", "POSTGRES_", "DATABASE_", "MAKE", "MFLAGS")


class CommandFailedError(Exception):
    """A command ended with another code than 0."""


class Environment:
    """A fresh virtual environment, and the variables of a terminal in which it is active."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_PREFIXES)}
        # Of the checkout's own environment nothing must be found.
        path = [entry for entry in os.environ["PATH"].split(os.pathsep) if Path(entry) != VENV_BIN]
        self.variables["PATH"] = os.pathsep.join([str(self.bin), *path])
        run([str(UV), "venv", "--quiet", "--python", BASE_PYTHON, str(folder)], folder.parent, self.variables)

    def install(self, wheels: Path, *what: str) -> None:
        """Install packages, this project's from the folder of its wheel."""
        python = str(self.bin / "python")
        command = [str(UV), "pip", "install", "--quiet", "--python", python, "--find-links", str(wheels), *what]
        run(command, wheels, self.variables)


def run(command: list[str], cwd: Path, variables: dict[str, str]) -> str:
    """Run a command to its end; returns what it printed, or raises CommandFailedError with it."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise CommandFailedError(f"{done.stdout}\nexit code {done.returncode}: {' '.join(command)}")
    return done.stdout


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def play(workspace: Path, variables: dict[str, str]) -> str:
    """Run the workspace's competition for a minute with `verify-e2e` beside it; returns what both printed."""
    port = free_port()
    log = workspace / "up.log"
    up = ["make", "up", f"ARGS=--seconds {RUN_SECONDS} --port {port}"]
    with log.open("w") as output:
        stack = subprocess.Popen(up, cwd=workspace, env=variables, stdout=output, stderr=subprocess.STDOUT)
        try:
            seen = run(["make", "verify-e2e", f"API=http://127.0.0.1:{port}"], workspace, variables)
            code = stack.wait(PATIENCE_SECONDS)
        except CommandFailedError as failed:
            raise CommandFailedError(f"{log.read_text()}\n{failed}") from None
        finally:
            if stack.poll() is None:
                stack.terminate()
                stack.wait(PATIENCE_SECONDS)
    if code:
        raise CommandFailedError(f"{log.read_text()}\nexit code {code}: {' '.join(up)}")
    return log.read_text()[-3000:] + seen


def ask_beside(workspace: Path, variables: dict[str, str]) -> str:
    """Run the competition again for as long as doctor and the migration take beside it; returns what these printed."""
    running = workspace / "node" / ".coordinator" / "running.env"
    log = workspace / "up-again.log"
    with log.open("w") as output:
        up = ["make", "up", f"ARGS=--port {free_port()}"]
        stack = subprocess.Popen(up, cwd=workspace, env=variables, stdout=output, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + PATIENCE_SECONDS
            while not running.exists():
                if stack.poll() is not None or time.monotonic() > until:
                    raise CommandFailedError(f"{log.read_text()}\nit did not start: {' '.join(up)}")
                time.sleep(POLL_SECONDS)
            said = "".join(run(["make", target], workspace, variables) for target in ("preflight", "init-db"))
            # The supervisor itself: make would end before it has drained.
            os.kill(int(running.read_text().partition("UP_PID=")[2].partition("\n")[0]), signal.SIGTERM)
            stack.wait(PATIENCE_SECONDS)
            return said
        finally:
            if stack.poll() is None:
                stack.terminate()
                stack.wait(PATIENCE_SECONDS)


def verify(pack: str, wheels: Path, operator: Environment) -> None:
    """Everything for one pack, in a folder that is removed at the end."""
    name = f"my-{pack}"
    with tempfile.TemporaryDirectory(prefix="verify-pack-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # an embedded Postgres that root starts runs as another user
        run(["coordinator-node", "init", name, "--pack", pack], folder, operator.variables)
        workspace = folder / name
        cruncher = Environment(folder / "cruncher")
        cruncher.install(wheels, "-e", f"{workspace / 'challenge'}[test]")
        tested = run(["make", "test", "ARGS=-q"], workspace, cruncher.variables)
        print(f"{pack}: challenge installed on its own, its tests: {tested.splitlines()[-1]}", flush=True)
        run(["make", "validate"], workspace, operator.variables)
        print(f"{pack}: doctor has nothing to say against it", flush=True)
        with (workspace / "node" / ".local.env").open("a") as settings:
            settings.write("API_KEY=a-key\nAPI_READ_AUTH=true\n")
        print(play(workspace, operator.variables), flush=True)
        print(ask_beside(workspace, operator.variables), flush=True)
        print(f"{pack}: passed", flush=True)


def main(names: list[str]) -> int:
    """Verify the packs named, or all; returns the exit code."""
    packs = names or sorted(file.parent.name for file in ROOT.glob("packs/*/pack.toml"))
    with tempfile.TemporaryDirectory(prefix="verify-packs-") as made:
        wheels = Path(made) / "dist"
        run([str(UV), "build", "--quiet", "--out-dir", str(wheels)], ROOT, dict(os.environ))
        operator = Environment(Path(made) / "operator")
        (wheel,) = wheels.glob("*.whl")
        operator.install(wheels, f"{wheel}[local]")
        where = run(["python", "-c", "import coordinator_node as c; print(c.__file__)"], Path(made), operator.variables)
        print(f"{wheel.name} is installed in {Path(where.strip()).parent}", flush=True)
        failed = []
        for pack in packs:
            try:
                verify(pack, wheels, operator)
            except (CommandFailedError, subprocess.TimeoutExpired) as error:
                print(f"{error}\n{pack}: FAILED", file=sys.stderr, flush=True)
                failed.append(pack)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
