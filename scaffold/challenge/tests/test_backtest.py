"""What the README says about backtests runs as it stands there."""

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from coordinator_node.entities.feed_record import FeedRecord
from coordinator_node.services.backfill.files import feed_folder, stage

README = Path(__file__).parent.parent / "README.md"
BEGIN = datetime(2026, 10, 1, 9, 55, tzinfo=UTC)


def write_records(folder):
    """An hour of made-up prices, and a little around it, as `coordinator-node backfill` writes them."""
    for subject, period in (("BTC", 300), ("ETH", 700)):
        records = [
            FeedRecord(
                "simulated",
                subject,
                "tick",
                "1s",
                BEGIN + timedelta(seconds=second),
                {"price": 100 + math.sin(second / period)},
            )
            for second in range(70 * 60)
        ]
        for day in stage(feed_folder(folder, "simulated", subject, "tick", "1s"), records):
            day.publish()


def test_the_readmes_backtest_scores_every_prediction(tmp_path, monkeypatch, capsys):
    write_records(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, names)  # noqa: S102 - the README's own code
    result = names["result"]
    assert set(result.predictions_df.status) == {"SCORED"}
    assert set(result.predictions_df.subject) == {"BTC", "ETH"}
    assert len(result.predictions_df) >= 700
    for name, value in result.metrics.items():
        print(f"{name}: {value:+.6f}")
    assert "score_recent: " in capsys.readouterr().out
