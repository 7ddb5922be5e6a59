"""Settings: every environment variable, read and validated once."""

from coordinator_node.config.settings import Settings, load_settings

__all__ = ["Settings", "load_settings"]
