"""From the leader's memory to tables: one for models that answered alike, however many these are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest
from builders import START, at

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.services.snapshot import window_tables
from coordinator_node.services.snapshot.observations import Observation, ObservationStore
from coordinator_node.services.snapshot.window_metrics import window_metrics
from coordinator_node.services.snapshot.window_tables import Span, measured_tables

MODELS = [f"model-{n:02d}" for n in range(16)]
ENTRIES = 12
SPAN = Span(START - timedelta(seconds=1), START + timedelta(days=1))


def store_of(input_of: Callable[[int, int], str]) -> ObservationStore:
    """Each model's signals at ENTRIES moments; `input_of(model, moment)` says what it answered to."""
    store, signals = ObservationStore(), np.random.default_rng(5).normal(size=(len(MODELS), ENTRIES))
    store.feed(
        Observation(
            model_id=model_id,
            input_id=input_of(number, moment),
            scope_key="BTC-60",
            performed_at=at(moment),
            resolvable_at=at(moment + 60),
            output={"value": float(signals[number, moment])},
            result={"value": 1.0, "profit": float(signals[0, moment] + moment)},
            ground_truth={},
            scope=None,
            scored_at=at(moment + 61),
        )
        for number, model_id in enumerate(MODELS)
        for moment in range(ENTRIES)
    )
    return store


ALIKE = store_of(lambda model, moment: f"input-{moment}")
APART = store_of(lambda model, moment: f"input-{model}-{moment}")
IN_PAIRS = store_of(lambda model, moment: f"input-{model // 2}-{moment}")


@pytest.mark.parametrize(("store", "tables"), [(ALIKE, 1), (APART, 16), (IN_PAIRS, 8)])
def test_models_are_parted_only_where_that_makes_tables_smaller(
    store: ObservationStore, tables: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = window_metrics(store, CrunchConfig(), MODELS, SPAN)
    monkeypatch.setattr(window_tables, "CELLS_AT_ONCE", 1)
    parted = list(measured_tables(store, MODELS, SPAN))
    assert len(parted) == tables
    assert [table.model_ids[row] for table, rows in parted for row in rows] == MODELS
    again = window_metrics(store, CrunchConfig(), MODELS, SPAN)
    assert {name: pytest.approx(values) for name, values in whole.items()} == again
