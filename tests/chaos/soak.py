"""`make soak`: 50 models, a slot a minute, and nothing else to do; the whole stack's memory must not grow.

Each minute the memory of every process of the stack is added up: workers, orchestrator with its models, Postgres. It is
what they have written and share with nobody outside the stack, Postgres's buffers counted once; pages of files do not
count, because a process's share of those changes with what else runs on the machine. What the first WARM_UP of the time
brings is no growth. The exit code is 1 when the last quarter's mean is more than --most-mb above that of the quarter
after the warm-up. A short run, such as ARGS="--minutes 6" in CI, sees only what leaks fast.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos_stack import ChaosStack, Setting, running

MODELS = 50
MINUTES = 60.0
MOST_MB = 30.0
WARM_UP = 0.25
CONFIG = """
from coordinator_node.crunch_config import CrunchConfig as Base, ScheduledPrediction
class CrunchConfig(Base):
    scheduled_predictions: list[ScheduledPrediction] = [ScheduledPrediction(
        scope_key="BTC-60", scope={"subject": "BTC", "step_seconds": 60},
        prediction_interval_seconds=60, resolve_horizon_seconds=60)]
"""


def sizes(stack: ChaosStack) -> dict[str, float]:
    """Megabytes of each program of the stack with all that it started."""
    found: defaultdict[str, float] = defaultdict(float)
    for name in stack.supervisor.programs:
        pid = stack.supervisor.pid(name)
        if pid is None:
            continue
        try:
            parent = psutil.Process(pid)
            for process in (parent, *parent.children(recursive=True)):
                found[name] += written(process.pid) / 1024
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            continue  # a backend of Postgres, or a worker that ends
    return found


def written(pid: int) -> int:
    """Kilobytes that a process has written, its share of what others of the stack have too."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size.removesuffix("kB")) for name, _, size in (line.partition(":") for line in lines)}
    return sizes["Pss_Anon"] + sizes["Pss_Shmem"]


def growth(totals: Sequence[float]) -> float:
    """Megabytes by which the last quarter of the samples after the warm-up is above the first one."""
    settled = totals[int(len(totals) * WARM_UP) :]
    quarter = max(1, len(settled) // 4)
    return statistics.mean(settled[-quarter:]) - statistics.mean(settled[:quarter])


async def soak(minutes: float, every_seconds: float) -> list[dict[str, float]]:
    """Run the stack and look at it again and again."""
    samples = []
    with tempfile.TemporaryDirectory(prefix="coordinator-soak-") as folder, Path(folder, "said.log").open("w") as said:
        Path(folder).chmod(0o755)
        Path(folder, "soak_config.py").write_text(CONFIG)
        models = Path(__file__).parent / "flapping_models.py"
        environment = {
            "FEED_SUBJECTS": "BTC",
            "CRUNCH_CONFIG_MODULE": "soak_config:CrunchConfig",
            "PYTHONPATH": folder,
            "SCORE_INTERVAL_SECONDS": "60",
            "CHECKPOINT_INTERVAL_SECONDS": "604800",
        }
        setting = Setting(models=MODELS, environment=environment, orchestrator=models, arguments=("--models", "50"))
        async with running(Path(folder), setting, said, wait=False) as stack:
            for _ in range(max(4, round(minutes * 60 / every_seconds))):
                await asyncio.sleep(every_seconds)
                samples.append(sizes(stack))
                print(f"{len(samples) * every_seconds / 60:6.1f} min {sum(samples[-1].values()):8.1f} MB", flush=True)
            if not stack.ask("SELECT count(*) > 0 FROM scores", {}) and minutes > 3:
                raise RuntimeError("nothing was scored: this was no idle stack but a dead one")
    return samples


def main() -> int:
    """Print what each program took, and how much all of them grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--every-seconds", type=float, default=60.0)
    parser.add_argument("--most-mb", type=float, default=MOST_MB, help="growth after the warm-up that is still none")
    given = parser.parse_args()
    samples = asyncio.run(soak(given.minutes, given.every_seconds))
    print(f"\n{'program':<14} {'last MB':>8} {'growth MB':>10}")
    for name in samples[-1]:
        print(f"{name:<14} {samples[-1][name]:>8.1f} {growth([sample.get(name, 0.0) for sample in samples]):>10.1f}")
    grown = growth([sum(sample.values()) for sample in samples])
    print(f"{'all':<14} {sum(samples[-1].values()):>8.1f} {grown:>10.1f}   at most {given.most_mb:g}")
    return 1 if grown > given.most_mb else 0


if __name__ == "__main__":
    raise SystemExit(main())
