"""What a loop does about errors from outside, and giving up a wait."""

from __future__ import annotations

import asyncio

import pytest

from coordinator_node.entities.errors import TemporaryError
from coordinator_node.runtime.loop import PassResult, StoppedError, run_loop, unless


async def test_a_temporary_error_is_tried_again_and_reported_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop, reported = asyncio.Event(), []
    outcomes = [TemporaryError("venue busy"), PassResult({"rows": 1})]

    async def step() -> PassResult:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        stop.set()
        return outcome

    await run_loop(step, stop=stop, wake=asyncio.Event(), interval_seconds=60, report=reported.append)
    assert [type(outcome) for outcome in reported] == [TemporaryError, PassResult]
    written = capsys.readouterr()
    assert "Traceback" not in written.out + written.err


async def test_unless_gives_what_was_waited_for_or_raises_what_it_raised() -> None:
    async def fails() -> None:
        raise KeyError("x")

    assert await unless(asyncio.Event(), asyncio.sleep(0, "done")) == "done"
    with pytest.raises(KeyError):
        await unless(asyncio.Event(), fails())


async def test_unless_cancels_what_is_no_longer_wanted() -> None:
    stop, cancelled = asyncio.Event(), asyncio.Event()

    async def waits() -> None:
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(StoppedError):
        await unless(stop, waits())
    assert cancelled.is_set()
