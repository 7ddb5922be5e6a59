"""Records of a coordinator's report API, kept on this machine: a day is fetched again only if it changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import requests

from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.file_names import UnsafeNameError, safe_name
from coordinator_node.services.backfill.files import feed_folder

TIMEOUT_SECONDS = 30


class CoordinatorError(RuntimeError):
    """The coordinator did not give what was asked of it; the message says what and why."""


@dataclass(frozen=True)
class RemoteDay:
    """One day's file, by the parts of its path."""

    source: str
    subject: str
    kind: str
    granularity: str
    day: date

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.day.isoformat()}.parquet"


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
        self._session = requests.Session()
        if api_key:
            self._session.headers["X-API-Key"] = api_key
        self.root = Path(cache) if cache else _own_cache() / parts.netloc.replace(":", "_")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def days(self, **wanted: str | None) -> list[RemoteDay]:
        """The files of the feeds that match; None matches all.

        Raises:
            CoordinatorError: it does not answer, or says something else.
        """
        answer = self._get("/data/backfill/index", {name: value for name, value in wanted.items() if value})
        try:
            return [_day_of(entry["path"]) for entry in answer.json()]
        except (ValueError, TypeError, KeyError, UnsafeNameError) as error:
            raise CoordinatorError(f"{self._url}/data/backfill/index answered something else: {error}") from error

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
        found: dict[str, Any] = self._get(f"/reports/models/{quote(model_id, safe='')}/diversity").json()
        return found

    def _fetch(self, day: RemoteDay) -> bool:
        folder = feed_folder(self.root, day.source, day.subject, day.kind, day.granularity)
        place, tag = folder / day.name, folder / f".{day.name}.etag"
        known = tag.read_text() if place.is_file() and tag.is_file() else ""
        parts = (day.source, day.subject, day.kind, day.granularity, day.name)
        path = "/data/backfill/" + "/".join(quote(part, safe="") for part in parts)
        answer = self._get(path, headers={"If-None-Match": known} if known else {})
        if answer.status_code == requests.codes.not_modified:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        # First the old tag goes: killed here or later, the day is fetched anew.
        tag.unlink(missing_ok=True)
        unfinished = folder / f".{day.name}.{os.getpid()}.unfinished"
        unfinished.write_bytes(answer.content)
        unfinished.replace(place)
        if etag := answer.headers.get("ETag"):
            tag.write_text(etag)
        return True

    def _get(
        self, path: str, params: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> requests.Response:
        try:
            answer = self._session.get(self._url + path, params=params, headers=headers, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise CoordinatorError(f"{self._url}{path}: {error}") from error
        if answer.status_code not in (requests.codes.ok, requests.codes.not_modified):
            raise CoordinatorError(f"{self._url}{path} answered {answer.status_code}: {answer.text[:200]}")
        return answer


def _day_of(path: str) -> RemoteDay:
    source, subject, kind, granularity, file = path.split("/")
    names = {"source": source, "subject": subject, "kind": kind, "granularity": granularity}
    day = date.fromisoformat(file.removesuffix(".parquet"))
    return RemoteDay(**{what: safe_name(what, name) for what, name in names.items()}, day=day)


def _own_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coordinator-node"
