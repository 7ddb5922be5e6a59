"""What the predict worker refuses at its start, rather than in every slot."""

from __future__ import annotations

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.checks.startup import check_service, warn_at_start
from coordinator_node.services.feed_scope import FeedScope
from coordinator_node.services.predict.answers import output_validator
from coordinator_node.services.predict.model_nodes import model_credentials
from coordinator_node.services.predict.raw_input import input_builder
from coordinator_node.services.predict.schedules import check_schedules
from coordinator_node.services.tournament_predict import is_tournament


def check_predict(config: CrunchConfig, settings: Settings) -> None:
    """Refuse a config that this stage cannot run, and warn of what it probably does not mean.

    Raises:
        ConfigurationError: credentials or a dotted path that cannot be used, a `predict_service_class` of one's own, a
            schedule that could never be scored, or an argument that a scope does not hold. In tournament mode schedules
            do not run, and are not looked at.
    """
    model_credentials(settings)
    input_builder(settings)
    output_validator(settings)
    check_service(config)
    if not is_tournament(config):
        check_schedules(config, settings, FeedScope.from_settings(settings).spacing)
    warn_at_start("predict", settings, config)
