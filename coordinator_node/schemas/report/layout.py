"""What the web app draws by: the leaderboard's columns and the charts. The names are the web app's own."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Format = Literal["percentage", "integer", "compact", "number", "decimal-1", "decimal-2", "decimal-3", "decimal-4"]


class ModelCell(BaseModel):
    """How the model column is drawn."""

    type: Literal["model"] = Field("model", description="Always model.")
    statusProperty: str = Field(description="The field that says whether the model runs.")  # noqa: N815 - the web app's own spelling


class LeaderboardColumn(BaseModel):
    """One column of the leaderboard; `property` is a field of the rows of /reports/leaderboard."""

    id: int = Field(description="From 1, in the order of the columns.")
    type: Literal["MODEL", "VALUE", "USERNAME", "CHART"] = Field(
        description="How it is drawn: MODEL, USERNAME, VALUE (a number) or CHART."
    )
    property: str = Field(description="The field of the leaderboard's rows that it shows.", examples=["score_recent"])
    format: Format | None = Field(
        description="How its numbers are written; percentage takes 1 as 100 %. Null for text."
    )
    displayName: str = Field(description="Its heading.", examples=["Recent score"])  # noqa: N815 - the web app's own spelling
    tooltip: str | None = Field(
        description="What it means; null where the heading says all.",
        examples=["Mean value over the last 24 hours. Models are ranked by it, best first."],
    )
    nativeConfiguration: ModelCell | None = Field(description="Of the MODEL column alone; null for the others.")  # noqa: N815 - the web app's own spelling
    order: int = Field(description="Ascending from left to right.")


class Axis(BaseModel):
    """The field of a chart's x."""

    name: str = Field(description="A field of the endpoint's rows.", examples=["performed_at"])


class Series(BaseModel):
    """A field that a chart draws."""

    name: str = Field(description="A field of the endpoint's rows.", examples=["score_recent"])
    label: str = Field(description="Its name in the legend.", examples=["Recent score"])


class ValueAxis(BaseModel):
    """The fields of a chart's y."""

    series: list[Series] = Field(description="One line each, in order.")
    format: Format = Field(description="How its numbers are written; percentage takes 1 as 100 %.")


class Filter(BaseModel):
    """A field by whose values a chart can be narrowed."""

    type: Literal["select"] = Field("select", description="Always select: one value of a list.")
    label: str = Field(description="Its name on the page.")
    property: str = Field(
        description="The field of the endpoint's rows whose values can be chosen.", examples=["subject"]
    )
    autoSelectFirst: bool = Field(description="Whether the first value is chosen at once; else all are shown.")  # noqa: N815 - the web app's own spelling


class Alert(BaseModel):
    """Points to mark: those where `field` is true, with the reason to show."""

    field: str = Field(description="A boolean field of the endpoint's rows; true means alert.")
    reasonField: str = Field(description="The field of the endpoint's rows that says why.")  # noqa: N815 - the web app's own spelling


class Chart(BaseModel):
    """How a chart is drawn; every name is a field of the rows of its endpoint."""

    type: Literal["line", "gauge", "matrix"] = Field(description="How it is drawn: line, gauge or matrix.")
    xAxis: Axis = Field(description="The field along x.")  # noqa: N815 - the web app's own spelling
    yAxis: ValueAxis = Field(description="The fields along y.")  # noqa: N815 - the web app's own spelling
    filterConfig: list[Filter] | None = Field(None, description="What can be narrowed by, in order; null for nothing.")  # noqa: N815 - the web app's own spelling
    groupByProperty: str | None = Field(  # noqa: N815 - the web app's own spelling
        None, description="One line for each value of this field of the rows; null for one line."
    )
    alertConfig: Alert | None = Field(None, description="Which points are marked; null for none.")  # noqa: N815 - the web app's own spelling


class Widget(BaseModel):
    """One chart."""

    id: int = Field(description="1 models/global, 2 predictions, 3 models/params; others from 4.")
    type: Literal["CHART", "IFRAME"] = Field(description="CHART, or IFRAME: a page of its own.")
    displayName: str = Field(description="Its heading.")  # noqa: N815 - the web app's own spelling
    tooltip: str | None = Field(description="What it shows; null where the heading says all.")
    order: int = Field(description="Ascending from the top.")
    endpointUrl: str = Field(  # noqa: N815 - the web app's own spelling
        description="Where its rows come from: a path of this API.", examples=["/reports/models/global"]
    )
    nativeConfiguration: Chart | None = Field(description="How it is drawn; null for an IFRAME.")  # noqa: N815 - the web app's own spelling


class Layout(BaseModel):
    """All that the web app draws by."""

    leaderboard_columns: list[LeaderboardColumn] = Field(description="The leaderboard's columns, from left to right.")
    metrics_widgets: list[Widget] = Field(description="The charts, from the top.")
