"""A workspace run as an operator would, by `coordinator-node up` or worker by worker, and asked by its API."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from coordinator_node.local.stack import MODULES, free_port

WORKSPACES = Path(__file__).parents[1] / "workspaces"
COMMAND = Path(sys.executable).with_name("coordinator-node")
# What a busy machine may need; none of it is waited for on one that works.
PATIENCE_SECONDS = 120.0
END_SECONDS = 30.0


@contextmanager
def copied(name: str) -> Iterator[Path]:
    """A workspace in a folder of its own, with its settings where an operator puts them."""
    # Not in pytest's folder: that is closed to the database's user when root runs the tests.
    with tempfile.TemporaryDirectory(prefix="coordinator-workspace-") as folder:
        Path(folder).chmod(0o755)
        target = Path(folder) / name
        shutil.copytree(WORKSPACES / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        for example in target.rglob(".local.env.example"):
            shutil.copy(example, example.with_name(".local.env"))
        yield target


class Stack:
    """The processes of a workspace, which all write into one file. `output` is what that holds in the end."""

    def __init__(self, url: str, key: str, written: Path) -> None:
        self.output = ""
        self._url = url
        self._key = key
        self._written = written
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Where the API answers."""
        return self._url

    def start(self, name: str, command: Sequence[str | Path], node: Path, environment: Mapping[str, str]) -> None:
        """Start a process in the node's folder."""
        with self._written.open("ab") as output:
            self._processes[name] = subprocess.Popen(
                list(map(str, command)), env=environment, cwd=node, stdout=output, stderr=subprocess.STDOUT
            )

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer; 0 and None while nobody answers. With a body it is posted."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "X-API-Key": self._key}
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url + path, data, headers), timeout=15) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or "null")
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return 0, None

    def get(self, path: str) -> Any:
        """The JSON of an answer that must be a success."""
        return self._success(path, *self.ask(path))

    def post(self, path: str, body: Any) -> Any:
        """Likewise of a request with a body."""
        return self._success(path, *self.ask(path, body))

    def until(self, path: str, true: Callable[[Any], Any]) -> Any:
        """Ask until an answer is as wanted; returns it."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            status, answer = self.ask(path)
            if status == 200 and true(answer):
                return answer
            ended = {name: code for name, one in self._processes.items() if (code := one.poll()) is not None}
            assert not ended, f"ended by themselves: {ended}\n{self._written.read_text()}"
            assert time.monotonic() < give_up_at, f"{path} still says {status} {answer}\n{self._written.read_text()}"
            time.sleep(0.1)

    def end(self, signal_number: int) -> dict[str, int]:
        """Send all of them a signal; returns their exit codes."""
        for process in self._processes.values():
            process.send_signal(signal_number)
        return {name: process.wait(END_SECONDS) for name, process in self._processes.items()}

    def findings(self) -> list[str]:
        """What the workers' checks at their start, which are doctor's, said of the workspace."""
        return [line for line in self.output.splitlines() if "coordinator_node.services.checks" in line]

    def close(self) -> None:
        """Leave nothing running behind."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        self.output = self._written.read_text()

    def _success(self, path: str, status: int, answer: Any) -> Any:
        assert 200 <= status < 300, f"{path}: {status} {answer}\n{self._written.read_text()}"
        return answer


@contextmanager
def up(node: Path, python_path: Sequence[Path]) -> Iterator[Stack]:
    """`coordinator-node up` on a node's folder; `python_path` is where its packages are installed."""
    port = free_port()
    with _stack(port) as stack:
        stack.start("up", [COMMAND, "up", node, "--port", str(port)], node, _environment(python_path))
        yield stack


@contextmanager
def workers(
    node: Path, python_path: Sequence[Path], models: Path, database_url: str, names: Sequence[str], key: str = ""
) -> Iterator[Stack]:
    """Some of the workers, with the settings of the node's .local.env, on a database of the newest schema."""
    ports = free_port(), free_port()
    environment = {
        **settings_of(node, python_path),
        "DATABASE_URL": database_url,
        "REPORT_API_HOST": "127.0.0.1",
        "REPORT_API_PORT": str(ports[0]),
        "MODEL_RUNNER_NODE_HOST": "127.0.0.1",
        "MODEL_RUNNER_NODE_PORT": str(ports[1]),
        "LOG_FORMAT": "text",
        "LOG_LEVEL": "WARNING",
    }
    module = [sys.executable, "-m"]
    orchestrator = [*module, "coordinator_node.local.orchestrator", "--submissions", models, "--port", str(ports[1])]
    orchestrator += ["--crunch-id", environment["CRUNCH_ID"], "--cache", node / ".coordinator"]
    with _stack(ports[0], key) as stack:
        stack.start("orchestrator", orchestrator, node, environment)
        for name in names:
            stack.start(name, [*module, f"coordinator_node.workers.{MODULES[name]}"], node, environment)
        yield stack


def run(node: Path, environment: Mapping[str, str], *arguments: object) -> str:
    """What Python prints in a node's folder."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=node, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def settings_of(node: Path, python_path: Sequence[Path]) -> dict[str, str]:
    """The environment of a process that is given a node's .local.env, as containers are."""
    given = {name: value for name, value in dotenv_values(node / ".local.env").items() if value}
    return {**_environment(python_path), **given}


@contextmanager
def _stack(port: int, key: str = "") -> Iterator[Stack]:
    with tempfile.NamedTemporaryFile() as output:
        stack = Stack(f"http://127.0.0.1:{port}", key, Path(output.name))
        try:
            yield stack
        finally:
            stack.close()


def _environment(python_path: Sequence[Path]) -> dict[str, str]:
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(map(str, python_path))}
    # A dozen processes would each compile what they import.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


INTERRUPT, TERMINATE = signal.SIGINT, signal.SIGTERM
