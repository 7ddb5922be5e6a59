"""The transport to Pyth: requests, in threads, to Hermes (the present, and prices at a time) and Benchmarks (the past).

See https://hermes.pyth.network/docs and https://benchmarks.pyth.network/docs for the endpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from requests.auth import AuthBase

from coordinator_node.feeds.errors import PermanentFeedError, RetryableFeedError
from coordinator_node.feeds.pyth.errors import feed_error
from coordinator_node.feeds.pyth.prices import PriceUpdate, updates_of
from coordinator_node.feeds.venue.answers import date_ms
from coordinator_node.feeds.venue.fields import UnreadableError
from coordinator_node.feeds.venue.token_bucket import TokenBucket
from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)

HERMES_URL = "https://hermes.pyth.network"
BENCHMARKS_URL = "https://benchmarks.pyth.network"

WINDOW_SECONDS = 60
"""The longest interval of Benchmarks; both its ends are included."""

STREAM_SILENCE_SECONDS = 60.0
"""After how long without a byte the stream counts as lost; Hermes sends several updates a second."""

NOTHING_YET = ("update data not found", "benchmark price is not unique")
"""What Hermes says with 404 where a feed has no update at or after the time asked for."""

NOTHING_THERE = ("update",)
"""What Benchmarks' 404 speaks of where an interval has no update; a 404 for a wrong address does not."""


def polite_bucket() -> TokenBucket:
    """Within 30 requests in any 10 s, which is what Hermes and Benchmarks allow an address together."""
    return TokenBucket(burst=5, per_second=2.5)


@dataclass(frozen=True)
class Access:
    """Where Pyth is and how it is asked; the key may be empty."""

    hermes_url: str = HERMES_URL
    benchmarks_url: str = BENCHMARKS_URL
    timeout_seconds: float = 5.0
    api_key: str = ""


@dataclass(frozen=True)
class Latest:
    """The newest update of each feed asked for, and the venue's clock in epoch milliseconds."""

    updates: dict[str, PriceUpdate]
    now_ms: int


