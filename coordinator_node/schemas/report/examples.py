"""An example of every answer and body, for the API's page: rows as a small competition gives them."""

from __future__ import annotations

from coordinator_node.schemas.report.wire import JsonObject

_NOON = "2026-01-31T12:00:00+00:00"
_PERIOD = {"period_start": "2026-01-24T00:00:00+00:00", "period_end": "2026-01-31T00:00:00+00:00"}
_SNAPSHOT = {"period_start": "2026-01-31T11:59:00+00:00", "period_end": _NOON, "prediction_count": 4}
_HASHES = {name: name * 32 for name in ("a1", "b2", "c3", "d4")}
_SCOPE = {"subject": "BTC", "step_seconds": 15, "resolve_horizon_seconds": 60}
_CHART = {"subject": "BTC", "asset": "BTC", "horizon": 60, "param": "BTC-60", "step": 15}
_METRICS = {"score_recent": 0.012, "score_steady": 0.01, "score_anchor": None, "ic": 0.04}
_RANKING = {"key": "score_recent", "value": 0.012, "direction": "desc"}
_FEED = {"source": "binance", "subject": "BTC", "kind": "candle", "granularity": "1m"}
_DIVERSITY = {"ic": 0.04, "model_correlation": 0.3, "ensemble_correlation": 0.5, "contribution": None, "fnc": 0.2}
_RANKED = {
    "model_id": "4711",
    "model_name": "steady-trend",
    "cruncher_name": "alice",
    "rank": 1,
    "prediction_count": 40320,
    "snapshot_count": 10080,
    "result_summary": {"score_recent": 0.012, "value": 0.011},
}
_STANDING = {
    "model_id": "4711",
    "performed_at": "2026-01-31T12:00:00",
    "score_metrics": _METRICS,
    "score_ranking": _RANKING,
    **_METRICS,
    **_CHART,
}
_EMISSION: JsonObject = {
    "crunch": "crunch-address",
    "cruncher_rewards": [
        {"cruncher_index": 0, "reward_pct": 650_000_000},
        {"cruncher_index": 1, "reward_pct": 350_000_000},
    ],
    "compute_provider_rewards": [],
    "data_provider_rewards": [],
}
_CHECKPOINT = {"checkpoint_id": "ckpt-1", "status": "PENDING", **_PERIOD}
_PRIZES: list[JsonObject] = [
    {"prizeId": "ckpt-1-4711", "timestamp": 1769817600, "model": "4711", "prize": 650},
    {"prizeId": "ckpt-1-4712", "timestamp": 1769817600, "model": "4712", "prize": 350},
]
_PATH = [{"hash": _HASHES["c3"], "position": "right"}]
_COLUMN: JsonObject = {
    "id": 4,
    "type": "VALUE",
    "property": "score_recent",
    "format": "decimal-4",
    "displayName": "Score recent",
    "tooltip": "Mean value over the last 24 hours. Models are ranked by it, highest first.",
    "nativeConfiguration": None,
    "order": 40,
}
_WIDGET: JsonObject = {
    "id": 1,
    "type": "CHART",
    "displayName": "Scores",
    "tooltip": None,
    "order": 10,
    "endpointUrl": "/reports/models/global",
    "nativeConfiguration": {
        "type": "line",
        "xAxis": {"name": "performed_at"},
        "yAxis": {"series": [{"name": "score_recent", "label": "Score recent"}], "format": "decimal-4"},
        "filterConfig": None,
        "groupByProperty": "model_id",
        "alertConfig": None,
    },
}
_CYCLE = {
    "id": "cycle-12",
    "position": 12,
    "previous_cycle_id": "cycle-11",
    "previous_cycle_root": _HASHES["a1"],
    "commitments_root": _HASHES["b2"],
    "snapshots_root": _HASHES["c3"],
    "chained_root": _HASHES["d4"],
    "snapshot_count": 2,
    "prediction_count": 8,
    "checkpoint_id": None,
    "created_at": _NOON,
}

