"""A dump into a server that is older than pg_restore, which would ask it for a setting that it does not know."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from sqlalchemy import Engine

from coordinator_node.cli.backup.programs import Program, ProgramError, connection_of, find_program

FIRST_WITH_TRANSACTION_TIMEOUT = 17
"""The first version of Postgres whose pg_restore begins by setting transaction_timeout, and whose server knows it."""

_SETTING = b"SET transaction_timeout = 0;\n"


def needs_script(program: Program, server: int) -> bool:
    """Whether a server of that major version would refuse what this pg_restore says to it first."""
    return server < FIRST_WITH_TRANSACTION_TIMEOUT <= program.version


def restore_by_script(program: Program, engine: Engine, dump: Path, *arguments: str) -> None:
    """What `run_program` does, but by a script without that setting, which psql runs as it is written.

    `arguments` must hold --single-transaction: the script then ends with COMMIT, so that of one that breaks off nothing
    stays.

    Raises:
        ConfigurationError: there is no psql of pg_restore's version, or the address holds a secret without a variable.
        ProgramError: one of the two failed.
    """
    psql = find_program("psql", program.version)
    address, secrets = connection_of(engine)
    script = [str(program.path), *arguments, "--file=-", str(dump)]
    run = [str(psql.path), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--no-password", f"--dbname={address}"]
    with (
        tempfile.TemporaryFile() as told,
        subprocess.Popen(script, stdout=subprocess.PIPE, stderr=told) as writing,  # noqa: S603 - Postgres's own program
        subprocess.Popen(  # noqa: S603 - Postgres's own program
            run, env=os.environ | secrets, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=told
        ) as running,
    ):
        try:
            _hand_over(writing.stdout, running.stdin)
        except BrokenPipeError:
            writing.terminate()  # psql has ended, and said why
        codes = (running.wait(), writing.wait())
        told.seek(0)
        said = "; ".join(line.strip() for line in told.read().decode(errors="replace").splitlines() if line.strip())
    if any(codes):
        raise ProgramError(f"psql or pg_restore failed: {said or f'they ended with {codes}'}")


def _hand_over(script: IO[bytes] | None, psql: IO[bytes] | None) -> None:
    if script is None or psql is None:
        raise TypeError("both ends must be pipes")
    with psql:
        for line in script:
            if line == _SETTING:  # in the script's first lines, long before any row
                break
            psql.write(line)
        shutil.copyfileobj(script, psql)
