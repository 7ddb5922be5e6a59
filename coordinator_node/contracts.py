"""The older name of `coordinator_node.crunch_config`."""

from coordinator_node.crunch_config import *  # noqa: F403 - the same names at the older path
from coordinator_node.crunch_config import __all__ as __all__
