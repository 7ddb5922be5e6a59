"""Rounds of a tournament as data, and how a model is asked their rows: as live, from the clients' two requests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coordinator_node.backtest.calls import ModelCalls
from coordinator_node.backtest.play import Play, Played, Progress
from coordinator_node.backtest.stored import as_stored, stored_tree
from coordinator_node.config.settings import Settings
from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.entities.errors import ConfigurationError
from coordinator_node.entities.prediction import PredictionRecord, PredictionStatus
from coordinator_node.entities.times import as_utc
from coordinator_node.services.predict.outcomes import Outcomes
from coordinator_node.services.predict.round_calls import UNTIL_TRUTH
from coordinator_node.services.tournament.arguments import row_arguments, scope_key_of
from coordinator_node.services.tournament.errors import RoundInputError
from coordinator_node.services.tournament.rounds import checked_round
from coordinator_node.services.tournament.truths import truths_by_index

_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("round_id", pa.string()),
        ("asked_at", _TIME),
        ("features", pa.string()),
        ("told_at", _TIME),
        ("ground_truth", pa.string()),
    ]
)
"""A row is a round; `features` and `ground_truth` are JSON, as the endpoints take them."""


@dataclass(frozen=True)
class Round:
    """One round: `features` as they are asked at `asked_at`, and the `ground_truth` as it is given at `told_at`.

    Both are what the endpoints take. Without a ground truth the round stays PENDING; `told_at` None means `asked_at`.
    """

    round_id: str
    asked_at: datetime
    features: Sequence[dict[str, Any]]
    ground_truth: Any = None
    told_at: datetime | None = None

    @property
    def due_at(self) -> datetime:
        """From when on its predictions are due, as live: when the truth is given, at the earliest when it is asked."""
        asked_at = as_utc(self.asked_at)
        return asked_at if self.told_at is None else max(as_utc(self.told_at), asked_at)


def write_rounds(path: str | Path, rounds: Sequence[Round]) -> Path:
    """Write rounds as a Parquet file of SCHEMA, which a backtest takes for `data`; returns where it is."""
    columns = {
        "round_id": [one.round_id for one in rounds],
        "asked_at": [as_utc(one.asked_at) for one in rounds],
        "features": [json.dumps(list(one.features)) for one in rounds],
        "told_at": [None if one.told_at is None else as_utc(one.told_at) for one in rounds],
        "ground_truth": [None if one.ground_truth is None else json.dumps(one.ground_truth) for one in rounds],
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), path)
    return Path(path)


def read_rounds(place: Path) -> list[Round]:
    """The rounds of a Parquet file of SCHEMA, or of all in a folder.

    Raises:
        ConfigurationError: there is no such file, or it holds something else; the message names it.
    """
    files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    return [one for file in files for one in _read(file)]


def rounds_between(rounds: Sequence[Round], start: datetime, end: datetime) -> list[Round]:
    """The rounds that are asked in [start, end), in order of that time, of one moment by their ids.

    Raises:
        ConfigurationError: there is none, or two of one id, which live are refused.
    """
    ids = [one.round_id for one in rounds]
    double = next((one for one, after in zip(sorted(ids), sorted(ids)[1:], strict=False) if one == after), None)
    if double is not None:
        raise ConfigurationError(f"there are several rounds of id {double!r}; each must have its own")
    played = [one for one in rounds if start <= as_utc(one.asked_at) < end]
    if not played:
        raise ConfigurationError(
            f"none of the {len(rounds)} rounds was asked between {start.isoformat()} and {end.isoformat()}"
        )
    return sorted(played, key=lambda one: (as_utc(one.asked_at), one.round_id))


def play_rounds(
    model: Any, model_id: str, rounds: Sequence[Round], config: CrunchConfig, settings: Settings, progress: Progress
) -> Play:
    """Ask the model every row of every round, in their order. As live, it is not ticked.

    Raises:
        ConfigurationError: a round that the coordinator would refuse, and why; or a model that cannot be asked.
    """
    calls = ModelCalls(model, config.call_method, ticked=False)
    longest = settings.model_runner_timeout_seconds * 1000
    done = Play()
    for number, one in enumerate(rounds):
        outcomes = Outcomes(config, settings, lambda: as_utc(one.asked_at))  # noqa: B023 - used before the next round
        try:
            done.predictions += _ask_rows(model_id, one, config, calls, outcomes)
        except RoundInputError as error:
            raise ConfigurationError(f"round {one.round_id!r}: {error}") from error
        progress((number + 1) / len(rounds))
    done.bars, done.model_seconds = len(done.predictions), calls.seconds
    done.late = sum(played.record.exec_time_ms > longest for played in done.predictions)
    return done


def _ask_rows(
    model_id: str, one: Round, config: CrunchConfig, calls: ModelCalls, outcomes: Outcomes
) -> Iterator[Played]:
    """Each row's prediction. What is not known until later is not among what the model is given."""
    rows, scopes = checked_round(config, one.round_id, one.features)
    truths = {}
    if one.ground_truth is not None:
        truths = truths_by_index(one.ground_truth, len(rows), config.ground_truth_type)
    for index, (row, scope) in enumerate(zip(rows, scopes, strict=True)):
        arguments = row_arguments(config.call_method, stored_tree(row), stored_tree(scope))
        columns = outcomes.of(calls.ask_with(arguments))
        # Of one moment, rows stand in their order, as the ids of live inputs do.
        input_id = f"{scope_key_of(one.round_id)}/{index:09}"
        record = PredictionRecord(
            id=f"{input_id}/{model_id}",
            input_id=input_id,
            model_id=model_id,
            prediction_config_id=None,
            scope_key=scope_key_of(one.round_id),
            scope=scope,
            status=PredictionStatus(columns["status"]),
            exec_time_ms=columns["exec_time_ms"],
            inference_output=as_stored(columns["inference_output_jsonb"]),
            meta={},
            performed_at=as_utc(one.asked_at),
            resolvable_at=one.due_at if index in truths else UNTIL_TRUTH,
        )
        yield Played(record, columns["failed_reason"], truths.get(index))


def _read(file: Path) -> Iterator[Round]:
    try:
        rows = pq.read_table(file).select(SCHEMA.names).cast(SCHEMA).to_pylist()
        for row in rows:
            truth = None if row["ground_truth"] is None else json.loads(row["ground_truth"])
            yield Round(row["round_id"], row["asked_at"], json.loads(row["features"]), truth, row["told_at"])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{file} is no Parquet file of rounds ({', '.join(SCHEMA.names)}): {' '.join(str(error).split())}"
        ) from error
