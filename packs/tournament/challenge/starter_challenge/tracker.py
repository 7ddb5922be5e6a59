"""The base class of every model of this competition."""

from __future__ import annotations

from typing import Any


class TrackerBase:
    """A model implements `predict`."""

    def tick(self, data: dict[str, Any]) -> None:
        """Take new market data; this competition's models need none."""

    def predict(self, features: dict[str, float]) -> dict[str, float]:
        """Answer {"value": x}: the target that belongs to the row."""
        raise NotImplementedError("a model answers here")
