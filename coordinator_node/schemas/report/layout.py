"""What the web app draws by: the leaderboard's columns and the charts. The names are the web app's own."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Format = Literal["percentage", "integer", "compact", "number", "decimal-1", "decimal-2", "decimal-3", "decimal-4"]


class ModelCell(BaseModel):
    """How the model column is drawn."""

    type: Literal["model"] = "model"
    statusProperty: str = Field(description="The field that says whether the model runs.")  # noqa: N815 - the web app's own spelling


class LeaderboardColumn(BaseModel):
    """One column of the leaderboard; `property` is a field of the rows of /reports/leaderboard."""

    id: int
    type: Literal["MODEL", "VALUE", "USERNAME", "CHART"]
    property: str = Field(examples=["score_recent"])
    format: Format | None
    displayName: str = Field(examples=["Recent score"])  # noqa: N815 - the web app's own spelling
    tooltip: str | None = Field(examples=["Mean value over the last 24 hours. Models are ranked by it, best first."])
    nativeConfiguration: ModelCell | None  # noqa: N815 - the web app's own spelling
    order: int


class Axis(BaseModel):
    """The field of a chart's x."""

    name: str = Field(examples=["performed_at"])


class Series(BaseModel):
    """A field that a chart draws."""

    name: str = Field(examples=["score_recent"])
    label: str = Field(examples=["Recent score"])


class ValueAxis(BaseModel):
    """The fields of a chart's y."""

    series: list[Series]
    format: Format


class Filter(BaseModel):
    """A field by whose values a chart can be narrowed."""

    type: Literal["select"] = "select"
    label: str
    property: str = Field(examples=["subject"])
    autoSelectFirst: bool  # noqa: N815 - the web app's own spelling


class Alert(BaseModel):
    """Points to mark: those where `field` is true, with the reason to show."""

    field: str
    reasonField: str  # noqa: N815 - the web app's own spelling


class Chart(BaseModel):
    """How a chart is drawn; every name is a field of the rows of its endpoint."""

    type: Literal["line", "gauge", "matrix"]
    xAxis: Axis  # noqa: N815 - the web app's own spelling
    yAxis: ValueAxis  # noqa: N815 - the web app's own spelling
    filterConfig: list[Filter] | None = None  # noqa: N815 - the web app's own spelling
    groupByProperty: str | None = None  # noqa: N815 - the web app's own spelling
    alertConfig: Alert | None = None  # noqa: N815 - the web app's own spelling


class Widget(BaseModel):
    """One chart."""

    id: int
    type: Literal["CHART", "IFRAME"]
    displayName: str  # noqa: N815 - the web app's own spelling
    tooltip: str | None
    order: int
    endpointUrl: str = Field(examples=["/reports/models/global"])  # noqa: N815 - the web app's own spelling
    nativeConfiguration: Chart | None  # noqa: N815 - the web app's own spelling


class Layout(BaseModel):
    """All that the web app draws by."""

    leaderboard_columns: list[LeaderboardColumn]
    metrics_widgets: list[Widget]
