"""What the checks look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.checks.dry_run import DryRun, dry_run
from coordinator_node.services.checks.outputs import MadeOutputs, made_outputs


@dataclass(frozen=True)
class Competition:
    """A config with the settings that it runs by."""

    config: CrunchConfig
    settings: Settings

    @cached_property
    def outputs(self) -> MadeOutputs:
        """Answers such as models may give, made once."""
        return made_outputs(self.config, self.settings)

    @cached_property
    def dry_run(self) -> DryRun:
        """What came of scoring them, once."""
        return dry_run(self.config, self.settings, self.outputs.accepted)