class _Bearer(AuthBase):
    """Sends the key. As an auth object, it also keeps requests from putting a .netrc entry in its place."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class PythClient:
    """One client; made by `open_client`. Every request waits for its turn in the bucket."""

    def __init__(self, session: requests.Session, access: Access, bucket: TokenBucket) -> None:
        self._session = session
        self._access = access
        self.bucket = bucket

    async def latest(self, subjects: Mapping[str, str]) -> Latest:
        """The newest update of each feed; `subjects` are those asked for, by feed id.

        Raises:
            PermanentFeedError: a feed that does not exist or that the key does not cover; no key, where one is needed.
            RetryableFeedError: no answer, an unreadable one, or one that lacks a feed.
        """
        what = f"the latest prices of {', '.join(subjects.values())}"
        params = [("ids[]", feed_id) for feed_id in subjects] + [("parsed", "true")]
        response = await self._get(what, f"{self._access.hermes_url}/v2/updates/price/latest", params, subjects)
        updates = {each.feed_id: each for each in self._updates(response, what)}
        absent = [subject for feed_id, subject in subjects.items() if feed_id not in updates]
        if absent:
            raise RetryableFeedError(f"Pyth's answer to {what} lacks {', '.join(absent)}")
        newest_ms = max(each.publish_time for each in updates.values()) * 1000
        return Latest(updates, max(date_ms(response.headers) or 0, newest_ms))

    async def price_at(self, feed_id: str, subject: str, seconds: int) -> PriceUpdate | None:
        """The first update at or after a time in epoch seconds; None where there is none yet.

        Raises as `latest`.
        """
        what = f"the price of {subject} at {seconds}"
        params = [("ids[]", feed_id), ("parsed", "true")]
        url = f"{self._access.hermes_url}/v2/updates/price/{seconds}"
        response = await self._get(what, url, params, {feed_id: subject}, absent=NOTHING_YET)
        if response is None:
            return None
        found = [each for each in self._updates(response, what) if each.feed_id == feed_id]
        return min(found, key=lambda each: each.publish_time) if found else None

    async def window(self, feed_id: str, subject: str, seconds: int) -> list[PriceUpdate]:
        """The updates from a time in epoch seconds to WINDOW_SECONDS later, both included, in time order.

        Raises as `latest`.
        """
        what = f"the prices of {subject} from {seconds} on"
        params = [("ids", feed_id), ("parsed", "true"), ("unique", "true")]
        url = f"{self._access.benchmarks_url}/v1/updates/price/{seconds}/{WINDOW_SECONDS}"
        response = await self._get(what, url, params, {feed_id: subject}, absent=NOTHING_THERE)
        if response is None:
            return []
        found = [each for each in self._updates(response, what) if each.feed_id == feed_id and each.is_first]
        return sorted(found, key=lambda each: each.publish_time)

    async def wait_for_turn(self) -> None:
        """Returns when another request may be made."""
        seconds = self.bucket.reserve()
        if seconds > 0:
            await asyncio.sleep(seconds)

    def open_stream(self, subjects: Mapping[str, str]) -> requests.Response:
        """The answer that goes on for as long as it is read; blocks, and is to be closed by the caller.

        Raises as `latest`.
        """
        what = f"the price stream of {', '.join(subjects.values())}"
        params = [("ids[]", feed_id) for feed_id in subjects] + [("parsed", "true"), ("benchmarks_only", "true")]
        url = f"{self._access.hermes_url}/v2/updates/price/stream"
        response: requests.Response = self._request(
            what, url, params, subjects, silence_seconds=STREAM_SILENCE_SECONDS, stream=True
        )
        return response

    async def _get(
        self,
        what: str,
        url: str,
        params: Sequence[tuple[str, str]],
        subjects: Mapping[str, str],
        absent: Sequence[str] = (),
    ) -> Any:
        """The answer; None for a 404 that says one of `absent`."""
        await self.wait_for_turn()
        return await asyncio.to_thread(self._request, what, url, params, subjects, absent)

    def _request(
        self,
        what: str,
        url: str,
        params: Sequence[tuple[str, str]],
        subjects: Mapping[str, str],
        absent: Sequence[str] = (),
        silence_seconds: float | None = None,
        stream: bool = False,
    ) -> Any:
        timeout = self._access.timeout_seconds
        try:
            response = self._session.get(
                url,
                params=list(params),
                auth=_Bearer(self._access.api_key),
                timeout=(timeout, silence_seconds or timeout),
                stream=stream,
            )
            if response.ok:
                return response
            with response:
                said = response.text
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.MissingSchema,
            requests.exceptions.InvalidSchema,
        ) as error:
            raise PermanentFeedError(f"{error}: correct PYTH_HERMES_URL or PYTH_BENCHMARKS_URL") from error
        except (requests.RequestException, OSError) as error:
            raise RetryableFeedError(f"Pyth cannot be reached for {what}: {error!r}") from error
        if response.status_code == 404 and any(each in said.lower() for each in absent):
            return None
        with_key = bool(self._access.api_key)
        raise feed_error(what, response.status_code, response.headers, said, subjects, with_key=with_key)

    def _updates(self, response: requests.Response, what: str) -> list[PriceUpdate]:
        """The updates of one answer, or of a list of such."""
        try:
            answer = response.json()
            parts = answer if isinstance(answer, list) else [answer]
            return [each for part in parts for each in updates_of(part, what)]
        except (UnreadableError, ValueError) as error:
            raise RetryableFeedError(f"Pyth's answer to {what} cannot be read: {error}") from error


@contextmanager
def open_client(access: Access, bucket: TokenBucket) -> Iterator[PythClient]:
    """A client for as long as the context is open; it does not ask the venue anything yet."""
    with requests.Session() as session:
        yield PythClient(session, access, bucket)
