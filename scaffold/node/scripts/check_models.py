"""Prints what the node knows of its models: how many of their newest predictions were scored, and why others failed."""

from __future__ import annotations

import argparse
import collections
import sys

from report_api import ask


def main() -> int:
    """Print a line a model; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the report API answers")
    url = parser.parse_args().url.rstrip("/")
    try:
        models = ask(url, "/reports/models")
        rows = ask(url, "/reports/predictions?limit=1000")
    except (OSError, ValueError) as error:
        print(f"{url} gives no answer: {error}", file=sys.stderr)
        return 1
    for model in models:
        own = [row for row in rows if row["model_id"] == model["model_id"]]
        reasons = collections.Counter(row["score_failed_reason"] for row in own if row["score_failed"])
        failed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3)) or "none"
        print(f"{model['model_name']} ({model['cruncher_name']}): {len(own) - reasons.total()} good, failed: {failed}")
    if not models:
        print("no model is connected", file=sys.stderr)
    return 0 if models else 1


if __name__ == "__main__":
    sys.exit(main())
