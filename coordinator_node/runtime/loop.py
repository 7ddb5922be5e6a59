"""The loop around every stage: wait, run a pass, back off after an error, end when asked."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordinator_node.entities.errors import ConfigurationError, TemporaryError
from coordinator_node.runtime.leases import Lease, LeaseFence, LeaseLostError
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

JITTER = 0.1
BACKOFF_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 5.0
LEASE_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class PassResult:
    """What a pass did.

    `counts` by name go to the log and the heartbeat; `again` says that there is more to do at once; `wait_seconds`,
    where it is given, is how long the loop waits at most instead of its interval.
    """

    counts: dict[str, int] = field(default_factory=dict)
    again: bool = False
    wait_seconds: float | None = None

    @property
    def idle(self) -> bool:
        """Whether the pass found nothing to do."""
        return not any(self.counts.values())


Step = Callable[[], Awaitable[PassResult]]
Report = Callable[[PassResult | BaseException], None]


class StoppedError(Exception):
    """What a pass waited for was given up, because its worker is to end."""


def in_thread(step: Callable[[], PassResult]) -> Step:
    """A synchronous pass as a step of the loop: it runs in a thread, so that heartbeats and leases go on."""

    async def run() -> PassResult:
        return await asyncio.to_thread(step)

    return run


def under_lease(
    lease: Lease, clock: Callable[[], datetime], step: Callable[[datetime, LeaseFence], PassResult]
) -> Step:
    """A synchronous pass that only the lease's holder runs, in a thread; whoever does not hold it looks again soon."""

    def run() -> PassResult:
        return step(clock(), lease.fence()) if lease.held else PassResult(wait_seconds=LEASE_POLL_SECONDS)

    return in_thread(run)


async def run_loop(
    step: Step, *, stop: asyncio.Event, wake: asyncio.Event, interval_seconds: float, report: Report
) -> None:
    """Run passes until `stop` is set: one at least every `interval_seconds`, and one whenever `wake` is set.

    A pass that has begun is always finished. A pass that raises is logged and tried again after a growing pause, and a
    configuration error ends the loop, because no repetition mends it.
    """
    failures = 0
    while not stop.is_set():
        wake.clear()
        seconds = jittered(interval_seconds)
        try:
            result = await step()
            failures = 0
            report(result)
            if not result.idle:
                log.info("pass", **result.counts)
            seconds = 0.0 if result.again else seconds if result.wait_seconds is None else result.wait_seconds
        except ConfigurationError:
            raise
        except LeaseLostError as error:
            log.warning("lease lost; nothing was written", reason=str(error))
        except Exception as error:  # a pass meets whatever databases and operators' code may raise; the loop must go on
            failures += 1
            report(error)
            if isinstance(error, TemporaryError):
                log.warning("pass failed; it will be tried again", reason=str(error), failures=failures)
            else:
                log.exception("pass failed; it will be tried again", failures=failures)
            await wait_for(stop, pause(failures))
            continue
        if seconds > 0:
            await wait_for_any(stop, wake, seconds=seconds)


def jittered(seconds: float) -> float:
    """The same, up to JITTER longer or shorter, so that many workers do not poll in step."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, hides nothing


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return jittered(min(BACKOFF_SECONDS * 2.0 ** (failures - 1), BACKOFF_MAX_SECONDS))


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, at most so long; True if it is."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def wait_for_any(*events: asyncio.Event, seconds: float) -> None:
    """Wait until one of the events is set, at most so long."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def unless[T](stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it is cancelled when `stop` is set first.

    Raises:
        StoppedError: it was.
    """
    working = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise StoppedError
    finally:
        stopped.cancel()
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
