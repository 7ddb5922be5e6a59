"""How many predictions one pass claims: what it scores in a short time, so that other workers have their share."""

from __future__ import annotations

FIRST = 100
CLAIM_SECONDS = 0.25


class ClaimSize:
    """The size of the next claim, by how long the scoring function took for those before.

    A slow function's claims are small, so that a backlog is spread over all workers, however short it is; those of a
    quick one grow to `most`, because each claim costs a transaction.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.limit = min(FIRST, most)

    def took(self, scored: int, seconds: float) -> None:
        """Take note of how long so many predictions were scored for; of none, nothing can be said."""
        if scored:
            fitting = self._most if seconds <= 0 else int(CLAIM_SECONDS * scored / seconds)
            self.limit = max(1, min(self._most, fitting))
