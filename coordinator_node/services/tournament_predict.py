"""Tournament mode: rounds that a client opens and scores. Here for custom endpoints; the built-in ones need no code."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine
from sqlmodel import Session

from coordinator_node.config.settings import load_settings
from coordinator_node.config_loader import load_config
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import transaction
from coordinator_node.db.repositories import DBScoreRepository
from coordinator_node.db.session import create_session
from coordinator_node.entities.errors import TemporaryError
from coordinator_node.entities.prediction import PredictionRecord, ScoreRecord
from coordinator_node.entities.tournament import RoundStatus
from coordinator_node.runtime.clock import database_time
from coordinator_node.runtime.heartbeat import any_alive
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.score import score_stage
from coordinator_node.services.tournament.errors import NoPredictWorkerError, RoundConflictError
from coordinator_node.services.tournament.rounds import (
    queue_round,
    round_predictions,
    round_scores,
    round_status,
)
from coordinator_node.services.tournament.truths import count_due, give_truth

log = get_logger(__name__)

POLL_SECONDS = 0.1
# What a predict worker may need besides the call itself, such as for taking over the shards of one that died.
SLACK_SECONDS = 15.0
# So long is waited for predictions that another score worker is busy with.
SCORING_SECONDS = 60.0


class TournamentPredictService:
    """Rounds of a tournament, over the same rows as the built-in endpoints: the predict workers call the models.

    Args:
        score_repository: its session's database is used; None means that of the environment.
        scoring_function: what `score_round` scores with; None means the config's, which the score workers use.
        kwargs: `config` or its older name `contract`, a CrunchConfig, instead of the one that `load_config` finds. All
            else that was passed to earlier versions (repositories, runners, readers) is accepted and not used.
    """

    def __init__(
        self, score_repository: DBScoreRepository | None = None, scoring_function: Any | None = None, **kwargs: Any
    ) -> None:
        self.score_repository = score_repository
        self.scoring_function = scoring_function
        self.options = kwargs

    async def run(self) -> None:
        """Wait until cancelled: the predict workers serve rounds, and nothing has to run here."""
        await asyncio.Event().wait()

    async def run_inference(
        self, round_id: str, features: list[dict[str, Any]], now: datetime | None = None
    ) -> list[PredictionRecord]:
        """One prediction of every known model for every entry of `features`.

        Queues the round and waits until every model is done, or until none has answered for as long as a call may take
        (MODEL_RUNNER_TIMEOUT_SECONDS); then the predictions there are, and the round goes on.

        Raises:
            RoundInputError: the features are not as they must be.
            RoundConflictError: there is a round of this id, no model is known, or the config is not for tournaments.
            NoPredictWorkerError: none is alive; the round was not queued.
        """
        await asyncio.to_thread(self._queue, round_id, features, now)
        await self._called(round_id)
        return await asyncio.to_thread(self.get_round_predictions, round_id)

    def score_round(
        self, round_id: str, ground_truth: dict[str, Any] | list[dict[str, Any]], now: datetime | None = None
    ) -> list[ScoreRecord]:
        """The scores of a round's predictions, by feature index and model.

        The ground truth is stored as the endpoint stores it, and what is due is scored here rather than when a score
        worker comes to it. Failed and absent predictions have no score.

        Args:
            round_id: which round.
            ground_truth: a list with an entry for each feature row; an object by feature index; or one for all rows.
            now: when it is given; None means now.

        Raises:
            UnknownRoundError: there is none of that id.
            RoundConflictError: its models are still being asked, or a row has another truth.
            RoundInputError: the ground truth is not as it must be.
            TemporaryError: a score worker holds predictions of the round and does not come to an end with them.
        """
        config = self._config()
        with transaction(self._engine()) as session:
            due = give_truth(session, config, round_id, ground_truth, now or database_time(session))
        self._score(round_id, config, due)
        with Session(self._engine()) as session:
            return round_scores(session, round_id)

    def get_round_predictions(self, round_id: str, status: str | None = None) -> list[PredictionRecord]:
        """A round's predictions, or those of one status, by feature index and model; [] where there is no such round.

        `scope["feature_index"]` says which row a prediction is for.
        """
        with Session(self._engine()) as session:
            return round_predictions(session, round_id, status)

    def get_round_status(self, round_id: str) -> dict[str, Any]:
        """How far a round has come; the keys are those of `services.tournament.rounds.round_status`.

        Raises:
            UnknownRoundError: there is none of that id.
        """
        with Session(self._engine()) as session:
            return round_status(session.connection(), round_id)

    def _queue(self, round_id: str, features: list[dict[str, Any]], now: datetime | None) -> None:
        config = self._config()
        if not is_tournament(config):
            raise RoundConflictError(
                f"round {round_id!r} was not queued: the config is not for tournaments; set mode='tournament' in it"
            )
        with transaction(self._engine()) as session:
            if not any_alive(session, "predict"):
                raise NoPredictWorkerError(
                    f"round {round_id!r} was not queued: no predict worker is alive that would call the models"
                )
            queue_round(session, config, round_id, features, now or database_time(session))

    async def _called(self, round_id: str) -> None:
        """Wait until all models were asked, or nothing has happened for too long."""
        patience = load_settings().model_runner_timeout_seconds + SLACK_SECONDS
        loop = asyncio.get_running_loop()
        predictions, changed_at = 0, loop.time()
        while loop.time() - changed_at < patience:
            status = await asyncio.to_thread(self.get_round_status, round_id)
            if status["status"] not in (RoundStatus.QUEUED, RoundStatus.CALLING):
                return
            if status["predictions"] != predictions:
                predictions, changed_at = status["predictions"], loop.time()
            await asyncio.sleep(POLL_SECONDS)
        log.warning("round is not complete yet", round_id=round_id, predictions=predictions, waited_seconds=patience)

    def _score(self, round_id: str, config: CrunchConfig, due: datetime) -> None:
        """Score until nothing of the round is due any more; score workers may do the same meanwhile."""
        if self.scoring_function is not None:
            config = config.model_copy(update={"scoring_function": self.scoring_function})
        stage = score_stage(self._engine(), config, load_settings())
        give_up = time.monotonic() + SCORING_SECONDS
        while self._waiting(round_id, due):
            if not any(stage.run_once(due).counts.values()):
                if time.monotonic() > give_up:
                    raise TemporaryError(f"round {round_id!r}: another score worker is still busy with its predictions")
                time.sleep(POLL_SECONDS)

    def _waiting(self, round_id: str, due: datetime) -> int:
        with Session(self._engine()) as session:
            return count_due(session, round_id, due)

    def _config(self) -> CrunchConfig:
        given = (self.options.get("config"), self.options.get("contract"))
        return next((one for one in given if isinstance(one, CrunchConfig)), None) or load_config()

    def _engine(self) -> Engine:
        session = getattr(self.score_repository, "_session", None)
        if not isinstance(session, Session):
            session = create_session()
        bind = session.get_bind()
        return bind.engine if isinstance(bind, Connection) else bind


def is_tournament(config: CrunchConfig) -> bool:
    """Whether the config asks for tournament mode: by `mode`, or by `predict_service_class`."""
    service = config.predict_service_class
    return config.mode == "tournament" or (service is not None and issubclass(service, TournamentPredictService))
