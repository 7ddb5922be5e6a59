"""Measures of models: pure functions over aligned observations, and the registry that knows them by name."""

from coordinator_node.metrics.context import MetricsContext
from coordinator_node.metrics.registry import MetricFn, MetricsRegistry, get_default_registry

__all__ = ["MetricFn", "MetricsContext", "MetricsRegistry", "get_default_registry"]
