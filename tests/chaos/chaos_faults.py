"""The faults: what each does to a running stack. When one returns, what it broke is whole again."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import subprocess
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psutil
import pyarrow.parquet as pq
from chaos_settings import HOUR, Clocks, NotHereError, SmallDisk
from chaos_stack import ChaosStack, FaultError
from cut_proxy import Cut, CutProxy

# Longer than a lease lives, and than anyone hesitates to take it.
STOPPED_SECONDS = 9.0
CUT_SECONDS = 15.0
# Longer than it takes until a connection is given up on which nothing is acknowledged.
DROPPED_SECONDS = 25.0
AWAY_SECONDS = 20.0
FLAPPING_SECONDS = 40.0
VENUE_GONE_SECONDS = 600.0
# Longer than it takes until a process looks at its clock anew.
CLOCK_SEEN_SECONDS = 3.0
# Of a file, where no disk can be made small.
LARGEST_FILE = 50_000
HISTORY = timedelta(hours=3)

WORKERS = ("feed", "predict", "score", "checkpoint", "report")
# What a worker holds whose standby is to take over.
LEASES = {"feed": "feed/", "score": "score-leader", "predict": "predict/"}
JOB = "SELECT count(*) > 0 FROM backfill_jobs WHERE id = :id AND status = :status"

type Play = Callable[[ChaosStack, Any], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """What is done to a stack of a setting; `extra` of the setting is handed on."""

    name: str
    play: Play
    setting: str = "common"


async def kill(role: str, stack: ChaosStack, extra: Any) -> None:
    stack.signal(await stack.holder(role, LEASES.get(role, "")), signal.SIGKILL)


async def pause(role: str, stack: ChaosStack, extra: Any) -> None:
    name = await stack.holder(role, LEASES.get(role, ""))
    stack.signal(name, signal.SIGSTOP)
    await asyncio.sleep(STOPPED_SECONDS)
    stack.signal(name, signal.SIGCONT)


async def kill_model(stack: ChaosStack, extra: Any) -> None:
    stack.model("momentum").kill()


async def pause_model(stack: ChaosStack, extra: Any) -> None:
    process = stack.model("momentum")
    process.suspend()
    await asyncio.sleep(STOPPED_SECONDS)
    process.resume()


async def orchestrator_gone(stack: ChaosStack, extra: Any) -> None:
    await stack.supervisor.stop(["orchestrator"])
    await asyncio.sleep(AWAY_SECONDS)
    await stack.restart("orchestrator")


async def kill_postgres(stack: ChaosStack, extra: Any) -> None:
    stack.signal("postgres", signal.SIGKILL)


async def restart_postgres(stack: ChaosStack, extra: Any) -> None:
    stack.signal("postgres", signal.SIGINT)


async def pause_postgres(stack: ChaosStack, extra: Any) -> None:
    stack.signal_group("postgres", signal.SIGSTOP)
    await asyncio.sleep(STOPPED_SECONDS)
    stack.signal_group("postgres", signal.SIGCONT)


async def cut(role: str, how: Cut, stack: ChaosStack, extra: Any) -> None:
    proxy = stack.proxies[await stack.holder(role, LEASES.get(role, ""))]
    proxy.cut(how)
    await asyncio.sleep(CUT_SECONDS)
    proxy.heal()


async def drop(role: str, stack: ChaosStack, extra: Any) -> None:
    """No packet arrives any more, and nobody is told: what a broken cable does, and a proxy cannot."""
    name = await stack.holder(role, LEASES.get(role, ""))
    with packets_dropped(stack.proxies[name].port):
        await asyncio.sleep(DROPPED_SECONDS)


@contextmanager
def packets_dropped(port: int) -> Iterator[None]:
    """Drop what goes to and comes from a port of this machine's loopback."""
    rules = [["-i", "lo", "-p", "tcp", side, str(port), "-j", "DROP"] for side in ("--dport", "--sport")]
    try:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-I", "INPUT", *rule], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHereError(f"packets cannot be dropped here, which takes root and iptables: {error}") from None
    try:
        yield
    finally:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-D", "INPUT", *rule], check=True, capture_output=True)


