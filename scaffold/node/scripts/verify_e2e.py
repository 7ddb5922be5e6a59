"""Waits until the whole chain has worked once, seen through the report API; says what it saw, or what is missing."""

from __future__ import annotations

import argparse
import sys
import time
import urllib.parse
from datetime import UTC, datetime, timedelta

from report_api import ask

POLL_SECONDS = 2.0
LOOK_BACK = timedelta(hours=1)


def look(url: str) -> tuple[list[str], list[str]]:
    """What is there, and what is missing, a line each."""
    models = ask(url, "/reports/models")
    if not models:
        return [], ["no model is connected"]
    since = (datetime.now(UTC) - LOOK_BACK).isoformat()
    query = urllib.parse.urlencode({"start": since, "limit": 1000})
    scored: dict[str, list[float]] = {}
    for row in ask(url, f"/reports/predictions?{query}"):
        if row["score_value"] is not None and not row["score_failed"]:
            scored.setdefault(row["model_id"], []).append(row["score_value"])
    leaderboard = ask(url, "/reports/leaderboard")
    checkpoints = ask(url, "/reports/checkpoints?limit=1")
    seen = [f"{len(models)} models, {sum(map(len, scored.values()))} scored predictions within the last hour"]
    seen += [f"leaderboard of {len(leaderboard)} models"] if leaderboard else []
    seen += [f"checkpoint {row['id']} until {row['period_end']}" for row in checkpoints]
    missing = [f"model {m['model_name']} has no scored prediction" for m in models if m["model_id"] not in scored]
    missing += _score_problems([value for values in scored.values() for value in values])
    missing += [] if leaderboard else ["there is no leaderboard"]
    missing += [] if checkpoints else ["there is no checkpoint"]
    return seen, missing


def _score_problems(values: list[float]) -> list[str]:
    if values and not any(values):
        return ["every score is 0: is SCORING_FUNCTION set?"]
    if len(values) > 1 and len(set(values)) == 1:
        return [f"every score is {values[0]}: does the scoring function look at the prediction?"]
    return []


def main() -> int:
    """Ask until all is there, or the time is over; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the report API answers")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds to wait (300)")
    arguments = parser.parse_args()
    url = arguments.url.rstrip("/")
    until = time.monotonic() + arguments.timeout
    while True:
        try:
            seen, missing = look(url)
        except (OSError, ValueError) as error:
            seen, missing = [], [f"{url} gives no answer: {error}"]
        if not missing or time.monotonic() >= until:
            break
        time.sleep(POLL_SECONDS)
    for line in seen:
        print("seen:", line)
    for line in missing:
        print("missing:", line, file=sys.stderr)
    print("verified" if not missing else f"not verified within {arguments.timeout:g} s")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
