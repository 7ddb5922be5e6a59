"""A listening as an asyncio task whose end, and whose failure, can be seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from coordinator_node.feeds.base import ObservableFeedHandle
from coordinator_node.feeds.errors import FeedError


class ListeningTask(ObservableFeedHandle):
    """Runs `run(stopping)` as a task; `stopping` is set when the task should finish what it holds and return.

    Must be made inside a running event loop. `name` stands in the messages.
    """

    def __init__(self, name: str, run: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
        self._name = name
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(run(self._stopping), name=f"listening to {name}")

    async def wait(self) -> None:
        """Returns once the task ended because it was stopped.

        Raises:
            FeedError: the task returned or was cancelled without being stopped.
            Exception: whatever the task failed with.
        """
        await asyncio.wait({self._task})
        self._raise_failure()

    async def stop(self) -> None:
        """Asks the task to end and waits for it; raises what it failed with, before or during its end.

        A caller that gives up (its own task cancelled) takes the listening down with it.
        """
        self._stopping.set()
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        self._raise_failure()

    def _raise_failure(self) -> None:
        if not self._task.cancelled():
            error = self._task.exception()
            if error is not None:
                raise error
        if not self._stopping.is_set():
            how = "was cancelled" if self._task.cancelled() else "returned"
            raise FeedError(f"listening to {self._name} {how} although nobody stopped it; no more records would come")