async def disk_full(stack: ChaosStack, disk: SmallDisk) -> None:
    """A backfill that the disk has no room for fails and says so; with room, the same one brings whole files."""
    feeds = [psutil.Process(stack.supervisor.pid(name)) for name in ("feed", "feed-2")]
    if not disk.mounted:
        for feed in feeds:
            feed.rlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, resource.RLIM_INFINITY))
    failed = await asyncio.to_thread(ask_for_history, stack)
    await stack.until("a backfill that fails", JOB, id=failed, status="failed")
    if disk.mounted:
        disk.grow()
    else:
        for feed in feeds:
            feed.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    whole = await asyncio.to_thread(ask_for_history, stack)
    await stack.until("a backfill that has room", JOB, id=whole, status="completed")
    files = [path for path in disk.folder.rglob("*") if path.is_file()]
    rows = {path.name: pq.read_metadata(path).num_rows for path in files}
    expected = int(HISTORY.total_seconds())
    if list(rows.values()) != [expected]:
        raise FaultError(f"the Parquet folder holds {rows}, one file of {expected} rows was to be there")


def ask_for_history(stack: ChaosStack) -> str:
    """Ask for some hours of yesterday; the job's id."""
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    feed = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s"}
    order = {**feed, "start": (end - HISTORY).isoformat(), "end": end.isoformat()}
    request = urllib.request.Request(
        f"{stack.plan.url}/reports/backfill", json.dumps(order).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        job_id: str = json.load(response)["id"]
    return job_id


async def clock_wrong(role: str, seconds: int, stack: ChaosStack, clocks: Clocks) -> None:
    """The machine of a role's workers believes in another time, in which one of them starts anew; all go on working."""
    names = [name for name in (role, f"{role}-2") if name in stack.proxies]
    for name in names:
        clocks.set(name, seconds)
    await asyncio.sleep(CLOCK_SEEN_SECONDS)
    stack.signal(role, signal.SIGKILL)
    await stack.recovered(await stack.now())
    for name in names:
        clocks.set(name, 0)
    await asyncio.sleep(CLOCK_SEEN_SECONDS)


async def clock_jumps(stack: ChaosStack, clocks: Clocks) -> None:
    """The one machine that all of it runs on finds out that it is an hour later."""
    for name in clocks.names:
        clocks.set(name, HOUR)
    await asyncio.sleep(CLOCK_SEEN_SECONDS)


async def flap(stack: ChaosStack, extra: Any) -> None:
    stack.signal("orchestrator", signal.SIGUSR1)
    await asyncio.sleep(FLAPPING_SECONDS)
    stack.signal("orchestrator", signal.SIGUSR2)


async def venue_gone(seconds: float, stack: ChaosStack, proxy: CutProxy) -> None:
    proxy.cut(Cut.REFUSED)
    await asyncio.sleep(seconds)
    proxy.heal()


def all_faults(venue_seconds: float) -> list[Fault]:
    """Every fault, those of one setting together."""
    parts = (*WORKERS, "orchestrator")
    return [
        *(Fault(f"kill -9 {name}", partial(kill, name)) for name in parts),
        Fault("kill -9 model", kill_model),
        Fault("kill -9 postgres", kill_postgres),
        *(Fault(f"SIGSTOP {name}", partial(pause, name)) for name in parts),
        Fault("SIGSTOP model", pause_model),
        Fault("postgres restarted", restart_postgres),
        Fault("postgres paused", pause_postgres),
        *(Fault(f"cut {name}, silent", partial(cut, name, Cut.SILENT)) for name in WORKERS),
        *(Fault(f"cut {name}, refused", partial(cut, name, Cut.REFUSED)) for name in ("feed", "predict", "score")),
        *(Fault(f"cut {name}, unanswered", partial(cut, name, Cut.UNANSWERED)) for name in ("predict", "score")),
        *(Fault(f"cut {name}, half closed", partial(cut, name, Cut.HALF_CLOSED)) for name in ("predict", "score")),
        *(Fault(f"cut {name}, packets dropped", partial(drop, name)) for name in ("feed", "predict", "score")),
        Fault("disk full", disk_full),
        Fault("orchestrator gone", orchestrator_gone),
        *(
            Fault(f"clock of {name} {way}", partial(clock_wrong, name, seconds), "clock")
            for way, seconds in (("an hour ahead", HOUR), ("an hour behind", -HOUR))
            for name in WORKERS
        ),
        Fault("clock jumps by an hour", clock_jumps, "clock"),
        Fault("100 models flapping", flap, "farm"),
        Fault(f"venue gone for {venue_seconds:g} s", partial(venue_gone, venue_seconds), "venue"),
    ]
