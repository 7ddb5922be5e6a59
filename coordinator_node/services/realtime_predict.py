"""The older place of the predict stage, for configs that set `predict_service_class` to it."""

from coordinator_node.services.predict import PredictService as RealtimePredictService

__all__ = ["RealtimePredictService"]
