"""The score stage."""

from __future__ import annotations

from sqlalchemy import Engine

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.score.service import ScoreStage
from coordinator_node.services.score.stateful import StatefulScoreStage

__all__ = ["ScoreStage", "StatefulScoreStage", "score_stage"]


def score_stage(engine: Engine, config: CrunchConfig, settings: Settings) -> ScoreStage:
    """The stage that scores by this config, whether its scoring function keeps state or not.

    Raises:
        ConfigurationError: for what cannot be imported or called.
    """
    stage = StatefulScoreStage if config.stateful_scoring else ScoreStage
    return stage(engine, config, settings)
