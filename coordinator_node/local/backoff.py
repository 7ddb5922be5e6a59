"""How long to wait before something that ended is started again."""

from __future__ import annotations

FIRST_SECONDS = 0.5
MOST_SECONDS = 5.0
# Something that ran this long was well: the next end is a new story.
CALM_SECONDS = 10.0


class Backoff:
    """Pauses that double from half a second to five, and begin anew after a run of ten seconds."""

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def after(self, uptime_seconds: float) -> float:
        """The pause in seconds after a run that lasted `uptime_seconds`."""
        if uptime_seconds >= CALM_SECONDS:
            self._next = FIRST_SECONDS
        pause = self._next
        self._next = min(MOST_SECONDS, pause * 2)
        return pause
