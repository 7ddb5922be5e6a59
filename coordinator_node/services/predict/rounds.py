"""Asks the models of a round: each goes through the feature rows at its own pace, and none waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from coordinator_node.services.predict.lanes import Answer, Lanes
from coordinator_node.services.predict.outcomes import ABSENT, Outcomes
from coordinator_node.services.predict.round_calls import RoundCall, RoundRow
from coordinator_node.services.predict.slots import INTERRUPTED, ShardCall
from coordinator_node.services.predict.writer import PredictionWriter


class Rounds:
    """Works off claimed calls of rounds. `keeps` says whether a call is still this worker's to ask."""

    def __init__(
        self, lanes: Lanes, writer: PredictionWriter, outcomes: Outcomes, keeps: Callable[[ShardCall], bool]
    ) -> None:
        self._lanes = lanes
        self._writer = writer
        self._outcomes = outcomes
        self._keeps = keeps

    async def ask(self, call: RoundCall) -> None:
        """Ask until every model has a prediction of every row, or until the call is no longer this worker's."""
        ended = False
        try:
            ended = all(await asyncio.gather(*(self._ask_model(call, model_id) for model_id in call.model_ids)))
        finally:
            if ended:
                self._writer.close(call)
            else:
                self._writer.leave(call)

    async def _ask_model(self, call: RoundCall, model_id: str) -> bool:
        """Whether the model has been asked every row that was left."""
        for row in call.left(model_id):
            if not self._keeps(call):
                return False
            try:
                columns = await self._outcome(row, model_id)
            except asyncio.CancelledError:
                # The worker ends. What the model says to this row is lost; the next worker goes on behind it.
                self._put(call, row, model_id, self._outcomes.of(Answer(error=INTERRUPTED)))
                return False
            self._put(call, row, model_id, columns)
        return True

    async def _outcome(self, row: RoundRow, model_id: str) -> dict[str, Any]:
        if row.call is None:
            return self._outcomes.of(Answer(error=row.fault))
        lane = self._lanes.get(model_id)
        if lane is None:
            await asyncio.sleep(0)  # thousands of rows of an absent model hold nobody up
            return ABSENT
        return self._outcomes.of(await lane.ask(row.call))

    def _put(self, call: RoundCall, row: RoundRow, model_id: str, columns: dict[str, Any]) -> None:
        self._writer.put(call, call.prediction(row, model_id, columns))
