"""What the predict worker refuses at its start, rather than in every slot."""

from __future__ import annotations

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.services.feed_scope import FeedScope
from coordinator_node.services.predict.schedules import check_schedules
from coordinator_node.services.predict.service import PredictService
from coordinator_node.services.tournament_predict import TournamentPredictService


def check_predict(config: CrunchConfig, settings: Settings) -> None:
    """Refuse a config that this stage cannot run.

    Raises:
        ConfigurationError: tournament mode or another `predict_service_class` (not built in this version), a schedule
            that could never be scored, or an argument that a scope does not hold.
    """
    service = config.predict_service_class
    if config.mode == "tournament" or (service and issubclass(service, TournamentPredictService)):
        raise ConfigurationError("tournament mode is not built in this version; use scheduled predictions")
    if service is not None and not issubclass(PredictService, service):
        raise ConfigurationError(
            f"predict_service_class {service.__name__}: a service of one's own is not supported; leave it unset and use"
            " INFERENCE_INPUT_BUILDER, call_method and INFERENCE_OUTPUT_VALIDATOR"
        )
    check_schedules(config, settings, FeedScope.from_settings(settings).spacing)
