"""One child process: started in a session of its own, its output printed line by line, its whole group ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from coordinator_node.local.output import LineSplitter, Output

LAUNCHER = Path(__file__).with_name("launch.py")
# What a grandchild that left the group may still hold open is not waited for longer.
LAST_OUTPUT_SECONDS = 1.0
READ_BYTES = 65536


class CannotStartError(RuntimeError):
    """A program cannot be started at all; the message names it and says why."""


@dataclass(frozen=True)
class Program:
    """What to run, and how to start and end it.

    Attributes:
        name: unique; stands before each line of its output.
        argv: the command and its arguments; the command is a path or is looked for on PATH.
        env: variables added to the supervisor's own environment; None takes one away.
        cwd: the folder it runs in; None is the supervisor's.
        user: the user it runs as (only root can change to another); None is the supervisor's.
        restart: whether it is started again when it ends by itself.
        stop_signal: what asks it to end.
        stop_seconds: how long it may take to end before it is killed.
        before_start: called in a thread before each start; an OSError or RuntimeError of it is a failed start.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str | None] | None = None
    cwd: Path | None = None
    user: str | None = None
    restart: bool = True
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    before_start: Callable[[], None] | None = None


def environment_of(program: Program) -> dict[str, str]:
    """The whole environment that the program will see."""
    merged: dict[str, str | None] = {**os.environ, **(program.env or {})}
    return {name: value for name, value in merged.items() if value is not None}


def launch_command(argv: Sequence[str], user: str | None) -> list[str]:
    """The command that becomes `argv`, whose first is a path, as `user`, and dies with this process (see launch.py)."""
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), user or "", *argv]


def describe_exit(code: int) -> str:
    """An exit code as words; a negative one is the signal that ended the process."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def signal_group(leader: int, signal_number: signal.Signals) -> None:
    """Send a signal to all that is left of the group that `leader` leads or led."""
    # macOS answers "not permitted" for a group of which only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal_number)


def _check(program: Program, environment: Mapping[str, str]) -> str:
    """The absolute path of the program's command, or CannotStartError with what stands in its way."""
    if program.cwd is not None and not program.cwd.is_dir():
        raise CannotStartError(f"{program.name} cannot be started: its working folder {program.cwd} does not exist")
    if program.user is not None:
        _check_user(program.name, program.user)
    command = shutil.which(program.argv[0], path=environment.get("PATH"))
    if command is None:
        raise CannotStartError(
            f"{program.name} cannot be started: {program.argv[0]} is not an executable file, nor one on PATH"
        )
    return os.path.abspath(command)


def _check_user(name: str, user: str) -> None:
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise CannotStartError(f"{name} cannot be started: there is no user {user!r} on this machine") from None
    if os.geteuid() not in (0, account.pw_uid):
        raise CannotStartError(f"{name} cannot be started as user {user!r}: only root can change to another user")


class ChildProcess:
    """A running program. Use `start`; `wait` returns when it and its group have ended and its output is printed."""

    def __init__(self, program: Program, process: Process, lines: asyncio.Task[None]) -> None:
        self.program = program
        self.pid = process.pid
        self._process = process
        self._lines = lines
        self._ended = asyncio.create_task(self._end())

    @classmethod
    async def start(cls, program: Program, output: Output) -> Self:
        """Start the program in a session of its own, so that Ctrl-C in the terminal does not reach it.

        Raises:
            CannotStartError: the command, the folder or the user does not exist, or `before_start` failed.
        """
        environment = environment_of(program)
        command = _check(program, environment)
        if program.before_start is not None:
            try:
                await asyncio.to_thread(program.before_start)
            except (OSError, RuntimeError) as error:
                raise CannotStartError(f"{program.name} cannot be started: {error}") from error
        # A pipe of our own: asyncio counts a process with pipes as running until everyone has closed them, and
        # grandchildren that inherited them may stay.
        read_end, write_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *launch_command([command, *program.argv[1:]], program.user),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                env=environment,
                cwd=program.cwd,
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        return cls(program, process, asyncio.create_task(_print_lines(read_end, program.name, output)))

    async def wait(self) -> int:
        """Wait for the end; returns the exit code, or the negative number of the signal that ended the program."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> int:
        """Ask the program to end, kill its whole group if it takes longer than it may; returns as `wait` does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self.program.stop_signal)
        try:
            return await asyncio.wait_for(self.wait(), self.program.stop_seconds)
        except TimeoutError:
            self.kill()
            return await self.wait()

    def kill(self) -> None:
        """End the whole group at once."""
        if not self._ended.done():
            signal_group(self.pid, signal.SIGKILL)

    async def _end(self) -> int:
        code = await self._process.wait()
        signal_group(self.pid, signal.SIGKILL)
        await asyncio.wait([self._lines], timeout=LAST_OUTPUT_SECONDS)
        self._lines.cancel()
        await asyncio.gather(self._lines, return_exceptions=True)
        return code


async def _print_lines(read_end: int, name: str, output: Output) -> None:
    """Print what comes out of a pipe until it is closed."""
    splitter = LineSplitter()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    try:
        while data := await reader.read(READ_BYTES):
            for line in splitter.feed(data):
                output.line(name, line)
        for line in splitter.end():
            output.line(name, line)
    finally:
        transport.close()
