"""The predict stage. `PredictService` is also a name that an operator's `predict_service_class` may be set to."""

from coordinator_node.services.predict.service import PredictService

__all__ = ["PredictService"]
