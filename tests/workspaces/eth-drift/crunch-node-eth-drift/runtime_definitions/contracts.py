"""eth-drift: how far ETH drifts. The older place of a config, and the older name of its class."""

from functools import partial

from coordinator.contracts import (
    FRAC_64_MULTIPLIER,
    Aggregation,
    AggregationWindow,
    CrunchContract,
    EnsembleConfig,
    InferenceOutput,
    PredictionScope,
    ScheduledPrediction,
    ScoreResult,
    default_build_emission,
    default_compute_metrics,
    pct_to_frac64,
)
from coordinator_node.services.ensemble import equal_weight, top_n
from coordinator_node.services.predict import PredictService
from eth_drift.scoring import score_drift


class Drift(InferenceOutput):
    value: float = 0.0


class DriftScore(ScoreResult):
    loss: float = 0.0


def drift_of(feed_records, prediction=None):
    """Basis points between the first and the last close; nothing for a market that stood still too short."""
    if len(feed_records) < 2:
        return None
    first, last = feed_records[0], feed_records[-1]
    seconds = (last.ts_event - first.ts_event).total_seconds()
    return {
        "profit": last.values["close"] / first.values["close"] - 1.0,
        "drift_bps": 10_000 * (last.values["close"] / first.values["close"] - 1.0),
        "seconds": seconds,
        "scope": prediction.scope_key if prediction else None,
    }


def summarise(score_results):
    losses = [result["loss"] for result in score_results if result.get("success", True)]
    return {"loss": sum(losses) / len(losses), "worst": max(losses)} if losses else {}


def compute_metrics(metrics, predictions, scores, context):
    values = default_compute_metrics(metrics, predictions, scores, context)
    values["seen"] = float(len(predictions))
    return values


def pay(ranked_entries, crunch_pubkey, compute_provider=None, data_provider=None, winners=2):
    """The first winners share alike; what does not divide goes to the first."""
    if not ranked_entries:
        return default_build_emission(ranked_entries, crunch_pubkey, compute_provider, data_provider)
    paid = ranked_entries[:winners]
    share = pct_to_frac64(100.0 / len(paid))
    rewards = [{"cruncher_index": place, "reward_pct": share} for place, _ in enumerate(paid)]
    rewards[0]["reward_pct"] += FRAC_64_MULTIPLIER - share * len(paid)
    return {
        "crunch": crunch_pubkey,
        "cruncher_rewards": rewards,
        "compute_provider_rewards": [],
        "data_provider_rewards": [],
    }


CONTRACT = CrunchContract(
    output_type=Drift,
    score_type=DriftScore,
    scope=PredictionScope(subject="ETH", step_seconds=5),
    scheduled_predictions=[
        ScheduledPrediction(
            scope_key="ETH-2",
            scope={"subject": "ETH"},
            prediction_interval_seconds=1,
            resolve_horizon_seconds=2,
        )
    ],
    aggregation=Aggregation(
        windows={"loss_hour": AggregationWindow(hours=1), "loss_day": AggregationWindow(hours=24)},
        value_field="loss",
        ranking_key="loss_day",
        ranking_direction="asc",
    ),
    metrics=["ic", "hit_rate", "max_drawdown", "model_correlation"],
    ensembles=[EnsembleConfig(name="both", strategy=equal_weight, model_filter=top_n(5))],
    scoring_function=score_drift,
    resolve_ground_truth=drift_of,
    aggregate_snapshot=summarise,
    compute_metrics=compute_metrics,
    build_emission=partial(pay, winners=2),
    crunch_pubkey="crunch-address",
    predict_service_class=PredictService,
)
