"""How fast the report API answers beside a million scored predictions. Run by `make bench-api`.

It seeds 1,000,000 scored and counted predictions of 50 models over 7 days with their snapshots, the last of which the
stages themselves score, count and seal; starts one report worker, and asks each endpoint alone and with 32 clients at
once; first without kept buckets, then with them. The series are asked for twice: the same range again and again
("repeated"), and each time another one ("varied": its end a minute earlier), so that nothing an answer was made of
before can help. The first request is told apart, and is among those that the quantiles are of.

The clients stand on the same cores as the server and the database. So they are as cheap as they can be: bytes that were
made before, on connections that stay open, and of the answer no more is read than its length. A request costs them some
30 us of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, cast

from bench_commitments import commit_all
from bench_score import drained
from score_history import MODELS, ScoreHistory
from sqlalchemy import Engine, text
from sqlmodel import Session
from uvloop import new_event_loop

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
from coordinator_node.services.checkpoint import CheckpointStage
from coordinator_node.services.leaderboard import Leaderboard
from coordinator_node.services.snapshot import SnapshotStage
from coordinator_node.services.snapshot.series import SeriesBuckets
from coordinator_node.workers.score_worker import score_stage

PREDICTIONS = 1_000_000
LIVE_SLOTS = 100
"""The last slots, which the stages themselves score, count, commit and seal with a checkpoint."""

FEEDS = 10
CLIENTS = 32
VARIED = 500
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
ALONE = 100
ALONE_SECONDS = 20.0
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
    "/reports/merkle/cycles",
    "/reports/merkle/proof?snapshot_id={snapshot}",
    "/reports/evidence/latest",
    "/reports/evidence/latest?cursor={cursor}",
    "/reports/backfill/feeds",
    "/reports/backfill/jobs",
    "/data/backfill/index",
)
_SEALED = "SELECT id, position FROM merkle_cycles WHERE checkpoint_id IS NOT NULL ORDER BY position LIMIT 1"
_LEAF = "SELECT snapshot_id FROM merkle_nodes WHERE cycle_id = :cycle AND level = 0 ORDER BY position LIMIT 1"
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
        asyncio.run(serve_until_ended(given.serve[0], int(given.serve[1])), loop_factory=new_event_loop)
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
        print_series(port, history.resolved_at(slots), 0)
    begun = time.perf_counter()
    fill(history, slots)
    history.settle()
    print(f"\nall of {slots * MODELS} predictions summed up in {time.perf_counter() - begun:.1f} s")
    with server(url, slots) as port:
        print(f"with kept buckets; load {os.getloadavg()[0]:.1f}")
        print_series(port, history.resolved_at(slots), seconds)
        found = places(engine)
        for path in OTHERS:
            print_figures(port, path, [path.format_map(found)], seconds)
    engine.dispose()


def seed(history: ScoreHistory, slots: int) -> None:
    """The history, and one of all else that endpoints answer with."""
    begun, engine = time.perf_counter(), history.engine
    migrate_engine(engine)
    history.add_models()
    now = history.resolved_at(slots)
    with Session(engine) as session:
        session.add(LeaseRow(name="bench", holder="bench", epoch=1, acquired_at=now, expires_at=now))
        session.commit()
    history.add_scored(slots - LIVE_SLOTS)
    play(history, slots - LIVE_SLOTS, LIVE_SLOTS)
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
        for number in range(FEEDS):
            feed = {"source": "venue", "subject": f"S{number}", "kind": "tick", "granularity": "1s"}
            for second in range(10_000):
                at = now - timedelta(seconds=second)
                session.add(FeedRecordRow(**feed, ts_event=at, values_jsonb={"price": 100.0}))
        session.commit()
    with transaction(engine) as session:
        Leaderboard(CrunchConfig(), load_settings({})).write(session, now)
    history.settle()
    print(f"seeded {slots * MODELS} predictions of {MODELS} models in {time.perf_counter() - begun:.0f} s", flush=True)


def play(history: ScoreHistory, first: int, slots: int) -> None:
    """Slots that the stages themselves score and count, two a cycle, and a checkpoint that ends among them."""
    history.add_due(first, slots)
    commit_all(history.engine)
    interval = (history.slot_at(first + slots // 2) - history.start).total_seconds()
    settings = load_settings({"FEED_SOURCE": "simulated", "CHECKPOINT_INTERVAL_SECONDS": str(int(interval))})
    config, fence = CrunchConfig(), LeaseFence("bench", 1)
    score = score_stage(history.engine, config, settings)
    snapshots = SnapshotStage(history.engine, config, settings)
    for slot in range(first + 1, first + slots, 2):
        now = history.resolved_at(slot)
        drained(lambda now=now: score.run_once(now))
        snapshots.run_once(now, fence)
    CheckpointStage(history.engine, config, settings).run_once(history.resolved_at(first + slots), fence)
    with history.engine.begin() as connection:  # kept buckets are measured apart
        connection.execute(text("DELETE FROM engine_state WHERE key = 'series_buckets'"))


def places(engine: Engine) -> dict[str, str]:
    """A snapshot that the checkpoint seals, and the cursor of evidence that shows predictions."""
    with engine.connect() as connection:
        cycle, position = connection.execute(text(_SEALED)).one()
        snapshot = connection.execute(text(_LEAF), {"cycle": cycle}).scalar_one()
    return {"snapshot": snapshot, "cursor": f"{position}.0"}


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


def print_series(port: int, now: datetime, seconds: float) -> None:
    """The figures of the four series, and above them what all figures are."""
    alone = f"{'first':>8} {'p50 alone':>10} {'p99':>8}"
    print(f"{'endpoint':<40} {'bytes':>9} {alone} {'p50 of 32':>10} {'p99':>8} {'req/s':>8}   (ms)")
    ends = [(now - timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ") for minute in range(1, VARIED + 1)]
    for path in SERIES:
        print_figures(port, f"{path} repeated", [path], seconds)
        print_figures(port, f"{path} varied", [f"{path}?end={end}" for end in ends], seconds)


def print_figures(port: int, name: str, paths: Sequence[str], seconds: float) -> None:
    """An endpoint alone, then asked by CLIENTS at once for so many seconds, if any."""
    try:
        print(figures(port, name, paths, seconds), flush=True)
    except RefusedError as refusal:
        print(f"{name:<40} {refusal}", flush=True)


def figures(port: int, name: str, paths: Sequence[str], seconds: float) -> str:
    """One endpoint's line; its requests go to these paths in turn.

    Raises:
        RefusedError: some answer was not 200, such as 503 for a statement that took too long.
    """
    requests = cycle([f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n".encode() for path in paths])
    size, alone = run(ask(port, requests, 1, ALONE, ALONE_SECONDS))
    line = f"{name:<40} {size:>9} {1000 * alone[0]:>8.1f} {quantiles(alone)}"
    if seconds:
        begun = time.perf_counter()
        _, together = run(ask(port, requests, CLIENTS, 10**9, seconds))
        line += f" {quantiles(together)} {len(together) / (time.perf_counter() - begun):>8.0f}"
    return line


class RefusedError(RuntimeError):
    """An answer that was not 200."""


def quantiles(times: list[float]) -> str:
    """The median and the 99th percentile, in milliseconds."""
    return "{:>10.1f} {:>8.1f}".format(*(1000 * at(times, share) for share in (0.5, 0.99)))


def at(times: list[float], share: float) -> float:
    """A quantile of some times: the least that so many of them do not exceed."""
    return sorted(times)[math.ceil(share * len(times)) - 1]


def run[Result](work: Coroutine[Any, Any, Result]) -> Result:
    """Let the clients do their work."""
    return asyncio.run(work, loop_factory=new_event_loop)


async def ask(port: int, requests: Iterator[bytes], clients: int, most: int, seconds: float) -> tuple[int, list[float]]:
    """The size of the longest answer, and how long each took; each client asks again at once, on one connection."""
    loop = asyncio.get_running_loop()
    ends = time.perf_counter() + seconds
    asking = [
        (await loop.create_connection(lambda: Asker(requests, most, ends), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.done for client in asking))
    return max(client.size for client in asking), [each for client in asking for each in client.times]


class Asker(asyncio.Protocol):
    """One client: sends the next request as soon as an answer is there, until it has sent enough or time is up."""

    def __init__(self, requests: Iterator[bytes], most: int, ends: float) -> None:
        self._requests, self._most, self._ends = requests, most, ends
        self._missing: int | None = None
        self._head = b""
        self.size = 0
        self.times: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not descend from it
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        if self._missing is None:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            length = LENGTH.search(head)
            if b" 200 " not in head[:13] or length is None:
                self._end(RefusedError(head.partition(b"\r\n")[0].decode()))
                return
            self._missing = int(length[1]) - len(body)
            self.size = max(self.size, int(length[1]))
        else:
            self._missing -= len(data)
        if self._missing == 0:
            self.times.append(time.perf_counter() - self._begun)
            if len(self.times) < self._most and time.perf_counter() < self._ends:
                self._send()
            else:
                self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more will come."""
        self._end(RefusedError("the connection was closed"))

    def _send(self) -> None:
        self._missing, self._head = None, b""
        self._begun = time.perf_counter()
        self._transport.write(next(self._requests))

    def _end(self, refusal: RefusedError | None) -> None:
        if self.done.done():
            return
        if refusal is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(refusal)
        self._transport.close()


if __name__ == "__main__":
    main()
