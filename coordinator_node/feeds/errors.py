"""What a source raises, by what its caller can do about it."""

from __future__ import annotations

from coordinator_node.entities.errors import TemporaryError


class FeedError(Exception):
    """Something went wrong with a source; the subclasses say whether another try can help."""


class RetryableFeedError(FeedError, TemporaryError):
    """The same request may succeed later: a dropped connection, a busy venue.

    `retry_after` is how many seconds the venue asked to wait; None where it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentFeedError(FeedError):
    """The same request will fail for ever: a wrong setting, an unknown symbol, a refused key.

    `subject` is the one subject at fault, where it is only one: the others can be had without it. None where the
    fault is the whole request's.
    """

    def __init__(self, message: str, *, subject: str | None = None) -> None:
        super().__init__(message)
        self.subject = subject


class NoHistoryError(PermanentFeedError):
    """The source keeps no past records of the kind asked for; listening to it works."""


class MalformedRecordError(FeedError):
    """One record cannot be stored as it is; the records beside it can.

    `subject` is the record's own, in the form it had; `reason` says what is wrong with it.
    """

    def __init__(self, subject: object, reason: str) -> None:
        super().__init__(f"record of {subject!r} refused: {reason}")
        self.subject = subject
        self.reason = reason
