"""How much one score worker claims at once, so that others have their share of what is slow."""

from __future__ import annotations

from builders import one
from score_history import MODELS, ScoreHistory
from sqlalchemy import Engine

from coordinator_node.config.settings import load_settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.score import score_stage
from coordinator_node.services.score.claim_size import CLAIM_SECONDS, FIRST, ClaimSize


def test_it_is_what_fits_into_the_time_and_follows_the_function() -> None:
    size = ClaimSize(2000)
    assert size.limit == FIRST
    size.took(100, 100 * CLAIM_SECONDS)
    assert size.limit == 1
    size.took(1, CLAIM_SECONDS / 50)
    assert size.limit == 50
    size.took(50, 0.0)
    assert size.limit == 2000


def test_a_pass_that_scored_nothing_says_nothing() -> None:
    size = ClaimSize(2000)
    size.took(0, 0.0)
    assert size.limit == FIRST


def test_a_slow_function_leaves_the_rest_of_the_backlog_to_others(engine: Engine) -> None:
    history = ScoreHistory(engine)
    history.add_models()
    history.add_due(0, 4)
    config = CrunchConfig(scoring_function=lambda prediction, ground_truth: {"value": 1.0})
    stage = score_stage(engine, config, load_settings({"FEED_SOURCE": "simulated"}))
    done = stage.run_once(history.resolved_at(4))
    assert done.again
    assert one(engine, "SELECT count(*) FROM scores") == FIRST < 4 * MODELS
    while stage.run_once(history.resolved_at(4)).again:
        pass
    assert one(engine, "SELECT count(*) FROM predictions WHERE status = 'PENDING'") == 0
