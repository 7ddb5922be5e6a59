"""Every name that operators' code may import, with its parameters, fields and defaults.

A new parameter or field with a default is no break; a missing or renamed one is. `...` stands for "has a default".
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import typing
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

ENTITIES = "coordinator_node.entities"
CRUNCH = "coordinator_node.crunch_config"
ENSEMBLE = "coordinator_node.services.ensemble"
REPOSITORIES = "coordinator_node.db.repositories"
TREE = "coordinator_node.merkle.tree"
FEEDS = "coordinator_node.feeds"
REQUIRED = object()

RANKED = "ranked_entries, crunch_pubkey, compute_provider=None, data_provider=None"
OF_FEED = "source, subject, kind, granularity"
PREDICTION = (
    "id, input_id, model_id, prediction_config_id, scope_key, scope, status, exec_time_ms,"
    " inference_output=..., meta=..., performed_at=..., resolvable_at=..."
)
PERIOD = "since=None, until=None, limit=None"

# Names that need nothing but to be there.
IMPORTS = {
    CRUNCH: "CrunchConfig CrunchContract EnsembleConfig Aggregation AggregationWindow PredictionScope"
    " ScheduledPrediction CallMethodConfig CallMethodArg Meta RawInput GroundTruth InferenceInput InferenceOutput"
    " ScoreResult default_resolve_ground_truth default_aggregate_snapshot default_build_emission FRAC_64_MULTIPLIER"
    " pct_to_frac64",
    "coordinator_node.contracts": "CrunchConfig CrunchContract ScheduledPrediction FRAC_64_MULTIPLIER",
    "coordinator.contracts": "CrunchConfig CrunchContract ScheduledPrediction FRAC_64_MULTIPLIER",
    "coordinator_node.config_loader": "load_config",
    "coordinator_node.metrics": "get_default_registry MetricsContext MetricsRegistry",
    "coordinator_node.db": "create_session DBModelRepository DBInputRepository DBPredictionRepository DBScoreRepository"
    " DBSnapshotRepository DBLeaderboardRepository DBCheckpointRepository DBMerkleCycleRepository"
    " DBMerkleNodeRepository DBFeedRecordRepository DBBackfillJobRepository",
    "coordinator_node.db.init_db": "migrate reset_db",
    "coordinator_node.merkle": "canonical_snapshot_hash build_merkle_tree generate_proof get_root verify_proof",
    "coordinator_node.schemas": "ScheduleEnvelope",
    FEEDS: "SubjectDescriptor FeedSubscription FeedFetchRequest FeedDataRecord FeedDataKind FeedSink FeedHandle"
    " DataFeed FeedSettings FeedFactory DataFeedRegistry create_default_registry",
    "coordinator_node.services.predict": "PredictService",
    "coordinator_node.services.realtime_predict": "RealtimePredictService",
}

CONSTANTS = {
    f"{CRUNCH}:FRAC_64_MULTIPLIER": 1_000_000_000,
    f"{ENSEMBLE}:ENSEMBLE_PREFIX": "__ensemble_",
    f"{ENSEMBLE}:ENSEMBLE_SUFFIX": "__",
}

# Functions, constructors and methods: the parameters as in a `def`, without self.
SIGNATURES = {
    f"{CRUNCH}:default_resolve_ground_truth": "feed_records, prediction=None",
    f"{CRUNCH}:pct_to_frac64": "pct",
    f"{CRUNCH}:default_build_emission": RANKED,
    f"{CRUNCH}:default_aggregate_snapshot": "score_results",
    f"{CRUNCH}:default_compute_metrics": "metrics, predictions, scores, context",
    "coordinator_node.config_loader:load_config": "",
    "coordinator_node.config_loader:reset_cache": "",
    "coordinator_node.metrics.registry:MetricsRegistry": "",
    "coordinator_node.metrics.registry:MetricsRegistry.register": "name, fn",
    "coordinator_node.metrics.registry:MetricsRegistry.get": "name",
    "coordinator_node.metrics.registry:MetricsRegistry.available": "",
    "coordinator_node.metrics.registry:MetricsRegistry.compute": "metrics, predictions, scores, context",
    "coordinator_node.metrics.registry:get_default_registry": "",
    f"{ENSEMBLE}:ensemble_model_id": "name",
    f"{ENSEMBLE}:is_ensemble_model": "model_id",
    f"{ENSEMBLE}:inverse_variance": "model_metrics, predictions",
    f"{ENSEMBLE}:equal_weight": "model_metrics, predictions",
    f"{ENSEMBLE}:top_n": "n",
    f"{ENSEMBLE}:min_metric": "name, threshold",
    f"{ENSEMBLE}:apply_model_filter": "model_filter, model_metrics, predictions",
    f"{ENSEMBLE}:build_ensemble_predictions": "name, weights, predictions_by_model, now=None",
    "coordinator_node.extensions.default_callables:default_score_prediction": "prediction, ground_truth",
    "coordinator_node.extensions.emission_strategies:contribution_weighted_emission": RANKED
    + ", *, rank_weight=0.5, contribution_weight=0.3, diversity_weight=0.2, min_pct=1.0",
    "coordinator_node.extensions.emission_strategies:top_k_exponential": RANKED + ", *, k=10, decay=0.7",
    "coordinator_node.extensions.emission_strategies:softmax": RANKED
    + ", *, key='score_recent', direction='desc', temperature=1.0",
    "coordinator_node.extensions.emission_strategies:benchmark_gated": RANKED + ", *, benchmark",
    "coordinator_node.extensions.emission_strategies:best_per_player": "build_emission",
    "coordinator_node.extensions.callable_resolver:resolve_callable": "path, required_params=None",
    "coordinator_node.config.extensions:ExtensionSettings.from_env": "",
    "coordinator_node.db.session:database_url": "",
    "coordinator_node.db.session:create_session": "",
    f"{REPOSITORIES}:DBModelRepository": "session",
    f"{REPOSITORIES}:DBModelRepository.fetch_all": "",
    f"{REPOSITORIES}:DBModelRepository.fetch_by_ids": "ids",
    f"{REPOSITORIES}:DBModelRepository.fetch": "model_id",
    f"{REPOSITORIES}:DBModelRepository.save": "model",
    f"{REPOSITORIES}:DBModelRepository.save_all": "models",
    f"{REPOSITORIES}:DBInputRepository": "session",
    f"{REPOSITORIES}:DBInputRepository.get": "input_id",
    f"{REPOSITORIES}:DBInputRepository.save": "record",
    f"{REPOSITORIES}:DBInputRepository.find": f"*, {PERIOD}",
    f"{REPOSITORIES}:DBPredictionRepository": "session",
    f"{REPOSITORIES}:DBPredictionRepository.save": "prediction",
    f"{REPOSITORIES}:DBPredictionRepository.save_all": "predictions",
    f"{REPOSITORIES}:DBPredictionRepository.find": "*, status=None, scope_key=None, scope_key_prefix=None,"
    " model_id=None, since=None, until=None, resolvable_before=None, limit=None",
    f"{REPOSITORIES}:DBPredictionRepository.fetch_active_configs": "",
    f"{REPOSITORIES}:DBPredictionRepository.query_scores": "*, model_ids, _from=None, to=None",
    f"{REPOSITORIES}:DBScoreRepository": "session",
    f"{REPOSITORIES}:DBScoreRepository.save": "record",
    f"{REPOSITORIES}:DBScoreRepository.find": f"*, prediction_id=None, model_id=None, {PERIOD}",
    f"{REPOSITORIES}:DBLeaderboardRepository": "session",
    f"{REPOSITORIES}:DBLeaderboardRepository.save": "leaderboard_entries, meta=None",
    f"{REPOSITORIES}:DBLeaderboardRepository.get_latest": "",
    f"{REPOSITORIES}:DBLeaderboardRepository.clear": "",
    f"{REPOSITORIES}:DBSnapshotRepository": "session",
    f"{REPOSITORIES}:DBSnapshotRepository.save": "record",
    f"{REPOSITORIES}:DBSnapshotRepository.find": f"*, model_id=None, {PERIOD}",
    f"{REPOSITORIES}:DBCheckpointRepository": "session",
    f"{REPOSITORIES}:DBCheckpointRepository.save": "record",
    f"{REPOSITORIES}:DBCheckpointRepository.find": "*, status=None, limit=None",
    f"{REPOSITORIES}:DBCheckpointRepository.get_latest": "",
    f"{REPOSITORIES}:DBCheckpointRepository.update_merkle_root": "checkpoint_id, merkle_root",
    f"{REPOSITORIES}:DBMerkleCycleRepository": "session",
    f"{REPOSITORIES}:DBMerkleCycleRepository.save": "cycle",
    f"{REPOSITORIES}:DBMerkleCycleRepository.get": "cycle_id",
    f"{REPOSITORIES}:DBMerkleCycleRepository.get_latest": "",
    f"{REPOSITORIES}:DBMerkleCycleRepository.find": f"*, {PERIOD}",
    f"{REPOSITORIES}:DBMerkleNodeRepository": "session",
    f"{REPOSITORIES}:DBMerkleNodeRepository.save": "node",
    f"{REPOSITORIES}:DBMerkleNodeRepository.find_by_cycle_id": "cycle_id",
    f"{REPOSITORIES}:DBMerkleNodeRepository.find_by_checkpoint_id": "checkpoint_id",
    f"{REPOSITORIES}:DBMerkleNodeRepository.find_by_snapshot_id": "snapshot_id",
    f"{REPOSITORIES}:DBMerkleNodeRepository.find_by_hash_in_checkpoint": "hash_value",
    "coordinator_node.db.feed_records:DBFeedRecordRepository": "session",
    "coordinator_node.db.feed_records:DBFeedRecordRepository.append_records": "records",
    "coordinator_node.db.feed_records:DBFeedRecordRepository.fetch_records": f"*, {OF_FEED},"
    " start_ts=None, end_ts=None, limit=None",
    "coordinator_node.db.feed_records:DBFeedRecordRepository.prune_before": "cutoff_ts",
    "coordinator_node.db.feed_records:DBFeedRecordRepository.fetch_latest_record": f"*, {OF_FEED}, at_or_before=None",
    "coordinator_node.db.feed_records:DBFeedRecordRepository.list_indexed_feeds": "",
    "coordinator_node.db.feed_records:DBFeedRecordRepository.tail_records": "*, source=None, subject=None, kind=None,"
    " granularity=None, limit=20",
    "coordinator_node.db.feed_records:DBFeedRecordRepository.get_watermark": f"*, {OF_FEED}",
    "coordinator_node.db.feed_records:DBFeedRecordRepository.set_watermark": "state",
    "coordinator_node.db.backfill_jobs:DBBackfillJobRepository": "session",
    "coordinator_node.db.backfill_jobs:DBBackfillJobRepository.create": f"*, {OF_FEED}, start_ts, end_ts",
    "coordinator_node.db.backfill_jobs:DBBackfillJobRepository.get": "job_id",
    "coordinator_node.db.backfill_jobs:DBBackfillJobRepository.find": "*, status=None, limit=100",
    "coordinator_node.db.backfill_jobs:DBBackfillJobRepository.get_running": "",
    "coordinator_node.db.backfill_jobs:DBBackfillJobRepository.update_progress": "job_id, *, cursor_ts,"
    " records_written, pages_fetched",
    "coordinator_node.db.backfill_jobs:DBBackfillJobRepository.set_status": "job_id, status, *, error=None",
    f"{FEEDS}.base:FeedSink.on_record": "record",
    f"{FEEDS}.base:FeedHandle.stop": "",
    f"{FEEDS}.base:DataFeed.list_subjects": "",
    f"{FEEDS}.base:DataFeed.listen": "sub, sink",
    f"{FEEDS}.base:DataFeed.fetch": "req",
    f"{FEEDS}.registry:DataFeedRegistry": "",
    f"{FEEDS}.registry:DataFeedRegistry.register": "provider, factory, *, replace=False",
    f"{FEEDS}.registry:DataFeedRegistry.providers": "",
    f"{FEEDS}.registry:DataFeedRegistry.create": "provider, options=None",
    f"{FEEDS}.registry:DataFeedRegistry.create_from_env": "environ=None, *, default_provider='pyth'",
    f"{FEEDS}.registry:create_default_registry": "",
    "coordinator_node.services.backfill:BackfillService": "feed, repository, job_repository=None",
    "coordinator_node.services.backfill:BackfillService.run": "request",
    "coordinator_node.services.tournament_predict:TournamentPredictService": "score_repository=None,"
    " scoring_function=None, **kwargs",
    "coordinator_node.services.tournament_predict:TournamentPredictService.run": "",
    "coordinator_node.services.tournament_predict:TournamentPredictService.run_inference": "round_id, features,"
    " now=None",
    "coordinator_node.services.tournament_predict:TournamentPredictService.score_round": "round_id, ground_truth,"
    " now=None",
    "coordinator_node.services.tournament_predict:TournamentPredictService.get_round_predictions": "round_id,"
    " status=None",
    "coordinator_node.services.tournament_predict:TournamentPredictService.get_round_status": "round_id",
    f"{TREE}:build_merkle_tree": "leaves",
    f"{TREE}:get_root": "nodes",
    f"{TREE}:generate_proof": "nodes, leaf_hash",
    f"{TREE}:verify_proof": "leaf_hash, proof, expected_root",
}

COROUTINES = [
    f"{FEEDS}.base:FeedSink.on_record",
    f"{FEEDS}.base:FeedHandle.stop",
    f"{FEEDS}.base:DataFeed.list_subjects",
    f"{FEEDS}.base:DataFeed.listen",
    f"{FEEDS}.base:DataFeed.fetch",
    "coordinator_node.services.backfill:BackfillService.run",
    "coordinator_node.services.tournament_predict:TournamentPredictService.run",
    "coordinator_node.services.tournament_predict:TournamentPredictService.run_inference",
]

# Dataclasses: their fields in order, as the parameters of a `def`.
DATACLASSES = {
    f"{ENTITIES}.feed_record:FeedRecord": f"{OF_FEED}, ts_event, values, meta=..., ts_ingested=...",
    f"{ENTITIES}.feed_record:FeedIngestionState": f"{OF_FEED}, last_event_ts, meta=..., updated_at=...",
    f"{ENTITIES}.model:Model": "id, name, player_id, player_name, deployment_identifier, overall_score=...,"
    " scores_by_scope=..., meta=..., created_at=..., updated_at=...",
    f"{ENTITIES}.prediction:InputRecord": "id, raw_data=..., received_at=...",
    f"{ENTITIES}.prediction:PredictionRecord": PREDICTION,
    f"{ENTITIES}.prediction:ScoreRecord": "id, prediction_id, result=..., success=..., failed_reason=...,"
    " scored_at=...",
    f"{ENTITIES}.prediction:ScoredPrediction": f"{PREDICTION}, score=...",
    f"{ENTITIES}.prediction:SnapshotRecord": "id, model_id, period_start, period_end, prediction_count=...,"
    " result_summary=..., meta=..., created_at=...",
    f"{ENTITIES}.prediction:CheckpointRecord": "id, period_start, period_end, status=..., entries=..., meta=...,"
    " created_at=..., tx_hash=..., submitted_at=...",
    "coordinator_node.metrics.context:MetricsContext": "model_id, window_start=..., window_end=...,"
    " all_model_predictions=..., ensemble_predictions=...",
    "coordinator_node.config.extensions:ExtensionSettings": "scoring_function",
    f"{FEEDS}.contracts:SubjectDescriptor": "symbol, display_name, kinds, granularities, source, metadata=...",
    f"{FEEDS}.contracts:FeedSubscription": "subjects, kind, granularity, fields=...",
    f"{FEEDS}.contracts:FeedFetchRequest": "subjects, kind, granularity, start_ts=..., end_ts=..., limit=...,"
    " fields=...",
    f"{FEEDS}.contracts:FeedDataRecord": f"{OF_FEED}, ts_event, values, metadata=...",
    f"{FEEDS}.registry:FeedSettings": "provider, options=...",
    "coordinator_node.services.backfill:BackfillRequest": "source, subjects, kind, granularity, start, end,"
    " page_size=..., cursor_ts=..., job_id=...",
    "coordinator_node.services.backfill:BackfillResult": "records_written=..., pages_fetched=...",
    f"{TREE}:MerkleNode": "hash, level, position, left=..., right=..., snapshot_id=..., snapshot_content_hash=...",
    f"{TREE}:ProofStep": "hash, position",
    f"{TREE}:MerkleProof": "snapshot_id, snapshot_content_hash, cycle_id=..., cycle_root=..., checkpoint_id=...,"
    " merkle_root=..., path=...",
}

FROZEN = {
    "coordinator_node.config.extensions:ExtensionSettings",
    f"{FEEDS}.contracts:SubjectDescriptor",
    f"{FEEDS}.contracts:FeedSubscription",
    f"{FEEDS}.contracts:FeedFetchRequest",
    f"{FEEDS}.contracts:FeedDataRecord",
    f"{FEEDS}.registry:FeedSettings",
    "coordinator_node.services.backfill:BackfillRequest",
}

ENUMS = {
    f"{ENTITIES}.prediction:PredictionStatus": ["PENDING", "SCORED", "FAILED", "ABSENT"],
    f"{ENTITIES}.prediction:CheckpointStatus": ["PENDING", "SUBMITTED", "CLAIMABLE", "PAID"],
}

TYPED_DICTS = {
    f"{ENTITIES}.prediction:CruncherReward": {"cruncher_index": int, "reward_pct": int},
    f"{ENTITIES}.prediction:ProviderReward": {"provider": str, "reward_pct": int},
    f"{ENTITIES}.prediction:EmissionCheckpoint": {
        "crunch": str,
        "cruncher_rewards": list,
        "compute_provider_rewards": list,
        "data_provider_rewards": list,
    },
}

ARGUMENTS = [
    {"name": "subject", "type": "STRING"},
    {"name": "resolve_horizon_seconds", "type": "INT"},
    {"name": "step_seconds", "type": "INT"},
]
CALL = {"method": "predict", "args": ARGUMENTS}
AGGREGATION = {
    "windows": {"score_recent": {"hours": 24}, "score_steady": {"hours": 72}, "score_anchor": {"hours": 168}},
    "value_field": "value",
    "ranking_key": "score_recent",
    "ranking_direction": "desc",
}
SCHEDULE = {
    "scope_key": "BTC-60",
    "scope": {"subject": "BTC"},
    "prediction_interval_seconds": 15,
    "resolve_horizon_seconds": 60,
    "active": True,
    "order": 0,
    "meta": {},
}


def named(name: str) -> Any:
    """Stands for the thing of that name in crunch_config."""
    return getattr(importlib.import_module(CRUNCH), name)


# Pydantic models: what they do with further fields, and each field's default; a callable is looked up when compared.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{CRUNCH}:Meta": ("allow", {}),
    f"{CRUNCH}:RawInput": ("allow", {}),
    f"{CRUNCH}:GroundTruth": ("allow", {}),
    f"{CRUNCH}:InferenceInput": ("allow", {}),
    f"{CRUNCH}:InferenceOutput": ("ignore", {"value": 0.0}),
    f"{CRUNCH}:ScoreResult": ("allow", {"value": 0.0, "success": True, "failed_reason": None}),
    f"{CRUNCH}:PredictionScope": ("allow", {"subject": "BTC", "step_seconds": 15}),
    f"{CRUNCH}:CallMethodArg": ("ignore", {"name": REQUIRED, "type": "STRING"}),
    f"{CRUNCH}:CallMethodConfig": ("ignore", CALL),
    f"{CRUNCH}:AggregationWindow": ("forbid", {"hours": REQUIRED}),
    f"{CRUNCH}:Aggregation": ("forbid", AGGREGATION),
    f"{CRUNCH}:EnsembleConfig": (
        "ignore",
        {"name": REQUIRED, "strategy": None, "model_filter": None, "enabled": True},
    ),
    f"{CRUNCH}:ScheduledPrediction": (
        "allow",
        {
            "scope_key": REQUIRED,
            "scope": {},
            "prediction_interval_seconds": 60,
            "resolve_horizon_seconds": 0,
            "active": True,
            "order": 0,
            "meta": {},
        },
    ),
    f"{CRUNCH}:CrunchConfig": (
        "ignore",
        {
            "meta_type": lambda: named("Meta"),
            "raw_input_type": lambda: named("RawInput"),
            "ground_truth_type": lambda: named("GroundTruth"),
            "input_type": lambda: named("InferenceInput"),
            "output_type": lambda: named("InferenceOutput"),
            "score_type": lambda: named("ScoreResult"),
            "scope": {"subject": "BTC", "step_seconds": 15},
            "call_method": CALL,
            "aggregation": AGGREGATION,
            "scheduled_predictions": [SCHEDULE],
            "metrics": ["ic", "ic_sharpe", "hit_rate", "max_drawdown", "model_correlation"],
            "compute_metrics": lambda: named("default_compute_metrics"),
            "ensembles": [],
            "crunch_pubkey": "",
            "compute_provider": None,
            "data_provider": None,
            "predict_service_class": None,
            "scoring_function": None,
            "resolve_ground_truth": lambda: named("default_resolve_ground_truth"),
            "aggregate_snapshot": lambda: named("default_aggregate_snapshot"),
            "build_emission": lambda: named("default_build_emission"),
        },
    ),
    "coordinator_node.schemas.payload_contracts:ScheduleEnvelope": (
        "forbid",
        {"prediction_interval_seconds": 60, "resolve_horizon_seconds": 0},
    ),
}


def find(path: str) -> Any:
    module, _, attributes = path.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


def pinned(parameters: str) -> inspect.Signature:
    made: Callable[..., None] = eval(f"lambda {parameters}: None")  # the table above, nothing from outside
    return inspect.signature(made)


def parameters_of(path: str) -> dict[str, inspect.Parameter]:
    target = find(path)
    found = dict(inspect.signature(target).parameters)
    is_instance_method = "." in path.partition(":")[2] and not inspect.ismethod(target)
    if is_instance_method:
        assert next(iter(found)) == "self"
        del found["self"]
    return found


def agrees(actual: Any, wanted: Any) -> bool:
    """Whether a default is the pinned one; a model in it may have further fields."""
    if isinstance(actual, BaseModel):
        return all(agrees(getattr(actual, name), value) for name, value in wanted.items())
    if isinstance(actual, list):
        return len(actual) == len(wanted) and all(map(agrees, actual, wanted))
    if isinstance(actual, dict):
        return list(actual) == list(wanted) and all(agrees(actual[name], wanted[name]) for name in actual)
    return bool(actual == (wanted() if callable(wanted) else wanted))


def positional(parameters: dict[str, inspect.Parameter]) -> list[str]:
    return [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]


def compare(wanted: dict[str, inspect.Parameter], found: dict[str, inspect.Parameter]) -> None:
    assert positional(found)[: len(positional(wanted))] == positional(wanted)
    for name, parameter in wanted.items():
        assert name in found
        assert found[name].kind is parameter.kind, name
        if parameter.default is ...:
            assert found[name].default is not parameter.empty, name
        else:
            assert found[name].default == parameter.default, name
    for name in set(found) - set(wanted):
        variable = found[name].kind in (found[name].VAR_POSITIONAL, found[name].VAR_KEYWORD)
        assert variable or found[name].default is not inspect.Parameter.empty, f"{name} is new and has no default"


@pytest.mark.parametrize("path", [f"{module}:{name}" for module, names in IMPORTS.items() for name in names.split()])
def test_name_is_importable(path: str) -> None:
    find(path)


@pytest.mark.parametrize("module", ["coordinator_node.contracts", "coordinator.contracts"])
def test_older_modules_hold_the_same_things(module: str) -> None:
    older = importlib.import_module(module)
    crunch = importlib.import_module(CRUNCH)
    for name in crunch.__all__:
        assert getattr(older, name) is getattr(crunch, name)


def test_the_older_name_is_the_same_class() -> None:
    assert find(f"{CRUNCH}:CrunchContract") is find(f"{CRUNCH}:CrunchConfig")


@pytest.mark.parametrize("path", CONSTANTS)
def test_constant(path: str) -> None:
    assert find(path) == CONSTANTS[path]


@pytest.mark.parametrize("path", SIGNATURES)
def test_signature(path: str) -> None:
    compare(dict(pinned(SIGNATURES[path]).parameters), parameters_of(path))


@pytest.mark.parametrize("path", COROUTINES)
def test_coroutine(path: str) -> None:
    assert inspect.iscoroutinefunction(find(path))


@pytest.mark.parametrize("path", DATACLASSES)
def test_dataclass(path: str) -> None:
    found = find(path)
    assert dataclasses.is_dataclass(found)
    wanted = dict(pinned(DATACLASSES[path]).parameters)
    compare(wanted, dict(inspect.signature(found).parameters))
    assert [field.name for field in dataclasses.fields(found)][: len(wanted)] == list(wanted)
    parameters: Any = found.__dict__["__dataclass_params__"]
    assert parameters.frozen == (path in FROZEN)


def test_a_score_s_value_is_that_of_its_result() -> None:
    record = find(f"{ENTITIES}.prediction:ScoreRecord")
    assert record("s", "p", {"value": 2.5}).value == 2.5
    assert record("s", "p").value is None


@pytest.mark.parametrize("path", ENUMS)
def test_enum(path: str) -> None:
    found = find(path)
    assert issubclass(found, enum.Enum)
    assert [member.name for member in found] == ENUMS[path]
    assert [member.value for member in found] == ENUMS[path]


@pytest.mark.parametrize("path", TYPED_DICTS)
def test_typed_dict(path: str) -> None:
    found = find(path)
    assert typing.is_typeddict(found)
    hints = typing.get_type_hints(found)
    assert {name: typing.get_origin(hint) or hint for name, hint in hints.items()} == TYPED_DICTS[path]


@pytest.mark.parametrize("path", MODELS)
def test_pydantic_model(path: str) -> None:
    found = find(path)
    extra, fields = MODELS[path]
    assert issubclass(found, BaseModel)
    assert found.model_config.get("extra", "ignore") == extra
    for name, default in fields.items():
        actual = found.model_fields[name].get_default(call_default_factory=True)
        if default is REQUIRED:
            assert actual is PydanticUndefined
        else:
            assert agrees(actual, default), name
    for name in set(found.model_fields) - set(fields):
        assert not found.model_fields[name].is_required(), f"{name} is new and has no default"


def test_ground_truth_and_input_are_raw_inputs() -> None:
    for name in ("GroundTruth", "InferenceInput"):
        assert issubclass(named(name), named("RawInput"))
