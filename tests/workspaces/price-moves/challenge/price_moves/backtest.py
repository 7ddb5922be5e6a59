"""The harness that crunchers of that time used: the coordinator's files, a model, its scores and metrics."""

import argparse
import os
import sys
from dataclasses import dataclass, field
from datetime import timedelta

import pandas as pd
import requests

from coordinator_node.extensions.callable_resolver import resolve_callable
from coordinator_node.metrics import MetricsContext, get_default_registry

METRICS = ["ic", "ic_sharpe", "hit_rate", "mean_return", "max_drawdown", "sortino_ratio", "turnover", "model_correlation"]


def download(url, cache, source, subject, kind, granularity):
    index = requests.get(f"{url}/data/backfill/index", timeout=15).json()
    frames = []
    for entry in index:
        if not entry["path"].startswith(f"{source}/{subject}/{kind}/{granularity}/"):
            continue
        target = os.path.join(cache, entry["path"])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            content = requests.get(f"{url}/data/backfill/{entry['path']}", timeout=15)
            content.raise_for_status()
            with open(target, "wb") as file:
                file.write(content.content)
        frames.append(pd.read_parquet(target))
    if not frames:
        raise SystemExit(f"nothing of {subject} to play")
    return pd.concat(frames).sort_values("ts_event").reset_index(drop=True)


@dataclass
class BacktestResult:
    metrics: dict = field(default_factory=dict)
    predictions_df: pd.DataFrame | None = None

    def summary(self):
        return "\n".join(f"{name}: {value:+.6f}" for name, value in self.metrics.items())


class BacktestRunner:
    def __init__(self, model, scoring="price_moves.scoring:score_prediction"):
        self.model = model
        self.scoring = resolve_callable(scoring, required_params=("prediction", "ground_truth"))

    def run(self, start, end, *, url, cache, source="simulated", subject="BTC", kind="tick", granularity="1s", window=60,
            interval=5, horizon=10):
        frame = download(url, cache, source, subject, kind, granularity)
        frame = frame[(frame.ts_event >= start) & (frame.ts_event < end)].reset_index(drop=True)
        prices = frame["price"].fillna(frame["close"])
        predictions, scores, rows = [], [], []
        for at in range(window, len(frame) - horizon, interval):
            moment = frame.ts_event[at].to_pydatetime()
            candles = [
                {"ts": int(frame.ts_event[i].timestamp()), "open": p, "high": p, "low": p, "close": p, "volume": 0.0}
                for i, p in zip(range(at - window, at + 1), prices[at - window : at + 1])
            ]
            self.model.tick({"symbol": subject, "asof_ts": candles[-1]["ts"], "candles_1m": candles})
            output = self.model.predict(subject, horizon, interval)
            actual = prices[at + horizon] / prices[at] - 1.0
            result = self.scoring(
                {**output, "model_id": "backtest", "prediction_id": f"bt-{at}"}, {"actual_return": float(actual)}
            )
            shared = {"input_id": f"in-{at}", "scope_key": f"{subject}-{horizon}"}
            predictions.append(
                {"inference_output": output, "performed_at": moment, "scope": {"subject": subject}, **shared}
            )
            scores.append({"result": result, "scored_at": moment + timedelta(seconds=horizon), **shared})
            rows.append({"performed_at": moment, **output, **result})
        context = MetricsContext(
            model_id="backtest",
            window_start=start,
            window_end=end,
            all_model_predictions={"backtest": predictions},
        )
        metrics = get_default_registry().compute(METRICS, predictions, scores, context)
        return BacktestResult(metrics=metrics, predictions_df=pd.DataFrame(rows))


if __name__ == "__main__":
    from price_moves.examples.follower import Follower

    parser = argparse.ArgumentParser()
    parser.add_argument("--url")
    parser.add_argument("--cache")
    parser.add_argument("--start", type=pd.Timestamp)
    parser.add_argument("--end", type=pd.Timestamp)
    options = parser.parse_args()
    result = BacktestRunner(model=Follower()).run(options.start, options.end, url=options.url, cache=options.cache)
    for name, value in result.metrics.items():
        print(f"{name}: {value:+.6f}")
    print(f"{len(result.predictions_df)} predictions", file=sys.stderr)
