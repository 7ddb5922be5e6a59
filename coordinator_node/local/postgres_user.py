"""The user that the embedded Postgres runs as, and places that this user can reach.

Postgres refuses to run as root. Root's server runs as an unprivileged user, who may be kept out by a folder anywhere
above the data or the programs (a private home, most often). Such folders are left as they are: what the user cannot
reach is kept in a place where it can.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
import subprocess
import tempfile
from pathlib import Path

from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

# Survives a reboot, unlike /tmp, and every user can reach it.
SHARED_PLACE = Path("/var/tmp")  # noqa: S108 - what is made here is checked for its owner before it is used


class EmbeddedPostgresError(RuntimeError):
    """The embedded Postgres cannot be used; the message says why and what to do."""


def user_and_place(asked_for: Path) -> tuple[str | None, Path]:
    """The user to run as (None: ourselves) and the folder for the data, which is `asked_for` if that user can have it.

    As root, the user is the owner of data that exists already, else `postgres`, else `nobody`.
    """
    if os.geteuid() != 0:
        return None, asked_for
    asked_for.parent.mkdir(parents=True, exist_ok=True)
    owner = _owner_of_data(asked_for)
    if owner is not None and can_enter(owner, asked_for):
        return owner, asked_for
    user = unprivileged_user()
    if can_enter(user, asked_for.parent) and _can_be_given(asked_for, user):
        return user, asked_for
    place = shared_place(str(asked_for)) / "data"
    log.warning(
        "the database is kept elsewhere, because the user it runs as cannot reach the folder asked for",
        user=user,
        asked_for=str(asked_for),
        kept_in=str(place),
    )
    return user, place


def unprivileged_user() -> str:
    """The user that a server of root's runs as."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise EmbeddedPostgresError(
        "Postgres refuses to run as root, and this machine has neither a user postgres nor a user nobody: "
        "run this as an ordinary user"
    )


def run_as(
    user: str | None, argv: list[str], *, text_input: str = "", check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end as `user` (None: as ourselves), in a folder that everyone can reach.

    Raises:
        EmbeddedPostgresError: with what the command wrote, if it failed and `check` is set.
    """
    account = pwd.getpwnam(user) if user else None
    done = subprocess.run(  # noqa: S603 - programs of the wheel and the system, with arguments of our own
        argv,
        input=text_input,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=os.getgrouplist(account.pw_name, account.pw_gid) if account else None,
    )
    if check and done.returncode:
        raise EmbeddedPostgresError(f"{Path(argv[0]).name} failed: {(done.stderr or done.stdout).strip()}")
    return done


def can_run(user: str, program: Path) -> bool:
    """Whether `user` can execute the program. Tried, not computed: modes do not tell all (ACLs, network disks)."""
    try:
        return run_as(user, [str(program), "--version"], check=False).returncode == 0
    except OSError:
        return False


def can_enter(user: str, folder: Path) -> bool:
    """Whether `user` can enter the folder; tried, too."""
    return run_as(user, ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)], check=False).returncode == 0


def give(folder: Path, user: str) -> None:
    """Make `user` the owner of the folder and all that is in it."""
    account = pwd.getpwnam(user)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def shared_place(key: str) -> Path:
    """A folder of ours in SHARED_PLACE, the same one for the same key; others may look into it but not write.

    Raises:
        EmbeddedPostgresError: something of this name is there and is not ours.
    """
    folder = SHARED_PLACE / f"coordinator-node-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder.mkdir(mode=0o755, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EmbeddedPostgresError(f"{folder} exists and is not a folder that only this user can write to: remove it")
    folder.chmod(0o755)  # a strict umask would keep the server's user out
    return folder


def _owner_of_data(folder: Path) -> str | None:
    """Who owns the database in `folder`; None if there is none yet, or root has taken it over."""
    if not (folder / "PG_VERSION").exists():
        return None
    number = folder.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name if number else None
    except KeyError:
        raise EmbeddedPostgresError(
            f"{folder} belongs to user id {number}, which is no user of this machine: chown it to one"
        ) from None


def _can_be_given(folder: Path, user: str) -> bool:
    """Whether the folder, or one made in its place, can belong to `user` (some network and shared disks refuse)."""
    try:
        if (folder / "PG_VERSION").exists():
            give(folder, user)
        else:
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".owner-") as probe:
                give(Path(probe), user)
    except OSError:
        return False
    return True
