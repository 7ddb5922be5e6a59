"""`make chaos`: plays every fault on a running stack, and looks at every row after each.

A fault passes when every part of the stack works again without help, and every rule of tests/invariants.py holds once
what was asked is scored, counted and paid. ARGS="--only clock" plays those whose name holds a text, --list names them.
Exit code 1 if one failed, 0 if none did; what cannot be played on this machine is named with what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos_faults import VENUE_GONE_SECONDS, Fault, all_faults
from chaos_settings import SETTINGS, NotHereError
from chaos_stack import ChaosStack, FaultError, running
from invariants import check_all

from coordinator_node.local.postgres import EmbeddedPostgresError
from coordinator_node.local.stack import StackError

SHOWN_LINES = 40


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


async def play_all(faults: Sequence[Fault], said: TextIO) -> list[Outcome]:
    """Play the faults; those of one setting on one stack, as long as none fails."""
    outcomes = []
    for setting, of_setting in groupby(faults, key=lambda fault: fault.setting):
        left = list(of_setting)
        while left:
            played = await play_on_one_stack(setting, left, said)
            outcomes += played
            left = left[len(played) :]
    return outcomes


async def play_on_one_stack(setting: str, faults: Sequence[Fault], said: TextIO) -> list[Outcome]:
    """What came of the first faults: of all of them, or of those up to the first that failed."""
    outcomes: list[Outcome] = []
    fault = faults[0]
    with tempfile.TemporaryDirectory(prefix="coordinator-chaos-") as folder:
        Path(folder).chmod(0o755)
        try:
            async with SETTINGS[setting](Path(folder)) as (given, extra), running(Path(folder), given, said) as stack:
                for fault in faults:
                    said.write(f"===== {fault.name}\n")
                    outcomes.append(await play(fault, stack, extra))
                    print(line(outcomes[-1]), file=sys.stderr, flush=True)
        except NotHereError as error:
            return [Outcome(fault.name, skipped=str(error)) for fault in faults]
        except (FaultError, StackError, EmbeddedPostgresError) as error:
            outcomes.append(Outcome(fault.name, problem=str(error)))
            print(line(outcomes[-1]), file=sys.stderr, flush=True)
    return outcomes


def line(outcome: Outcome) -> str:
    """One row of the report."""
    figures = [outcome.fault_seconds, outcome.recovery_seconds]
    shown = [f"{figure:10.1f}" if figure is not None else f"{'-':>10}" for figure in figures]
    rows = f"{outcome.rows:>10,}" if outcome.rows is not None else f"{'-':>10}"
    return f"{outcome.name:<30} {' '.join(shown)} {rows}  {outcome.verdict}"


def main() -> int:
    """Play what was asked for, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="play the faults whose name holds this text")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--venue-seconds", type=float, default=VENUE_GONE_SECONDS, help="how long the venue is gone")
    parser.add_argument("--log", type=Path, help="where to keep what the processes say")
    given = parser.parse_args()
    faults = [fault for fault in all_faults(given.venue_seconds) if given.only in fault.name]
    if given.list or not faults:
        print("\n".join(fault.name for fault in faults) or f"no fault's name holds {given.only!r}")
        return 0 if faults else 2
    with tempfile.NamedTemporaryFile("w+", prefix="coordinator-chaos-", suffix=".log") as own:
        said = given.log.open("w") if given.log else own
        outcomes = asyncio.run(play_all(faults, said))
        said.flush()
        failed = [outcome for outcome in outcomes if outcome.problem]
        if failed and not given.log:
            own.seek(0)
            print("".join(own.readlines()[-SHOWN_LINES:]), file=sys.stderr)
    print(f"\n{'fault':<30} {'seconds':>10} {'recovery s':>10} {'rows':>10}  verdict")
    print("\n".join(map(line, outcomes)))
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} without a failure")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
