"""The web app's columns and charts, made from the config."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.schemas.report.competition import LeaderboardEntry
from coordinator_node.schemas.report.layout import (
    Alert,
    Axis,
    Chart,
    Filter,
    Format,
    Layout,
    LeaderboardColumn,
    ModelCell,
    Series,
    ValueAxis,
    Widget,
)
from coordinator_node.schemas.report.standings import ScopeStanding, SnapshotPoint, Standing, reserved

# What the built-in metrics are, for whoever reads a table of them.
_TOLD: dict[str, tuple[str, Format, str]] = {
    "ic": ("IC", "decimal-4", "Rank correlation of signals and actual returns."),
    "ic_sharpe": ("IC Sharpe", "decimal-2", "Mean over standard deviation of the IC of equal parts of the window."),
    "mean_return": ("Mean return", "decimal-4", "Mean of the actual return times the signal's sign."),
    "hit_rate": ("Hit rate", "percentage", "Share of predictions whose sign was right."),
    "model_correlation": ("Model correlation", "decimal-2", "Mean rank correlation with the other models."),
    "max_drawdown": ("Max drawdown", "decimal-4", "Worst fall of the cumulative score from a peak; 0 or less."),
    "sortino_ratio": ("Sortino ratio", "decimal-2", "Mean over downside deviation of the scores."),
    "turnover": ("Turnover", "decimal-4", "Mean change of the signal from one prediction to the next."),
    "fnc": ("FNC", "decimal-4", "IC of what the signal does not share with the others."),
    "contribution": ("Contribution", "decimal-4", "What the ensemble's IC gains by the model."),
    "ensemble_correlation": ("Ensemble correlation", "decimal-2", "Rank correlation with the ensemble."),
}

_X = Axis(name="performed_at")


def layout_of(config: CrunchConfig) -> Layout:
    """The columns and charts of a competition."""
    return Layout(leaderboard_columns=_columns(config), metrics_widgets=_widgets(config))


def value_names(config: CrunchConfig) -> list[str]:
    """The values by which models are shown: what ranks, the windows, the metrics."""
    aggregation = config.aggregation
    return list(dict.fromkeys([aggregation.ranking_key, *aggregation.windows, *config.metrics]))


def _columns(config: CrunchConfig) -> list[LeaderboardColumn]:
    own: list[tuple[str, str, Format | None, str, str | None]] = [
        ("MODEL", "model_id", None, "Model", None),
        ("USERNAME", "username", None, "Cruncher", None),
        ("VALUE", "rank", "integer", "Rank", "From 1; models without a value have none."),
    ]
    own += [("VALUE", name, *_told(name, config)) for name in _shown(value_names(config), LeaderboardEntry)]
    return [
        LeaderboardColumn.model_validate(
            {
                "id": place,
                "type": kind,
                "property": name,
                "format": form,
                "displayName": label,
                "tooltip": tooltip,
                "nativeConfiguration": ModelCell(statusProperty="status") if kind == "MODEL" else None,
                "order": place * 10,
            }
        )
        for place, (kind, name, form, label, tooltip) in enumerate(own, 1)
    ]


def _widgets(config: CrunchConfig) -> list[Widget]:
    windows = list(config.aggregation.windows)
    by_scope = [
        Filter(label="Subject", property="subject", autoSelectFirst=True),
        Filter(label="Horizon (s)", property="horizon", autoSelectFirst=True),
    ]
    charts = [
        ("Scores", "/reports/models/global", _line(config, _shown(windows, Standing), group="model_id")),
        ("Predictions", "/reports/predictions", _predictions(by_scope)),
        (
            "Scores by scope",
            "/reports/models/params",
            _line(config, _shown(windows, ScopeStanding), group="param", filters=by_scope),
        ),
        ("Metrics", "/reports/models/metrics", _line(config, _shown(config.metrics, SnapshotPoint), group="model_id")),
    ]
    return [
        Widget(
            id=number,
            type="CHART",
            displayName=name,
            tooltip=None,
            order=number * 10,
            endpointUrl=endpoint,
            nativeConfiguration=chart,
        )
        for number, (name, endpoint, chart) in enumerate(charts, 1)
        if chart.yAxis.series
    ]


def _predictions(filters: list[Filter]) -> Chart:
    return Chart(
        type="line",
        xAxis=_X,
        yAxis=ValueAxis(series=[Series(name="score_value", label="Score")], format="decimal-4"),
        filterConfig=filters,
        groupByProperty="param",
        alertConfig=Alert(field="score_failed", reasonField="score_failed_reason"),
    )


def _line(config: CrunchConfig, names: Iterable[str], *, group: str, filters: list[Filter] | None = None) -> Chart:
    series = [Series(name=name, label=_told(name, config)[1]) for name in names]
    return Chart(
        type="line",
        xAxis=_X,
        yAxis=ValueAxis(series=series, format="decimal-4"),
        filterConfig=filters,
        groupByProperty=group,
    )


def _shown(names: Iterable[str], row: type[LeaderboardEntry | Standing | SnapshotPoint]) -> list[str]:
    """The names that stand at the top level of a row."""
    windows = {"score_recent", "score_steady", "score_anchor"}
    return [name for name in names if name not in reserved(row) or name in windows]


def _told(name: str, config: CrunchConfig) -> tuple[Format, str, str]:
    """Format, label and explanation of a value."""
    aggregation = config.aggregation
    label, form, told = _TOLD.get(name, (name.replace("_", " ").capitalize(), "decimal-4", ""))
    if name in aggregation.windows:
        told = f"Mean {aggregation.value_field} over the last {aggregation.windows[name].hours} hours."
    if name == aggregation.ranking_key:
        best = "highest" if aggregation.ranking_direction == "desc" else "lowest"
        told = f"{told} Models are ranked by it, {best} first.".strip()
    return form, label, told
