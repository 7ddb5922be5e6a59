"""The loop: passes when woken, pauses after errors, finishes what it began."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Engine, text

from coordinator_node.db.engine import transaction
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.runtime.loop import BACKOFF_MAX_SECONDS, JITTER, PassResult, in_thread, pause, run_loop
from coordinator_node.runtime.notify import FEED_RECORDS, SCORES, listen, notify

HOUR = 3600.0


class Loop:
    """A loop under test: what it reported, and the means to wake and stop it."""

    def __init__(self, step: Callable[[], Awaitable[PassResult]], interval_seconds: float = HOUR) -> None:
        self.stop, self.wake = asyncio.Event(), asyncio.Event()
        self.reported: list[PassResult | BaseException] = []
        self.task = asyncio.create_task(
            run_loop(
                step, stop=self.stop, wake=self.wake, interval_seconds=interval_seconds, report=self.reported.append
            )
        )

    async def until(self, passes: int) -> None:
        for _ in range(200):
            if len(self.reported) >= passes:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.reported)} passes, not {passes}")

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 5)


async def test_it_runs_at_once_then_when_woken_then_ends_when_asked() -> None:
    async def step() -> PassResult:
        return PassResult({"rows": 1})

    loop = Loop(step)
    await loop.until(1)
    loop.wake.set()
    await loop.until(2)
    await loop.end()
    assert len(loop.reported) == 2


async def test_being_woken_during_a_pass_is_not_lost() -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def step() -> PassResult:
        inside.set()
        await go_on.wait()
        return PassResult()

    loop = Loop(step)
    await inside.wait()
    loop.wake.set()
    go_on.set()
    await loop.until(2)
    await loop.end()


async def test_more_to_do_means_no_wait_and_a_pass_may_say_how_long_to_wait() -> None:
    results = iter([PassResult({"rows": 1}, again=True), PassResult(wait_seconds=0.01), PassResult()])

    async def step() -> PassResult:
        return next(results)

    loop = Loop(step)
    await loop.until(3)
    await loop.end()


async def test_a_raising_pass_is_reported_and_tried_again() -> None:
    calls = 0

    async def step() -> PassResult:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the row is strange")
        return PassResult()

    loop = Loop(step)
    await loop.until(2)
    await loop.end()
    assert isinstance(loop.reported[0], RuntimeError)
    assert isinstance(loop.reported[1], PassResult)


async def test_a_configuration_error_ends_it() -> None:
    async def step() -> PassResult:
        raise ConfigurationError("no such metric")

    with pytest.raises(ConfigurationError):
        await Loop(step).task


async def test_a_pass_that_began_is_finished_when_asked_to_stop() -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def step() -> PassResult:
        inside.set()
        await go_on.wait()
        return PassResult({"rows": 1})

    loop = Loop(step)
    await inside.wait()
    loop.stop.set()
    await asyncio.sleep(0)
    assert not loop.task.done()
    go_on.set()
    await loop.end()
    assert len(loop.reported) == 1


async def test_a_pass_in_a_thread_leaves_the_event_loop_free() -> None:
    release = asyncio.Event()
    loop_of_test = asyncio.get_running_loop()

    def step() -> PassResult:
        asyncio.run_coroutine_threadsafe(_set(release), loop_of_test).result(5)
        return PassResult()

    loop = Loop(in_thread(step))
    await asyncio.wait_for(release.wait(), 5)
    await loop.until(1)
    await loop.end()


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_pauses_grow_up_to_a_bound() -> None:
    assert 0.4 < pause(1) < 0.6
    assert pause(2) > pause(1) * 1.5
    assert pause(50) <= BACKOFF_MAX_SECONDS * (1 + JITTER)


async def test_a_notification_wakes_only_its_channel_and_only_once_committed(engine: Engine) -> None:
    wake = asyncio.Event()
    listening = asyncio.create_task(listen(engine, (FEED_RECORDS,), wake))
    await asyncio.wait_for(wake.wait(), 5)
    wake.clear()
    with transaction(engine) as session:
        notify(session, SCORES)
    with transaction(engine) as session:
        notify(session, FEED_RECORDS)
        await asyncio.sleep(0.1)
        assert not wake.is_set()
    await asyncio.wait_for(wake.wait(), 5)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_a_broken_listening_connection_is_made_anew(engine: Engine) -> None:
    wake = asyncio.Event()
    listening = asyncio.create_task(listen(engine, (FEED_RECORDS,), wake))
    await asyncio.wait_for(wake.wait(), 5)
    wake.clear()
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'LISTEN%'"
            )
        )
    await asyncio.wait_for(wake.wait(), 10)
    wake.clear()
    with transaction(engine) as session:
        notify(session, FEED_RECORDS)
    await asyncio.wait_for(wake.wait(), 5)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
