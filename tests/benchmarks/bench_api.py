"""How fast the report API answers beside a million scored predictions. Run by `make bench-api`.

It seeds 1,000,000 scored and counted predictions of 50 models over 7 days with their snapshots, starts one report
worker, and asks each endpoint alone and with 32 clients at once; first without kept buckets, then with them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

from score_history import MODELS, ScoreHistory
from sqlmodel import Session

from coordinator_node.api.app import create_app
from coordinator_node.api.server import listen_on, serve
from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import make_engine, transaction
from coordinator_node.db.migrations import migrate_engine
from coordinator_node.db.series.mark import kept_span
from coordinator_node.db.tables import CheckpointRow, FeedRecordRow, LeaseRow
from coordinator_node.local.postgres import running_postgres
from coordinator_node.runtime.leases import LeaseFence
from coordinator_node.services.leaderboard import Leaderboard
from coordinator_node.services.snapshot.series import SeriesBuckets

PREDICTIONS = 1_000_000
CLIENTS = 32
ALONE = 100
ALONE_SECONDS = 8.0
SERIES = ("/reports/models/global", "/reports/models/params", "/reports/models/metrics", "/reports/predictions")
OTHERS = (
    "/healthz",
    "/info",
    "/reports/schema",
    "/reports/leaderboard",
    "/reports/models",
    "/reports/models/summary",
    "/reports/models/model-001/diversity",
    "/reports/diversity",
    "/reports/predictions?limit=1000",
    "/reports/feeds",
    "/reports/feeds/tail",
    "/reports/snapshots",
    "/reports/ensemble/history",
    "/reports/checkpoints",
    "/reports/checkpoints/latest",
    "/reports/checkpoints/rewards",
    "/reports/emissions/latest",
    "/reports/backfill/feeds",
    "/reports/backfill/jobs",
    "/data/backfill/index",
)
TARGETS = (
    "targets: 150 ms p99 alone; the four series 300 ms with kept buckets, 1000 ms without;"
    " the leaderboard 2,000 requests/s"
)


def main() -> None:
    """Seed, measure, print; or be the server that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=PREDICTIONS)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long 32 clients ask each endpoint")
    parser.add_argument("--serve", nargs=2, metavar=("URL", "SLOTS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve_until_ended(given.serve[0], int(given.serve[1])), loop_factory=_uvloop())
        return
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        Path(folder).chmod(0o755)
        with running_postgres(Path(folder) / "postgres") as url:
            measure(url, given.predictions // MODELS, given.seconds)


def measure(url: str, slots: int, seconds: float) -> None:
    """Seed a database and print the figures of all endpoints."""
    engine = make_engine(url, "bench")
    history = ScoreHistory(engine)
    seed(history, slots)
    print(TARGETS)
    with server(url, slots) as port:
        print(f"\nwithout kept buckets; load {os.getloadavg()[0]:.1f}")
        print_figures(port, SERIES, 0)
    begun = time.perf_counter()
    fill(history, slots)
    history.settle()
    print(f"\nall of {slots * MODELS} predictions summed up in {time.perf_counter() - begun:.1f} s")
    with server(url, slots) as port:
        print(f"with kept buckets; load {os.getloadavg()[0]:.1f}")
        print_figures(port, (*SERIES, *OTHERS), seconds)
    engine.dispose()


def seed(history: ScoreHistory, slots: int) -> None:
    """The history, and one of all else that endpoints answer with."""
    begun, engine = time.perf_counter(), history.engine
    migrate_engine(engine)
    history.add_models()
    history.add_scored(slots)
    now = history.resolved_at(slots)
    ranking = [{"model_id": f"model-{n:03d}", "rank": n, "result_summary": {"value": 0.1}} for n in range(1, 51)]
    rewards = [{"cruncher_index": n, "reward_pct": 20_000_000} for n in range(50)]
    emission = {"crunch": "c", "cruncher_rewards": rewards, "compute_provider_rewards": [], "data_provider_rewards": []}
    with Session(engine) as session:
        for week in range(20):
            end = now - timedelta(days=7 * week)
            session.add(
                CheckpointRow(
                    period_start=end - timedelta(days=7),
                    period_end=end,
                    entries_jsonb=[emission],
                    meta_jsonb={"ranking": ranking},
                )
            )
        for second in range(10_000):
            feed = {"source": "simulated", "subject": "BTC", "kind": "tick", "granularity": "1s"}
            at = now - timedelta(seconds=second)
            session.add(FeedRecordRow(**feed, ts_event=at, values_jsonb={"price": 100.0}))
        session.add(LeaseRow(name="bench", holder="bench", epoch=1, acquired_at=now, expires_at=now))
        session.commit()
    with transaction(engine) as session:
        Leaderboard(CrunchConfig(), load_settings({})).write(session, now)
    history.settle()
    print(f"seeded {slots * MODELS} predictions of {MODELS} models in {time.perf_counter() - begun:.0f} s", flush=True)


def fill(history: ScoreHistory, slots: int) -> None:
    """Let the leader's passes keep everything."""
    engine = history.engine
    series = SeriesBuckets(engine, CrunchConfig().aggregation.value_field)
    while True:
        with engine.connect() as connection:
            before = kept_span(connection, "value")
        series.advance(history.resolved_at(slots), LeaseFence("bench", 1))
        with engine.connect() as connection:
            if kept_span(connection, "value") == before:
                return


@contextmanager
def server(url: str, slots: int) -> Iterator[int]:
    """A report API in a process of its own; gives its port."""
    command = [sys.executable, __file__, "--serve", url, str(slots)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(next(line for line in process.stdout if line.startswith("port ")).split()[1])
        finally:
            process.terminate()


async def serve_until_ended(url: str, slots: int) -> None:
    """Be the server, as of the moment when the last prediction resolved."""
    engine = make_engine(url, "bench-server")
    now = ScoreHistory(engine).resolved_at(slots)
    app = create_app(load_settings({"LOG_LEVEL": "ERROR"}), engine, CrunchConfig(), clock=lambda: now)
    listener = listen_on("127.0.0.1", 0)
    print(f"port {listener.getsockname()[1]}", flush=True)
    await serve(app, listener, asyncio.Event())


def print_figures(port: int, paths: tuple[str, ...], seconds: float) -> None:
    """Each endpoint alone, then asked by CLIENTS at once for so many seconds, if any."""
    print(f"{'endpoint':<40} {'bytes':>9} {'alone p50':>10} {'p99':>8} {'32: p50':>10} {'p99':>8} {'req/s':>8}   (ms)")
    for path in paths:
        try:
            print(figures(port, path, seconds), flush=True)
        except RefusedError as refusal:
            print(f"{path:<40} {refusal}", flush=True)


def figures(port: int, path: str, seconds: float) -> str:
    """One endpoint's line.

    Raises:
        RefusedError: some answer was not 200, such as 503 for a statement that took too long.
    """
    size, alone = asyncio.run(ask(port, path, 1, ALONE, ALONE_SECONDS))
    line = f"{path:<40} {size:>9} {quantiles(alone)}"
    if seconds:
        begun = time.perf_counter()
        _, together = asyncio.run(ask(port, path, CLIENTS, 10**9, seconds))
        line += f" {quantiles(together)} {len(together) / (time.perf_counter() - begun):>8.0f}"
    return line


class RefusedError(RuntimeError):
    """An answer that was not 200."""


def quantiles(times: list[float]) -> str:
    """The median and the 99th percentile, in milliseconds."""
    return "{:>10.1f} {:>8.1f}".format(*(1000 * at(times, share) for share in (0.5, 0.99)))


def at(times: list[float], share: float) -> float:
    """A quantile of some times."""
    return sorted(times)[min(int(share * len(times)), len(times) - 1)]


async def ask(port: int, path: str, clients: int, most: int, seconds: float) -> tuple[int, list[float]]:
    """The size of an answer, and how long each took; each client keeps one connection and asks again at once."""
    times: list[float] = []
    sizes: set[int] = set()
    ends = time.perf_counter() + seconds

    async def client() -> None:
        async with connected(port) as (reader, writer):
            for _ in range(most):
                begun = time.perf_counter()
                sizes.add(await request(reader, writer, path))
                times.append(time.perf_counter() - begun)
                if time.perf_counter() > ends:
                    return

    await asyncio.gather(*(client() for _ in range(clients)))
    return max(sizes), times


async def request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    """One request as a browser sends it; gives the size of the answer's body."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if b" 200 " not in lines[0]:
        raise RefusedError(lines[0].decode())
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), None)
    if length is not None:
        await reader.readexactly(length)
        return length
    size = 0
    while chunk := int((await reader.readline()).strip(), 16):
        await reader.readexactly(chunk + 2)
        size += chunk
    await reader.readline()
    return size


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        yield reader, writer
    finally:
        writer.close()


def _uvloop() -> object:
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
