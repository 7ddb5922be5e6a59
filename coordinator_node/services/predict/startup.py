"""What the predict worker refuses at its start, rather than in every slot."""

from __future__ import annotations

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.runtime.logging import get_logger
from coordinator_node.services.feed_scope import FeedScope
from coordinator_node.services.predict.answers import output_validator
from coordinator_node.services.predict.model_nodes import model_credentials
from coordinator_node.services.predict.raw_input import input_builder
from coordinator_node.services.predict.schedules import check_schedules
from coordinator_node.services.predict.service import PredictService
from coordinator_node.services.tournament_predict import is_tournament

log = get_logger(__name__)


def check_predict(config: CrunchConfig, settings: Settings) -> None:
    """Refuse a config that this stage cannot run.

    Raises:
        ConfigurationError: credentials or a dotted path that cannot be used, a `predict_service_class` of one's own, a
            schedule that could never be scored, or an argument that a scope does not hold. In tournament mode schedules
            do not run, and are not looked at.
    """
    model_credentials(settings)
    input_builder(settings)
    output_validator(settings)
    service = config.predict_service_class
    if is_tournament(config):
        named = [ensemble.name for ensemble in config.ensembles if ensemble.enabled]
        if named:
            log.warning("rounds have no ensembles: their weights are computed, and no prediction made", ensembles=named)
        if not any(arg.name == "features" for arg in config.call_method.args):
            log.warning(
                "models of a round receive only those fields of a feature row that call_method's arguments name;"
                " an argument named features, of type JSON, hands them the whole row"
            )
        return
    if service is not None and not issubclass(PredictService, service):
        raise ConfigurationError(
            f"predict_service_class {service.__name__}: a service of one's own is not supported; leave it unset and use"
            " INFERENCE_INPUT_BUILDER, call_method and INFERENCE_OUTPUT_VALIDATOR"
        )
    check_schedules(config, settings, FeedScope.from_settings(settings).spacing)
