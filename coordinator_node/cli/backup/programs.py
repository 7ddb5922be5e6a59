"""Postgres's own programs: which pg_dump and pg_restore to run, and how they learn of the database."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Engine

from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.local.postgres_binaries import wheel_programs
from coordinator_node.runtime.notify import libpq_url


class ProgramError(Exception):
    """One of Postgres's programs failed; the message is what it wrote, in one line."""


@dataclass(frozen=True)
class Program:
    """A program that is installed, and the major version of the Postgres that it is of."""

    path: Path
    version: int


def find_program(name: str, at_least: int) -> Program:
    """The program of that name: the one on PATH, or that of the extra `local` where the first is missing or too old.

    Args:
        name: `pg_dump` or `pg_restore`.
        at_least: the oldest major version that will do.

    Raises:
        ConfigurationError: there is none of that version; the message says which there are.
    """
    found = list(_installed(name))
    for program in found:
        if program.version >= at_least:
            return program
    there = ", ".join(f"{program.path} is of {program.version}" for program in found) or "there is none"
    raise ConfigurationError(
        f"{name} of Postgres {at_least} or later is needed, and {there}: install Postgres's client programs"
        f" (Debian: postgresql-client-{at_least}), or pip install 'coordinator-node[local]', which brings them"
    )


def run_program(program: Program, engine: Engine, *arguments: str) -> None:
    """Run it on the engine's database, to its end.

    Raises:
        ConfigurationError: the database's address holds a secret that the program takes on its command line only.
        ProgramError: it failed.
    """
    address, secrets = connection_of(engine)
    done = subprocess.run(  # noqa: S603 - Postgres's own program, with arguments of ours
        [str(program.path), *arguments, "--no-password", f"--dbname={address}"],
        env=os.environ | secrets,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
        raise ProgramError(f"{program.path.name} failed: {said or f'it ended with {done.returncode}'}")


def connection_of(engine: Engine) -> tuple[str, dict[str, str]]:
    """Where the database is, as a program's argument without any secret, and the secrets, as variables.

    Every user of the machine sees a program's arguments; its environment only its own user does.

    Raises:
        ConfigurationError: the address holds a secret that has no variable.
    """
    parameters = conninfo_to_dict(libpq_url(engine))
    password = parameters.pop("password", None)
    if "sslpassword" in parameters:
        raise ConfigurationError("DATABASE_URL has a sslpassword, which would be seen by all: use a key without one")
    return make_conninfo("", **parameters), {} if password is None else {"PGPASSWORD": str(password)}


def _installed(name: str) -> Iterator[Program]:
    on_path = shutil.which(name)
    wheel = wheel_programs()
    for path in (Path(on_path) if on_path else None, wheel / name if wheel else None):
        if path is not None and (version := _version(path)) is not None:
            yield Program(path, version)


def _version(path: Path) -> int | None:
    """The major version that a program says it is of; None where it cannot be run."""
    try:
        asked = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 - as above
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", asked.stdout)
    return int(found[1]) if found and asked.returncode == 0 else None
