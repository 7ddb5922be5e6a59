"""A Python client of the report API."""

from coordinator_node.client.client import CoordinatorClient
from coordinator_node.client.errors import ApiAnswerError, ApiError, ApiUnreachableError
from coordinator_node.client.events import LiveEvent

__all__ = ["ApiAnswerError", "ApiError", "ApiUnreachableError", "CoordinatorClient", "LiveEvent"]
