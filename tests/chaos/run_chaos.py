"""`make chaos`: plays every fault on a running stack, and looks at every row after each.

A fault passes when every part of the stack works again without help, and every rule of tests/invariants.py holds once
what was asked is scored, counted and paid. ARGS="--only clock" plays those whose name holds a text, --list names them.
Several stacks run side by side. Exit code 1 if a fault failed, 0 if none did, 130 after Ctrl-C, which ends the stacks
and prints what was played; what cannot be played on this machine is named with what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos_faults import VENUE_GONE_SECONDS, Fault, all_faults
from chaos_settings import SETTINGS, NotHereError
from chaos_stack import ChaosStack, FaultError, running
from invariants import check_all

SHOWN_LINES = 40
ENDED_BY_CTRL_C = 130


@dataclass(frozen=True)
class Outcome:
    """What came of a fault; `problem` is empty where it passed. None of the figures of one that was not played."""

    name: str
    problem: str = ""
    skipped: str = ""
    fault_seconds: float | None = None
    recovery_seconds: float | None = None
    rows: int | None = None

    @property
    def verdict(self) -> str:
        """What the report says of it."""
        if self.problem:
            return f"FAILED: {self.problem}"
        return f"skipped: {self.skipped}" if self.skipped else "passed"


async def play(fault: Fault, stack: ChaosStack, extra: Any) -> Outcome:
    """Play one fault on a stack that works, and leave it working.

    Raises:
        FaultError: it did not recover, or a rule does not hold; the stack is worthless afterwards.
    """
    begun = time.monotonic()
    try:
        await fault.play(stack, extra)
    except NotHereError as error:
        return Outcome(fault.name, skipped=str(error))
    played = time.monotonic()
    recovery = await stack.recovered(await stack.now())
    await stack.settle()
    checked = await asyncio.to_thread(check_all, stack.engine)
    if checked.broken:
        raise FaultError("; ".join(f"{rule}: {rows}" for rule, rows in checked.broken.items()))
    await stack.resume()
    return Outcome(fault.name, fault_seconds=played - begun, recovery_seconds=recovery, rows=checked.rows)


def side_by_side(faults: Sequence[Fault]) -> dict[str, list[Fault]]:
    """The faults that are played one after the other, by a name for what runs them.

    The venue alone takes ten minutes; the others are divided so that no part takes much longer.
    """
    common = [fault for fault in faults if fault.setting == "common"]
    venue = [fault for fault in faults if fault.setting == "venue"]
    others = [fault for fault in faults if fault not in (*common, *venue)]
    parts = {"common-1": common[::2], "common-2": common[1::2], "others": others, "venue": venue}
    return {name: part for name, part in parts.items() if part}


class Playing(Protocol):
    """Something that plays."""

    async def play(self) -> None: ...


class Part:
    """Plays its faults one after the other; what the processes say is kept in one file, which is shown in part."""

    def __init__(self, faults: Sequence[Fault], said: Path) -> None:
        self.outcomes: list[Outcome] = []
        self._faults = faults
        self._said = said.open("w+")

    async def play(self) -> None:
        """Play those of one setting on one stack, as long as none fails."""
        with self._said:
            for setting, of_setting in groupby(self._faults, key=lambda fault: fault.setting):
                left = list(of_setting)
                while left:
                    played = len(self.outcomes)
                    await self._play_on_one_stack(setting, left)
                    left = left[len(self.outcomes) - played :]

    async def _play_on_one_stack(self, setting: str, faults: Sequence[Fault]) -> None:
        """Play all of them, or those up to the first that fails."""
        fault = faults[0]
        with tempfile.TemporaryDirectory(prefix="coordinator-chaos-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            try:
                async with SETTINGS[setting](folder) as (given, extra), running(folder, given, self._said) as stack:
                    for fault in faults:
                        self._said.write(f"===== {fault.name}\n")
                        self._note(await play(fault, stack, extra))
            except NotHereError as error:
                for fault in faults:
                    self._note(Outcome(fault.name, skipped=str(error)))
            except Exception as error:  # whatever a fault brings about, the others are played
                reason = str(error) if isinstance(error, FaultError) else f"{type(error).__name__}: {error}"
                self._note(Outcome(fault.name, problem=reason))
                self._show_last_lines()

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        print(line(outcome), file=sys.stderr, flush=True)

    def _show_last_lines(self) -> None:
        self._said.seek(0)
        print("".join(self._said.readlines()[-SHOWN_LINES:]), file=sys.stderr)


async def play_all(parts: Mapping[str, Playing]) -> bool:
    """Play all parts side by side; False if Ctrl-C ended them, or SIGTERM."""
    playing = [asyncio.create_task(part.play()) for part in parts.values()]

    def end() -> None:
        for task in playing:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    await asyncio.wait(playing)  # also for the stacks of those that are cancelled
    for task in playing:
        if not task.cancelled():
            task.result()
    return not any(task.cancelled() for task in playing)


def line(outcome: Outcome) -> str:
    """One row of the report."""
    figures = [outcome.fault_seconds, outcome.recovery_seconds]
    shown = [f"{figure:10.1f}" if figure is not None else f"{'-':>10}" for figure in figures]
    rows = f"{outcome.rows:>10,}" if outcome.rows is not None else f"{'-':>10}"
    return f"{outcome.name:<36} {' '.join(shown)} {rows}  {outcome.verdict}"


def main() -> int:
    """Play what was asked for, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="play the faults whose name holds this text")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--venue-seconds", type=float, default=VENUE_GONE_SECONDS, help="how long the venue is gone")
    parser.add_argument("--logs", type=Path, help="the folder in which to keep what the processes say")
    given = parser.parse_args()
    faults = [fault for fault in all_faults(given.venue_seconds) if given.only in fault.name]
    if given.list or not faults:
        print("\n".join(fault.name for fault in faults) or f"no fault's name holds {given.only!r}")
        return 0 if faults else 2
    with ExitStack() as stack:
        logs = given.logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coordinator-chaos-")))
        logs.mkdir(parents=True, exist_ok=True)
        parts = {name: Part(part, logs / f"{name}.log") for name, part in side_by_side(faults).items()}
        whole = asyncio.run(play_all(parts))
    outcomes = {outcome.name: outcome for part in parts.values() for outcome in part.outcomes}
    failed = sum(bool(outcome.problem) for outcome in outcomes.values())
    print(f"\n{'fault':<36} {'seconds':>10} {'recovery s':>10} {'rows':>10}  verdict")
    print("\n".join(line(outcomes[fault.name]) for fault in faults if fault.name in outcomes))
    print(f"{len(outcomes) - failed} of {len(faults)} without a failure")
    if not whole:
        return ENDED_BY_CTRL_C
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
