"""The built-in competition of `coordinator-node demo`."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from coordinator_node.config.settings import OPTION_PREFIX, variable_names
from coordinator_node.feeds.replay import describe_file
from coordinator_node.local.stack import StackPlan

WORKSPACE = Path(__file__).parent / "demo_workspace"

# Short enough that everything there is to see is seen within a minute.
ENVIRONMENT = {
    "FEED_BACKFILL_MINUTES": "5",
    "SCORE_INTERVAL_SECONDS": "5",
    "CHECKPOINT_INTERVAL_SECONDS": "20",
    "CHECKPOINT_GRACE_SECONDS": "10",
    "GROUND_TRUTH_TIMEOUT_SECONDS": "120",
}
KEPT = ("LOG_LEVEL", "LOG_FORMAT")


@dataclass(frozen=True)
class DemoFeed:
    """Which feed the demo runs on: simulated, or a file replayed `speed` times as fast as it was recorded."""

    name: str = "simulated"
    path: Path | None = None
    speed: float = 1.0

    def environment(self) -> dict[str, str]:
        """The variables that set it.

        Raises:
            FeedError: the file cannot be replayed; the message names the file and the row.
        """
        if self.path is None:
            return {"FEED_SOURCE": self.name, "FEED_SUBJECTS": "BTC,ETH,SOL", "FEED_KIND": "tick"}
        kind, granularity, subjects = describe_file(self.path)
        return {
            "FEED_SOURCE": self.name,
            "FEED_SUBJECTS": ",".join(subjects),
            "FEED_KIND": kind.value,
            "FEED_GRANULARITY": granularity,
            "FEED_OPT_path": str(self.path.resolve()),
            "FEED_OPT_speed": f"{self.speed:g}",
        }


def demo_plan(state: Path, port: int, feed: DemoFeed) -> StackPlan:
    """The plan of the demo; its example models are copied to where others may be put beside them."""
    submissions = state / "submissions"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(WORKSPACE / "submissions", submissions, dirs_exist_ok=True, ignore=ignore)
    # The terminal's own settings are for a real deployment, and must not bend the demo.
    foreign: dict[str, str | None] = {
        name: None for names in variable_names().values() for name in names if name not in KEPT
    }
    foreign |= {name: None for name in os.environ if name.startswith((OPTION_PREFIX, "PG"))}
    return StackPlan(
        workspace=WORKSPACE,
        submissions=submissions,
        state=state,
        environment={**foreign, **ENVIRONMENT, **feed.environment()},
        crunch_id="demo",
        port=port,
    )
