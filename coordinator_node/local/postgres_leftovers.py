"""What a killed Postgres leaves behind: processes that hold its shared memory for a moment, its pid file, its socket.

Postgres copes with a pid file whose process is gone. It refuses to start while processes of the former server live, and
when the pid has been given to some other process of the same user meanwhile; both are settled here, where /proc tells
(Linux). Elsewhere Postgres's own checks remain, and the supervisor tries again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from coordinator_node.local.postgres_user import EmbeddedPostgresError

PROC = Path("/proc")
PID_FILE = "postmaster.pid"
POLL_SECONDS = 0.02
# Without their server, idle processes end at once by themselves; one within a long query does not notice.
LEAVE_SECONDS = 1.0
DIE_SECONDS = 5.0


@dataclass(frozen=True)
class PidFile:
    """What a server writes into postmaster.pid; `status` is "ready" once it takes connections, empty at first."""

    pid: int | None
    socket_dir: Path
    status: str


def read_pid_file(data_dir: Path) -> PidFile:
    """The pid file of a data directory; what it does not say (any more, or yet) is None or empty."""
    try:
        lines = (data_dir / PID_FILE).read_text().splitlines()
    except FileNotFoundError:
        lines = []
    lines += [""] * (8 - len(lines))
    return PidFile(int(lines[0]) if lines[0].isdigit() else None, Path(lines[4]), lines[7].strip())


def clear(data_dir: Path, socket_prefix: str, keep: Path) -> None:
    """Wait for, and then end, the processes of a server that was killed; remove its pid file and socket folder.

    Args:
        data_dir: the server's data directory.
        socket_prefix: how the names of socket folders begin; others are never removed.
        keep: the socket folder in use now.

    Raises:
        EmbeddedPostgresError: a server runs on the data directory, or a process of a former one cannot be ended.
    """
    if not PROC.joinpath("self").exists():
        return
    former = read_pid_file(data_dir)
    if not _gone(data_dir, LEAVE_SECONDS):
        if former.pid in server_processes(data_dir):
            raise EmbeddedPostgresError(
                f"{data_dir} is in use by a Postgres with process id {former.pid}: another run of this stack? "
                "End that one first, or choose another folder"
            )
        _kill(data_dir)
    (data_dir / PID_FILE).unlink(missing_ok=True)
    if former.socket_dir != keep and former.socket_dir.name.startswith(socket_prefix):
        shutil.rmtree(former.socket_dir, ignore_errors=True)


def server_processes(data_dir: Path) -> list[int]:
    """The pids of Postgres processes that work in `data_dir` (a server and its children all do), zombies left out."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended while we looked, or belongs to a user we may not look at
            program = os.readlink(entry / "exe").removesuffix(" (deleted)")
            if Path(program).name == "postgres" and os.path.samefile(entry / "cwd", data_dir):
                found.append(int(entry.name))
    return found


def _gone(data_dir: Path, seconds: float) -> bool:
    """Whether no process works in `data_dir` any more, within so many seconds."""
    until = time.monotonic() + seconds
    while server_processes(data_dir):
        if time.monotonic() > until:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _kill(data_dir: Path) -> None:
    """End the children of a server that is gone. The next start recovers, as after any crash."""
    for pid in server_processes(data_dir):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not _gone(data_dir, DIE_SECONDS):
        raise EmbeddedPostgresError(
            f"processes {server_processes(data_dir)} of a former Postgres on {data_dir} do not end: end them by hand"
        )
