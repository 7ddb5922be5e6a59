"""A reader who does what a page says, from its first block to its last, and notes what does not work."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
import yaml
from doc_blocks import SHELLS, Block, Command, blocks_of, commands_of
from sqlalchemy import Engine
from typer.core import TyperGroup

from coordinator_node.cli.main import app
from coordinator_node.cli.older import coordinator, crunch_cli

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 120
COMMANDS = {
    name: typer.main.get_command(commands)
    for name, commands in (("coordinator-node", app), ("coordinator", coordinator), ("crunch-cli", crunch_cli))
}
# Addresses that stand for that of the reader's own API.
ADDRESSES = ("http://localhost:8000", "https://report-api.example")

# What is not run, why, and what is done in its place ("" is nothing). Its options, targets and modules must exist.
ONLY_PARSED = {
    r"make demo\b": ("runs until it is stopped; tests/local starts such stacks", ""),
    r"(\w+=\S+ )*make (deploy|down|logs)\b": ("runs containers", ""),
    r"make up\b": ("runs until it is stopped; `make verify-packs` does it", "make submissions"),
    r"make verify-e2e\b": ("needs what `make up` runs; `make verify-packs` does it", ""),
    r"make (test|lint|help|setup)\b": ("is what runs this, or tests a workspace, as tests/cli does", ""),
    r"make (validate|preflight)\b": ("doctor takes seconds; tests/cli runs it on every pack", ""),
    r"coordinator-node up\b": ("runs until it is stopped; `make verify-packs` does it", ""),
    r"coordinator-node doctor my-crunch": ("the same", ""),
    r"coordinator-node backfill .*--source binance": ("asks a venue", ""),
    r"DATABASE_URL=\S+ coordinator-node restore\b": ("needs a second database; tests/db restores into one", ""),
    r"python -m coordinator_node\.workers\.": ("runs until it is stopped; tests/workers does it", ""),
    r"(docker|kubectl|uv)\b": ("another's program", ""),
    r"pip install\b": ("needs a package index; `make verify-packs` installs", ""),
}
OTHERS = ("docker", "kubectl", "pip", "python", "uv")
PLAIN = (".", "cd", "cp", "curl", "echo", "export", "mkdir", "rm", "set")
DATA = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
# Each line is given to a shell of its own; this hands its folder and variables on to the next.
HAND_ON = '{text}\npwd > "$HANDED_ON.pwd"; env -0 > "$HANDED_ON.env"\n'


@dataclass
class Reader:
    """Does what pages say in a folder of its own.

    Attributes:
        folder: where it is.
        competition: makes the database and the API that are asked, the first time a page needs them.
        environment: its variables.
        problems: what did not work, a line each.
    """

    folder: Path
    competition: Callable[[], tuple[Engine, str]]
    environment: dict[str, str]
    problems: list[str] = field(default_factory=list)
    _made: tuple[Engine, str] | None = None
    _names: dict[str, Any] = field(default_factory=dict)

    def read(self, page: Path) -> None:
        """Do all that a page says."""
        self._names = {"__name__": "a_page"}
        for block in blocks_of(page):
            does = {"python": self._python, "sql": self._sql, **DATA}
            if block.language in SHELLS:
                for command in commands_of(block):
                    self._noting(page, command.line, command.text, self._shell, command)
            elif block.language in does:
                given = block if block.language == "python" else block.text
                self._noting(page, block.line, block.language, does[block.language], given)
            elif block.language:
                self.problems.append(f"{page.name}:{block.line}: nothing is known of blocks of {block.language!r}")

    def _noting(self, page: Path, line: int, what: str, does: Callable[..., object], given: object) -> None:
        try:
            does(given)
        except (Exception, SystemExit) as error:  # whatever a page's code raises is a problem of the page
            self.problems.append(f"{page.name}:{line}: {what}: {type(error).__name__}: {error}")

    def _url(self) -> str:
        if self._made is None:
            self._made = self.competition()
            engine, url = self._made
            self.environment["DATABASE_URL"] = engine.url.render_as_string(hide_password=False)
            self.environment["API"] = url
            with engine.connect() as connection:
                newest = "SELECT id FROM checkpoints ORDER BY period_end DESC LIMIT 1"
                self.environment["ID"] = connection.exec_driver_sql(newest).scalar_one()
        return self._made[1]

    def _here(self, text: str) -> str:
        """The text with this API's address in place of the page's."""
        for address in ADDRESSES:
            if address in text:
                text = text.replace(address, self._url())
        return text

    def _python(self, block: Block) -> None:
        """Write it where it says it belongs, and run it after the page's other blocks, as a notebook would."""
        text = self._here(block.text)
        path = self.folder / (block.file or "a_page.py")
        if block.file:
            if not path.parent.is_dir():
                raise FileNotFoundError(f"nothing on the page has made the folder of {block.file}")
            path.write_text(text, encoding="utf-8")
        before = set(sys.modules)
        sys.path[:0] = [str(path.parent), str(self.folder)]
        try:
            with contextlib.chdir(self.folder):
                exec(compile(text, str(path), "exec"), self._names)
        finally:
            del sys.path[:2]
            for name in set(sys.modules) - before:
                if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(self.folder)):
                    del sys.modules[name]

    def _sql(self, text: str) -> None:
        self._url()
        assert self._made
        with self._made[0].connect() as connection:
            connection.exec_driver_sql(text)

    def _shell(self, command: Command) -> None:
        for part in command.parts():
            check(part, self.folder)
        text = _in_place_of(command.text)
        if re.search(r"coordinator-node (migrate|payout|rescore|backup)|make check-models", text):
            self._url()
        if text:
            self._run(self._here(text))

    def _run(self, text: str) -> None:
        done = subprocess.run(
            ["sh", "-ec", HAND_ON.format(text=text)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
        handed_on = Path(self.environment["HANDED_ON"])
        self.folder = Path(handed_on.with_suffix(".pwd").read_text().rstrip("\n"))
        variables = handed_on.with_suffix(".env").read_text().rstrip("\0").split("\0")
        self.environment = dict(variable.split("=", 1) for variable in variables)


def _in_place_of(text: str) -> str:
    """What is run for a command: itself, or what ONLY_PARSED says."""
    for pattern, (_, instead) in ONLY_PARSED.items():
        if re.match(pattern, text.partition("#")[0].strip()):
            return instead
    return text


def check(words: list[str], folder: Path) -> None:
    """See that a command can be given as it is written.

    Raises:
        Exception: it cannot; the message says why.
    """
    words = words[next((place for place, word in enumerate(words) if "=" not in word), 0) :]
    name, *arguments = words
    if name in COMMANDS:
        _check_options(name, arguments)
    elif name == "make":
        _check_targets(arguments, folder)
    elif name in ("python", "python3") and arguments[0] == "-m":
        if importlib.util.find_spec(arguments[1]) is None:
            raise ValueError(f"there is no module {arguments[1]}")
    elif name not in (*PLAIN, *OTHERS):
        raise ValueError(
            f"nothing is known of the program {name}: see PLAIN, OTHERS, ONLY_PARSED of tests/docs/doc_cases.py"
        )


def _check_options(name: str, arguments: list[str]) -> None:
    """Parse as the command itself does, without doing it."""
    group = COMMANDS[name]
    assert isinstance(group, TyperGroup)
    context = group.make_context(name, list(arguments))
    _, command, rest = group.resolve_command(context, list(arguments))
    assert command is not None
    command.make_context(arguments[0], rest, parent=context)


def _check_targets(arguments: list[str], folder: Path) -> None:
    """What make would do, of the folder or else of the checkout; the options of our own commands in it are parsed."""
    for place in (folder, ROOT):
        planned = subprocess.run(["make", "-n", *arguments], cwd=place, capture_output=True, text=True, check=False)
        if planned.returncode == 0:
            break
    else:
        raise ValueError(planned.stderr)
    for line in planned.stdout.splitlines():
        found = re.search(r"(?:^|/|; )(coordinator-node) (.*)", line)
        if found:
            _check_options(found[1], next(iter(Command(found[2], 0).parts()), []))


def environment(home: Path) -> dict[str, str]:
    """A terminal's variables: this environment's commands, a curl that minds errors, and no settings."""
    home.mkdir()
    (home / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FEED_", "API_", "PYTEST_"))}
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    own = {"CURL_HOME": str(home), "HANDED_ON": str(home / "terminal"), "NO_COLOR": "1"}
    return {**kept, **own, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
