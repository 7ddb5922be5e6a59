"""Become another program: `python launch.py PARENT USER PROGRAM [ARGUMENT…]`, run by its path, with nothing but stdlib.

Every child of the local stack starts through this file, because three things must be done in the child itself, between
fork and exec, where a program with threads must not run Python code:

- PROGRAM is a path. It is not looked for, since after a change of user Python may not be able to read its own library.
- On Linux the child asks to be killed when its parent dies, so that `kill -9` of the supervisor leaves nothing behind.
  Other systems know no such wish: there, children outlive a supervisor that is killed with -9 (and only then).
- The child changes to USER (empty: it does not). The wish above must come after this, since the kernel forgets it then.
- PARENT is the pid that the child expects as its parent; if it died before the wish was made, the child ends at once.

The kernel takes the end of the *thread* that started the child for the parent's death: start children from a thread
that lives as long as they should.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys

PR_SET_PDEATHSIG = 1

NOT_EXECUTABLE = 126
NOT_FOUND = 127


def become_user(name: str) -> None:
    """Change to the user called `name`, with that user's groups, for good."""
    account = pwd.getpwnam(name)
    os.initgroups(name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(0)


def main(arguments: list[str]) -> None:
    """Replace this process with the program; returns only by raising SystemExit, with the shells' exit codes."""
    parent, user, *program = arguments
    try:
        if user:
            become_user(user)
        die_with_parent(int(parent))
        os.execv(program[0], program)  # noqa: S606 - the whole purpose: no shell, an argument list from the supervisor
    except OSError as error:
        print(f"{program[0]} cannot be run: {error.strerror}", file=sys.stderr)  # noqa: T201 - goes to the program's output
        raise SystemExit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE) from None


if __name__ == "__main__":
    main(sys.argv[1:])
