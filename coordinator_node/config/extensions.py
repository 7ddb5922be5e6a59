"""The dotted paths of an operator's callables, as older code reads them."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator_node.config.settings import load_settings


@dataclass(frozen=True)
class ExtensionSettings:
    """SCORING_FUNCTION as a dotted path `module:callable`."""

    scoring_function: str

    @classmethod
    def from_env(cls) -> ExtensionSettings:
        """Read from the environment."""
        return cls(scoring_function=load_settings().scoring_function)
