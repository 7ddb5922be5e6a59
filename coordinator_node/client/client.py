"""The report API as Python calls with typed results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from pydantic import BaseModel

from coordinator_node.client.events import LiveEvent, events_of
from coordinator_node.client.files import fetch, fetch_if_changed, place_of, segment
from coordinator_node.client.transport import Transport, parsed
from coordinator_node.entities.prediction import BackfillStatus, CheckpointStatus, RetainingEmission
from coordinator_node.schemas.report.backfill import BackfillFile, BackfillJob, BackfillOrder
from coordinator_node.schemas.report.competition import Info, LeaderboardEntry, ModelEntry
from coordinator_node.schemas.report.feeds import FeedRecordEntry, FeedSummary
from coordinator_node.schemas.report.health import Readiness
from coordinator_node.schemas.report.payouts import (
    Checkpoint,
    CheckpointEmission,
    CheckpointPayload,
    CheckpointPrizes,
    CliEmission,
    Prize,
)
from coordinator_node.schemas.report.predictions import PredictionPoint, SnapshotEntry
from coordinator_node.schemas.report.rounds import Round
from coordinator_node.schemas.report.wire import JsonObject

PAGE_ROWS = 500
NOT_READY = frozenset({503})


class CoordinatorClient:
    """A client of one competition's report API; also a context manager, which closes its connection.

    Lists that may be long are iterators: their pages are asked for as they are read. Naive times are UTC. Every method
    raises ApiUnreachableError where the API does not answer, and ApiAnswerError, with its `status` and `detail`, where
    it answers otherwise than with what was asked for: 404 for what does not exist, 401 without the right key.

    Args:
        base_url: where the API is, e.g. `http://127.0.0.1:8000`.
        api_key: its API_KEY, if it has one; sent as a header, never as part of an address.
        timeout_seconds: how long an answer may take to begin.
        attempts: how often what only reads is tried, with growing pauses, while the API is away or busy.

    Raises:
        ValueError: base_url has a query.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, *, timeout_seconds: float = 30.0, attempts: int = 4
    ) -> None:
        self._transport = Transport(base_url, api_key, timeout_seconds, attempts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    # The engine

    def info(self) -> Info:
        """Which competition this is."""
        return parsed(Info, self._transport.get("/info"))

    def readiness(self) -> Readiness:
        """Whether the API can serve, and what does not work behind it; one that is not ready is no error."""
        return parsed(Readiness, self._transport.get("/readyz", also=NOT_READY))

    def events(self) -> Iterator[LiveEvent]:
        """What changes, as it does, after the present state; the stream is opened anew when it breaks.

        Between two events there may be any time; a stream that is silent for longer than `timeout_seconds` is broken,
        so let that be well above 15 s.
        """
        while True:
            try:
                with closing(self._transport.send("GET", "/reports/events", stream=True)) as answer:
                    yield from events_of(answer.iter_lines())
            except requests.RequestException:
                pass  # the connection broke; whether the API can be reached at all, `send` finds out
            self._transport.rest()

    # The competition

    def leaderboard(self, *, include_ensembles: bool = False) -> list[LeaderboardEntry]:
        """The newest leaderboard, by rank."""
        return self._list(LeaderboardEntry, "/reports/leaderboard", include_ensembles=include_ensembles)

    def models(self) -> list[ModelEntry]:
        """The submitted models, by name."""
        return self._list(ModelEntry, "/reports/models")

    def predictions(
        self,
        model_ids: Sequence[str] = (),
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = None,
    ) -> list[PredictionPoint]:
        """Predictions with their scores, oldest first, by default of the last seven days.

        Long series come aggregated by time bucket, unless `limit` (at most 1,000) asks for the newest so many.
        """
        return self._list(
            PredictionPoint, "/reports/predictions", projectIds=list(model_ids), start=start, end=end, limit=limit
        )

    def snapshots(
        self, model_id: str | None = None, *, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[SnapshotEntry]:
        """Snapshots, newest first."""
        return self._pages(SnapshotEntry, "/reports/snapshots", model_id=model_id, since=since, until=until)

    def rows(self, path: str, /, **parameters: object) -> Iterator[JsonObject]:
        """The rows of any other list of the API, such as `/reports/models/global`, as they are, page after page."""
        return (parsed(dict[str, Any], row) for row in self._transport.pages(path, parameters))

    def document(self, path: str, /, **parameters: object) -> JsonObject:
        """Any other document of the API, such as `/reports/models/{model_id}/diversity`, as it is."""
        return parsed(dict[str, Any], self._transport.get(path, parameters))

    # Feeds and history

    def feeds(self) -> list[FeedSummary]:
        """Every feed with what is stored of it."""
        return self._list(FeedSummary, "/reports/feeds")

    def feed_tail(
        self,
        *,
        source: str | None = None,
        subject: str | None = None,
        kind: str | None = None,
        granularity: str | None = None,
        limit: int = 20,
    ) -> list[FeedRecordEntry]:
        """The newest records of the feeds that match, newest first."""
        return self._list(
            FeedRecordEntry,
            "/reports/feeds/tail",
            source=source,
            subject=subject,
            kind=kind,
            granularity=granularity,
            limit=limit,
        )

    def order_backfill(self, order: BackfillOrder) -> BackfillJob:
        """Ask for history; 409 while another job runs."""
        return parsed(BackfillJob, self._transport.change("POST", "/reports/backfill", order.model_dump(mode="json")))

    def backfill_jobs(self, status: BackfillStatus | None = None) -> Iterator[BackfillJob]:
        """History jobs, newest first."""
        return self._pages(BackfillJob, "/reports/backfill/jobs", status=status)

    def backfill_job(self, job_id: str) -> BackfillJob:
        """One job and how far it has come."""
        return parsed(BackfillJob, self._transport.get(f"/reports/backfill/jobs/{segment(job_id)}"))

    def backfill_files(
        self,
        *,
        source: str | None = None,
        subject: str | None = None,
        kind: str | None = None,
        granularity: str | None = None,
    ) -> list[BackfillFile]:
        """The Parquet files of the feeds that match, by path."""
        return self._list(
            BackfillFile,
            "/data/backfill/index",
            source=source,
            subject=subject,
            kind=kind,
            granularity=granularity,
        )

    def download(self, file: BackfillFile, folder: Path) -> Path:
        """Fetch one file into the folder, at its own path below it; what stands there is replaced by a whole one.

        Raises:
            ValueError: the file's path leads out of the folder.
            OSError: it cannot be written.
        """
        place = place_of(file, folder)
        fetch(self._transport, file, place)
        return place

    def download_if_changed(self, file: BackfillFile, folder: Path) -> bool:
        """The same, where it is not there yet as the API has it; returns whether it had to be fetched.

        What is there is known by its ETag, which stands beside it in a hidden file.

        Raises:
            ValueError: the file's path leads out of the folder.
            OSError: it cannot be written.
        """
        return fetch_if_changed(self._transport, file, place_of(file, folder))

    # Payouts

    def checkpoints(self, status: CheckpointStatus | None = None) -> Iterator[Checkpoint]:
        """Checkpoints, newest first."""
        return self._pages(Checkpoint, "/reports/checkpoints", status=status)

    def latest_checkpoint(self) -> Checkpoint:
        """The checkpoint whose period ends last; 404 before the first."""
        return parsed(Checkpoint, self._transport.get("/reports/checkpoints/latest"))

    def checkpoint_payload(self, checkpoint_id: str) -> CheckpointPayload:
        """What is to be sent to the chain, with the ranking that its indexes point into."""
        return parsed(CheckpointPayload, self._transport.get(_checkpoint(checkpoint_id, "payload")))

    def checkpoint_emission(self, checkpoint_id: str) -> RetainingEmission:
        """The reward shares, in frac64: 1_000_000_000 is 100 %."""
        return parsed(RetainingEmission, self._transport.get(_checkpoint(checkpoint_id, "emission")))

    def checkpoint_cli_emission(self, checkpoint_id: str) -> CliEmission:
        """The reward shares in percent, as the chain's command line takes them."""
        return parsed(CliEmission, self._transport.get(_checkpoint(checkpoint_id, "emission/cli-format")))

    def latest_emission(self) -> CheckpointEmission:
        """The newest checkpoint's reward shares."""
        return parsed(CheckpointEmission, self._transport.get("/reports/emissions/latest"))

    def prizes(self, checkpoint_id: str, total_prize: int) -> list[Prize]:
        """The pool divided by a checkpoint's emission; integers that sum to exactly `total_prize`."""
        return self._list(Prize, _checkpoint(checkpoint_id, "prizes"), total_prize=total_prize)

    def latest_prizes(self, total_prize: int) -> CheckpointPrizes:
        """The pool divided by the newest emission."""
        found = self._transport.get("/reports/checkpoints/latest/prizes", {"total_prize": total_prize})
        return parsed(CheckpointPrizes, found)

    def confirm_checkpoint(self, checkpoint_id: str, tx_hash: str) -> Checkpoint:
        """PENDING to SUBMITTED, with its transaction; the same again changes nothing."""
        body = {"tx_hash": tx_hash}
        return parsed(Checkpoint, self._transport.change("POST", _checkpoint(checkpoint_id, "confirm"), body))

    def advance_checkpoint(self, checkpoint_id: str, status: CheckpointStatus) -> Checkpoint:
        """One step forward; 409 for any other."""
        body = {"status": status.value}
        return parsed(Checkpoint, self._transport.change("PATCH", _checkpoint(checkpoint_id, "status"), body))

    # Tournament rounds

    def ask_round(self, round_id: str, features: Sequence[JsonObject]) -> Round:
        """Queue a round: every model is asked for one prediction for each feature row."""
        body = {"features": list(features)}
        return parsed(Round, self._transport.change("POST", _round(round_id, "inference"), body))

    def score_round(self, round_id: str, ground_truth: Sequence[JsonObject | None] | JsonObject) -> Round:
        """Give a round's ground truth; see RoundTruth for its forms."""
        given = ground_truth if isinstance(ground_truth, dict) else list(ground_truth)
        return parsed(Round, self._transport.change("POST", _round(round_id, "score"), {"ground_truth": given}))

    def round_status(self, round_id: str) -> Round:
        """How far a round has come."""
        return parsed(Round, self._transport.get(_round(round_id, "status")))

    # Positional, because parameters of the API have any name, `kind` and `path` among them.
    def _list[M: BaseModel](self, row: type[M], path: str, /, **parameters: object) -> list[M]:
        return parsed(list[row], self._transport.get(path, parameters))  # type: ignore[valid-type] # a generic's own type

    def _pages[M: BaseModel](self, row: type[M], path: str, /, **parameters: object) -> Iterator[M]:
        for found in self._transport.pages(path, {**parameters, "limit": PAGE_ROWS}):
            yield parsed(row, found)


def _checkpoint(checkpoint_id: str, what: str) -> str:
    return f"/reports/checkpoints/{segment(checkpoint_id)}/{what}"


def _round(round_id: str, what: str) -> str:
    return f"/tournament/rounds/{segment(round_id)}/{what}"
