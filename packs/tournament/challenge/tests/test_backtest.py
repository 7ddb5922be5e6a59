"""What the README says about backtests runs as it stands there."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_readmes_backtest_scores_every_prediction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backtest = README.read_text(encoding="utf-8").partition("## Backtest")[2]
    names = {}
    for code in re.findall(r"```python\n(.*?)```", backtest, re.DOTALL):
        exec(code, names)  # noqa: S102 - the README's own code
    result = names["result"]
    assert result.counts == {"SCORED": 200}
    assert result.metrics["score_recent"] > 0
    assert "score_recent" in result.summary()
