"""Why a round is refused, told apart by what its client should do."""

from __future__ import annotations

from coordinator_node.entities.errors import TemporaryError


class UnknownRoundError(LookupError):
    """There is no round of that id."""

    def __init__(self, round_id: str) -> None:
        super().__init__(f"there is no round {round_id!r}")


class RoundConflictError(ValueError):
    """The state that the round, or the competition, is in does not allow it."""


class RoundInputError(ValueError):
    """The features or the ground truth are not as they must be; the message names the place."""


class NoPredictWorkerError(TemporaryError):
    """Nobody is there who would call the models."""