EXAMPLES: dict[str, JsonObject] = {
    "Health": {"status": "ok"},
    "Info": {"crunch_id": "starter-challenge", "crunch_address": "crunch-address", "network": "devnet"},
    "Layout": {"leaderboard_columns": [_COLUMN], "metrics_widgets": [_WIDGET]},
    "LeaderboardColumn": _COLUMN,
    "Widget": _WIDGET,
    "LeaderboardEntry": {
        "created_at": _NOON,
        "model_id": "4711",
        "rank": 1,
        "model_name": "steady-trend",
        "cruncher_name": "alice",
        "username": "alice",
        "status": "active",
        "score_metrics": _METRICS,
        "score_ranking": _RANKING,
        **_METRICS,
    },
    "ModelEntry": {
        "model_id": "4711",
        "model_name": "steady-trend",
        "cruncher_name": "alice",
        "cruncher_id": "42",
        "deployment_id": "4711-3",
    },
    "Standing": _STANDING,
    "ScopeStanding": {**_STANDING, "scope_key": "BTC-60", "scope": _SCOPE},
    "SnapshotPoint": {
        "model_id": "4711",
        "performed_at": "2026-01-31T12:00:00",
        **_SNAPSHOT,
        "value": 0.011,
        "ic": 0.04,
        **_CHART,
    },
    "ModelDiversity": {
        "model_id": "4711",
        "rank": 1,
        "diversity_score": 0.7,
        "metrics": _DIVERSITY,
        "guidance": ["Your signal is mostly your own: keep it so."],
        "snapshot_period_end": _NOON,
    },
    "DiversityEntry": {"model_id": "4711", "diversity_score": 0.7, **_DIVERSITY, "period_end": _NOON},
    "EnsembleSnapshot": {
        "ensemble_name": "main",
        "model_id": "__ensemble_main__",
        **_SNAPSHOT,
        "value": 0.014,
        "ic": 0.05,
    },
    "PredictionPoint": {
        "model_id": "4711",
        "prediction_config_id": "BTC-60",
        "scope_key": "BTC-60",
        "scope": _SCOPE,
        "score_value": 0.011,
        "score_failed": False,
        "score_failed_reason": None,
        "scored_at": "2026-01-31T12:01:01+00:00",
        "performed_at": "2026-01-31T12:00:00",
        **_CHART,
    },
    "SnapshotEntry": {
        "id": "019c13d5b2800f6f3a0e1c2b4d5e6f70",
        "model_id": "4711",
        **_SNAPSHOT,
        "result_summary": {"value": 0.011, "ic": 0.04},
        "created_at": _NOON,
    },
    "FeedSummary": {
        **_FEED,
        "record_count": 44640,
        "oldest_ts": "2026-01-01T00:00:00+00:00",
        "newest_ts": "2026-01-31T11:59:00+00:00",
        "watermark_ts": "2026-01-31T11:59:00+00:00",
        "watermark_updated_at": _NOON,
    },
    "FeedRecordEntry": {
        **_FEED,
        "ts_event": "2026-01-31T11:59:00+00:00",
        "ts_ingested": _NOON,
        "values": {"open": 64000.5, "high": 64010.0, "low": 63990.0, "close": 64001.0, "volume": 3.25},
        "meta": {},
    },
    "Reward": {
        "checkpoint_id": "ckpt-1",
        **_PERIOD,
        "model_id": "4711",
        "model_name": "steady-trend",
        "rank": 1,
        "reward_pct": 65.0,
        "prediction_count": 40320,
        "score_recent": 0.012,
    },
    "Checkpoint": {
        "id": "ckpt-1",
        **_PERIOD,
        "status": "SUBMITTED",
        "entries": [_EMISSION],
        "meta": {"ranking": [_RANKED]},
        "created_at": "2026-01-31T00:00:01+00:00",
        "tx_hash": "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnb",
        "submitted_at": "2026-01-31T08:00:00+00:00",
        "merkle_root": _HASHES["a1"],
    },
    "CheckpointPayload": {**_CHECKPOINT, "entries": [_EMISSION], "meta": {"ranking": [_RANKED]}},
    "CheckpointEmission": {**_CHECKPOINT, "emission": _EMISSION},
    "RetainingEmission": _EMISSION,
    "CliEmission": {
        "crunch": "crunch-address",
        "crunchEmission": {"4711": 65.0, "4712": 35.0},
        "computeProvider": {},
        "dataProvider": {},
    },
    "Prize": _PRIZES[0],
    "CheckpointPrizes": {**_CHECKPOINT, "total_prize": 1000, "prizes": _PRIZES},
    "Confirmation": {"tx_hash": "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnb"},
    "StatusChange": {"status": "CLAIMABLE"},
    "MerkleCycle": _CYCLE,
    "MerkleCommitment": {
        "id": "commitment-7",
        "position": 7,
        "previous_root": _HASHES["a1"],
        "root": _HASHES["b2"],
        "chained_root": _HASHES["c3"],
        "prediction_count": 50,
        "committed_at": _NOON,
    },
    "MerkleProofAnswer": {
        "snapshot_id": "019c13d5b2800f6f3a0e1c2b4d5e6f70",
        "snapshot_content_hash": _HASHES["a1"],
        "cycle_id": "cycle-12",
        "cycle_root": _HASHES["d4"],
        "checkpoint_id": "ckpt-1",
        "merkle_root": _HASHES["b2"],
        "path": _PATH,
        "prediction_id": None,
        "prediction_hash": None,
        "commitment": None,
    },
    "Evidence": {
        "checkpoint": {"id": "ckpt-1", "merkle_root": _HASHES["b2"]},
        "cycles": [{"id": "cycle-12", "chained_root": _HASHES["d4"]}],
        "snapshots": [{"id": "019c13d5b2800f6f3a0e1c2b4d5e6f70", "content_hash": _HASHES["a1"]}],
        "predictions": [],
        "ground_truths": {},
        "commitments": [],
        "next": None,
    },
    "BackfillOrder": {**_FEED, "start": "2026-01-01T00:00:00Z", "end": "2026-01-08T00:00:00Z"},
    "BackfillJob": {
        "id": "01a2014c5f59c0bd07e73e443e314d57",
        **_FEED,
        "start_ts": "2026-01-01T00:00:00+00:00",
        "end_ts": "2026-01-08T00:00:00+00:00",
        "cursor_ts": "2026-01-04T12:00:00+00:00",
        "records_written": 5040,
        "pages_fetched": 6,
        "status": "running",
        "error": None,
        "progress_pct": 50.0,
        "created_at": _NOON,
        "updated_at": _NOON,
    },
    "BackfillFile": {
        "path": "binance/BTC/candle/1m/2026-01-01.parquet",
        "date": "2026-01-01",
        "records": 1440,
        "size_bytes": 48213,
    },
    "RoundFeatures": {"features": [{"x": 1.5, "y": -0.25}, {"x": 0.5, "y": 0.75}]},
    "RoundTruth": {"ground_truth": [{"value": 1.0}, None]},
    "Round": {
        "round_id": "round-1",
        "status": "SCORING",
        "created_at": _NOON,
        "features": 2,
        "models": 3,
        "expected": 6,
        "predictions": 6,
        "pending": 3,
        "scored": 3,
        "failed": 0,
        "absent": 0,
        "truths": 1,
    },
}
"""By the name of the type. Types that are only parts of others have theirs inside of them."""
