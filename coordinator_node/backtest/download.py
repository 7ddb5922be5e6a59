"""Records of a coordinator's report API, kept on this machine: a day is fetched again only if it changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from coordinator_node.client import ApiAnswerError, ApiUnreachableError, CoordinatorClient
from coordinator_node.client.transport import without_password
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.file_names import safe_name
from coordinator_node.schemas.report.backfill import BackfillFile

OK = 200


class CoordinatorError(RuntimeError):
    """The coordinator did not give what was asked of it; the message says what and why."""


@dataclass(frozen=True)
class RemoteDay:
    """One day's file, and the parts of its path."""

    source: str
    subject: str
    kind: str
    granularity: str
    day: date
    file: BackfillFile


class Coordinator:
    """A coordinator's report API. Use it as a context manager.

    Args:
        url: where it answers, as in https://coordinator.example.
        api_key: its API_KEY, where it asks for one; None for none.
        cache: the folder to keep files in; None means one of the user's own, by the coordinator's address.
    """

    def __init__(self, url: str, api_key: str | None = None, cache: str | Path | None = None) -> None:
        self._url = url.rstrip("/")
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigurationError(f"{url!r} is no address of a coordinator, such as https://coordinator.example")
        try:
            self._shown = without_password(self._url)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._client = CoordinatorClient(self._url, api_key)
        self.root = Path(cache) if cache else _own_cache() / urlsplit(self._shown).netloc.replace(":", "_")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def days(self, **wanted: str | None) -> list[RemoteDay]:
        """The files of the feeds that match; None matches all.

        Raises:
            CoordinatorError: it does not answer, or says something else.
        """
        with self._saying("/data/backfill/index"):
            files = self._client.backfill_files(**{name: value for name, value in wanted.items() if value})
        try:
            return [_day_of(file) for file in files]
        except ValueError as error:
            raise CoordinatorError(f"{self._shown}/data/backfill/index answered something else: {error}") from error

    def fetch(self, days: Sequence[RemoteDay]) -> list[bool]:
        """Bring files up to date; for each, whether it had to be fetched.

        Raises:
            CoordinatorError: a file is not given.
            OSError: it cannot be written.
        """
        return [self._fetch(day) for day in days]

    def diversity(self, model_id: str) -> dict[str, Any]:
        """What the coordinator says about how a deployed model compares with the others.

        Raises:
            CoordinatorError: it does not know the model, or does not answer.
        """
        path = f"/reports/models/{quote(model_id, safe='')}/diversity"
        with self._saying(path):
            return self._client.document(path)

    def _fetch(self, day: RemoteDay) -> bool:
        with self._saying(f"/data/backfill/{day.file.path}"):
            return self._client.download_if_changed(day.file, self.root)

    @contextmanager
    def _saying(self, path: str) -> Iterator[None]:
        """Turns the client's errors into a CoordinatorError that names the coordinator."""
        try:
            yield
        except ApiUnreachableError as error:
            raise CoordinatorError(str(error)) from error
        except ApiAnswerError as error:
            said = f"something else: {error}" if error.status == OK else f"{error.status}: {error.detail}"
            raise CoordinatorError(f"{self._shown}{path} answered {said}") from error


def _day_of(file: BackfillFile) -> RemoteDay:
    """A file by its path, which must be one that may be written.

    Raises:
        ValueError: it is another.
    """
    source, subject, kind, granularity, name = file.path.split("/")
    names = {"source": source, "subject": subject, "kind": kind, "granularity": granularity}
    day = date.fromisoformat(name.removesuffix(".parquet"))
    if name != f"{day.isoformat()}.parquet":
        raise ValueError(f"{name!r} is no file of a day, such as 2026-01-31.parquet")
    return RemoteDay(**{what: safe_name(what, each) for what, each in names.items()}, day=day, file=file)


def _own_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coordinator-node"
