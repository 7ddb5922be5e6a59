"""From the leader's memory to the tables that the built-in metrics read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator_node.entities.ensemble import is_ensemble_model
from coordinator_node.metrics.arrays import Floats
from coordinator_node.metrics.observations import ObservationTable
from coordinator_node.services.snapshot.observations import ModelWindow, ObservationStore

CELLS_AT_ONCE = 4_000_000
"""Rows times columns of one table at most, where parting its models makes smaller ones; each array takes 32 MB then."""


class Span(NamedTuple):
    """What resolved in (after, until]."""

    after: datetime
    until: datetime


class MeasuredTable(NamedTuple):
    """A table, and the rows of the models that are to be measured by it."""

    table: ObservationTable
    rows: list[int]


class _Row(NamedTuple):
    """One model's part of the span, its entries and values, and the ranks of its signals among these."""

    model_id: str
    window: ModelWindow
    part: slice
    entries: NDArray[np.intp]
    values: Floats
    ranks: Floats


def measured_tables(
    store: ObservationStore, model_ids: Sequence[str], span: Span, ensemble_id: str | None = None
) -> Iterator[MeasuredTable]:
    """Tables by which all models of `model_ids` are measured, those that have observations in the span.

    A table's columns are the entries of the models that it measures; its rows are these, and every real model that has
    one of the columns. It is one table unless that would be very large, as where models answered at different times.

    Args:
        store: the models' windows.
        model_ids: whom to measure.
        span: which observations count.
        ensemble_id: the ensemble that models are measured against; None for none.
    """
    rows = [row for model_id, window in store.models.items() if (row := _row(model_id, window, span)) is not None]
    known = {row.model_id: row for row in rows}
    yield from _tables(store, [known[i] for i in model_ids if i in known], rows, known.get(ensemble_id or ""))


def _row(model_id: str, window: ModelWindow, span: Span) -> _Row | None:
    part = window.between(span.after, span.until)
    entries, values = window.entries[part], window.values[:, part]
    return _Row(model_id, window, part, entries, values, window.ranks(part)) if entries.size else None


def _tables(
    store: ObservationStore, wanted: Sequence[_Row], rows: Sequence[_Row], ensemble: _Row | None
) -> Iterator[MeasuredTable]:
    if not wanted:
        return
    held = _held(store, wanted)
    columns, middle = int(held.sum()), len(wanted) // 2
    if len(rows) * columns > CELLS_AT_ONCE and middle:
        parts = (wanted[:middle], wanted[middle:])
        # Models that answered in the same slots need the same columns in each part: parted they would only cost twice.
        if 2 * sum(int(_held(store, part).sum()) for part in parts) < 3 * columns:
            for part in parts:
                yield from _tables(store, part, rows, ensemble)
            return
    ids = {row.model_id for row in wanted}
    among = [row for row in rows if row.model_id not in ids and not is_ensemble_model(row.model_id)]
    shown = [*wanted, *(row for row in among if held[row.entries].any())]
    yield MeasuredTable(_table(store, np.flatnonzero(held), shown, ensemble), list(range(len(wanted))))


def _held(store: ObservationStore, rows: Sequence[_Row]) -> NDArray[np.bool_]:
    """Which of the store's entries some of the rows have."""
    held = np.zeros(store.entry_count, dtype=np.bool_)
    for row in rows:
        held[row.entries] = True
    return held


def _table(
    store: ObservationStore, entries: NDArray[np.intp], rows: Sequence[_Row], ensemble: _Row | None
) -> ObservationTable:
    ordered, scopes = _in_time_order(store, entries)
    columns = np.full(store.entry_count, -1, dtype=np.intp)
    columns[ordered] = np.arange(ordered.size)
    cells = np.empty((4, len(rows), ordered.size))
    for place, row in enumerate(rows):
        if np.array_equal(row.entries, ordered):  # it answered everywhere, as most do
            cells[:3, place], cells[3, place] = row.values, row.ranks
            continue
        cells[:, place] = np.nan
        own = columns[row.entries]
        there = own >= 0
        cells[:3, place, own[there]] = row.values[:, there]
        cells[3, place, own[there]] = row.ranks[there]
    model_ids = tuple(row.model_id for row in rows)
    return ObservationTable(
        model_ids=model_ids,
        scopes=scopes,
        signals=cells[0],
        scores=cells[1],
        returns=cells[2],
        ensemble=None if ensemble is None else _signals(ensemble, columns, ordered.size),
        ensemble_weights=None if ensemble is None else _weights(ensemble, columns, model_ids, ordered.size),
        window_ranks=cells[3],
    )


def _in_time_order(store: ObservationStore, entries: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The entries in order of their time, then scope_key and input_id; and the number of each one's scope."""
    keys = store.keys(entries.tolist())
    names = sorted({scope_key for _, scope_key in keys})
    numbers = {name: number for number, name in enumerate(names)}
    scopes = np.array([numbers[scope_key] for _, scope_key in keys], dtype=np.intp)
    performed = store.performed(entries)
    order = np.lexsort((scopes, performed))
    moments, tied_scopes = performed[order], scopes[order]
    if ((np.diff(moments) == 0) & (np.diff(tied_scopes) == 0)).any():
        # Several inputs of one scope at one moment: rare enough for sorting by text.
        inputs = [input_id for input_id, _ in keys]
        by_all = sorted(range(len(keys)), key=lambda place: (performed[place], scopes[place], inputs[place]))
        order = np.array(by_all, dtype=np.intp)
    return entries[order], scopes[order]


def _signals(row: _Row, columns: NDArray[np.intp], count: int) -> Floats:
    signals = np.full(count, np.nan)
    own = columns[row.entries]
    signals[own[own >= 0]] = row.values[0][own >= 0]
    return signals


def _weights(ensemble: _Row, columns: NDArray[np.intp], model_ids: Sequence[str], count: int) -> Floats:
    """What each model weighed at each entry: as the ensemble's prediction says, else all the same."""
    weights = np.ones((len(model_ids), count))
    rows = {model_id: row for row, model_id in enumerate(model_ids)}
    alike: dict[tuple[str, ...], list[tuple[int, Floats]]] = {}
    for column, stated in zip(columns[ensemble.entries], ensemble.window.weights[ensemble.part], strict=True):
        if column >= 0 and stated is not None:
            alike.setdefault(stated[0], []).append((int(column), stated[1]))
    for names, entries in alike.items():
        members = [place for place, name in enumerate(names) if name in rows]
        where = [column for column, _ in entries]
        weights[:, where] = 0.0
        stacked = np.maximum(np.vstack([values[members] for _, values in entries]), 0.0)
        weights[np.ix_([rows[names[place]] for place in members], where)] = stacked.T
    return weights
