"""What plays the faults: each of them once, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest
from chaos_faults import all_faults
from chaos_settings import SETTINGS, NotHereError
from run_chaos import Outcome, line, play_all, side_by_side


def test_every_fault_is_played_once() -> None:
    faults = all_faults(600)
    names = [fault.name for part in side_by_side(faults).values() for fault in part]
    assert sorted(names) == sorted({fault.name for fault in faults})
    assert {fault.setting for fault in faults} == SETTINGS.keys()


def test_a_part_without_a_fault_is_no_part() -> None:
    only = [fault for fault in all_faults(600) if fault.setting == "venue"]
    assert side_by_side(only) == {"venue": only}


class Waiting:
    """A part that plays until something happens, and cleans up."""

    def __init__(self, until: Callable[[], None], turns: int) -> None:
        self.cleaned_up = False
        self._turns = turns
        self._until = until

    async def play(self) -> None:
        try:
            self._until()
            await asyncio.Event().wait()
        finally:
            for _ in range(self._turns):
                await asyncio.sleep(0)
            self.cleaned_up = True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_parts_and_waits_for_them(number: signal.Signals) -> None:
    parts = {"a": Waiting(lambda: None, 100), "b": Waiting(lambda: os.kill(os.getpid(), number), 1)}
    assert asyncio.run(play_all(parts)) is False
    assert all(part.cleaned_up for part in parts.values())


def test_what_was_not_played_has_a_verdict_and_no_figures() -> None:
    assert line(Outcome("a fault", skipped=str(NotHereError("no root")))).split() == [
        *("a", "fault", "-", "-", "-", "skipped:", "no", "root")
    ]
