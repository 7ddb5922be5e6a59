"""Plays one round with made-up rows: sends features, waits for answers, gives targets, waits for scores."""

from __future__ import annotations

import argparse
import random
import sys
import time
import urllib.error
from typing import Any

import report_api

ROWS = 20
POLL_SECONDS = 1.0
# While the workers start, nobody can take a round.
NOT_YET = (409, 502, 503)


def made_up_rows(seed: str) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Features, and the targets that belong to them: half of x1, less a third of x2, and noise."""
    drawn = random.Random(seed)
    features = [{f"x{i}": drawn.gauss(0, 1) for i in range(1, 5)} for _ in range(ROWS)]
    targets = [{"target": 0.5 * row["x1"] - 0.33 * row["x2"] + drawn.gauss(0, 0.5)} for row in features]
    return features, targets


class Api:
    """The report API, asked until a time is over."""

    def __init__(self, url: str, until: float) -> None:
        self.url = url.rstrip("/")
        self.until = until

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What it answers; asked again until the time is over while it is not ready."""
        while True:
            try:
                return report_api.ask(self.url, path, body)
            except urllib.error.HTTPError as error:
                if error.code not in NOT_YET or time.monotonic() > self.until:
                    raise SystemExit(f"{path}: {error}") from None
            except OSError as error:
                if time.monotonic() > self.until:
                    raise SystemExit(f"{self.url} does not answer: {error}") from None
            time.sleep(POLL_SECONDS)

    def wait(self, path: str, *statuses: str) -> dict[str, Any]:
        """Wait until a round has one of these statuses; returns what is said of it."""
        while (said := self.ask(path))["status"] not in statuses:
            if time.monotonic() > self.until:
                raise SystemExit(f"{path}: still {said['status']} when the time was over: {said}")
            time.sleep(POLL_SECONDS)
        return said


def main() -> int:
    """Play a round; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the report API answers")
    parser.add_argument("--round", default=f"round-{int(time.time())}", help="the round's id")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait (120)")
    arguments = parser.parse_args()
    api = Api(arguments.url, time.monotonic() + arguments.timeout)
    features, targets = made_up_rows(arguments.round)
    path = f"/tournament/rounds/{arguments.round}"
    api.ask(f"{path}/inference", {"features": features})
    api.wait(f"{path}/status", "CALLED")
    api.ask(f"{path}/score", {"ground_truth": targets})
    said = api.wait(f"{path}/status", "SCORED")
    print(f"{arguments.round}: {said['scored']} of {said['expected']} predictions scored, {said['failed']} failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
