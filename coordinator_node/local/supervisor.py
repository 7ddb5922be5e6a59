"""The supervisor of the local stack: starts programs, prints their output, restarts and drains them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from coordinator_node.local.backoff import Backoff
from coordinator_node.local.output import Output
from coordinator_node.local.process import CannotStartError, ChildProcess, Program, describe_exit

__all__ = ["CannotStartError", "Program", "Supervisor"]

NAME = "supervisor"


class Supervisor:
    """Runs programs by name. As a context manager it leaves nothing running behind, however it is left.

    A program that ends by itself is started again after a pause that grows (see Backoff), unless its `restart` is
    False; then a code other than 0 is printed and kept in `failures`.
    """

    def __init__(self, output: Output | None = None) -> None:
        self.output = output or Output()
        self.failures: dict[str, str] = {}
        self._slots: dict[str, _Slot] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop(*([name] for name in reversed(self._slots)))
        finally:
            # Reached with children alive only if the draining itself was cut short, as by a second Ctrl-C.
            for slot in self._slots.values():
                slot.kill()

    @property
    def programs(self) -> Mapping[str, Program]:
        """The programs that were started, in that order, by name; those that have ended too."""
        return {name: slot.program for name, slot in self._slots.items()}

    def pid(self, name: str) -> int | None:
        """The process id of a program, or None while it is not running (between two starts, or ended)."""
        child = self._slots[name].child
        return child.pid if child else None

    async def start(self, program: Program) -> int:
        """Start a program; returns its process id.

        Raises:
            CannotStartError: it cannot be run at all. It is then not tried again.
            ValueError: a program of this name has not ended yet.
        """
        running = self._slots.get(program.name)
        if running is not None and not running.task.done():
            raise ValueError(f"a program named {program.name!r} is running already")
        child = await ChildProcess.start(program, self.output)
        self.failures.pop(program.name, None)
        self._slots.pop(program.name, None)
        self._slots[program.name] = _Slot(self, program, child)
        return child.pid

    async def stop(self, *groups: Iterable[str]) -> None:
        """End groups of programs, one group after the other, the members of a group at once.

        Each is sent its stop signal, and killed with its whole group of processes after its `stop_seconds`. A program
        that has ended already, or was never started, is passed over.
        """
        for group in groups:
            await asyncio.gather(*(self._slots[name].stop() for name in group if name in self._slots))

    async def wait_for(self, *names: str) -> dict[str, int]:
        """Wait until the named programs have ended and will not be started again; their exit codes by name.

        A negative code is the signal that ended the program.
        """
        codes = await asyncio.gather(*(asyncio.shield(self._slots[name].task) for name in names))
        return dict(zip(names, codes, strict=True))

    def say(self, text: str, style: str = "") -> None:
        """Print a line of the supervisor's own."""
        self.output.line(NAME, text, style)


class _Slot:
    """One program and the process that runs it at present."""

    def __init__(self, supervisor: Supervisor, program: Program, child: ChildProcess) -> None:
        self.program = program
        self.child: ChildProcess | None = child
        self._supervisor = supervisor
        self._stopping = asyncio.Event()
        self.task = asyncio.create_task(self._keep(child))

    async def stop(self) -> None:
        self._stopping.set()
        if self.child is not None:
            await self.child.stop()
        await asyncio.shield(self.task)

    def kill(self) -> None:
        self._stopping.set()
        if self.child is not None:
            self.child.kill()

    async def _keep(self, child: ChildProcess | None) -> int:
        """Wait for the program's end, again and again while it is to be restarted; returns the last exit code."""
        clock = asyncio.get_running_loop().time
        backoff = Backoff()
        code = 1
        while True:
            started = clock()
            if child is not None:
                code = await child.wait()
                self.child = None
            if self._stopping.is_set():
                return code
            if not self.program.restart:
                self._report_end(code)
                return code
            pause = backoff.after(clock() - started)
            if child is not None:
                self._say(f"{describe_exit(code)}; starting it again in {pause:g} s", "yellow")
            if await self._stopped_within(pause):
                return code
            child = await self._start_again()

    async def _start_again(self) -> ChildProcess | None:
        try:
            child = await ChildProcess.start(self.program, self._supervisor.output)
        except (CannotStartError, OSError) as error:
            self._supervisor.say(f"{error}; trying again", "bold red")
            return None
        self.child = child
        if self._stopping.is_set():  # asked to stop while it was being started, when there was nothing to signal yet
            await child.stop()
        return child

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _report_end(self, code: int) -> None:
        if code == 0:
            return
        self._supervisor.failures[self.program.name] = describe_exit(code)
        self._say(f"{describe_exit(code)}; its own lines above say why", "bold red")

    def _say(self, text: str, style: str) -> None:
        self._supervisor.say(f"{self.program.name} {text}", style)
