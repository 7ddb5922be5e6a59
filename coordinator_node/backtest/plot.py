"""The equity curve and its drawdown as SVG that stands in a page by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

import numpy as np

from coordinator_node.backtest.equity import Equity
from coordinator_node.metrics.arrays import Floats

WIDTH, HEIGHT, FALL_HEIGHT, MARGIN = 720, 200, 80, 56
MOST_POINTS = 700


def equity_svg(equity: Equity, times: Sequence[datetime]) -> str:
    """Two panels: the curve above, the drawdown below, both in per cent; a sentence where there is nothing to draw.

    `times` are when the outcomes of all predictions were known.
    """
    if not equity.places.size:
        return "<p>No scored prediction has both a signal and a return, so there is no equity curve.</p>"
    shown = np.unique(np.linspace(0, equity.places.size - 1, MOST_POINTS).astype(int))
    panels = [
        _panel("equity, %", equity.curve[shown] * 100, 0, HEIGHT, "#1f6feb"),
        _panel("drawdown, %", equity.drawdown[shown] * 100, HEIGHT + 24, FALL_HEIGHT, "#d1242f"),
    ]
    bottom = HEIGHT + FALL_HEIGHT + 44
    first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (times[equity.places[0]], times[equity.places[-1]]))
    labels = [_text(MARGIN, bottom, first), _text(WIDTH - 4, bottom, last, "end")]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 8}" width="{WIDTH}" role="img"'
        f' aria-label="equity and drawdown" font-family="sans-serif" font-size="11">{"".join(panels + labels)}</svg>'
    )


def _panel(title: str, values: Floats, top: int, height: int, colour: str) -> str:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    spread = (high - low) or 1.0

    def y_of(value: float) -> float:
        return top + 16 + (high - value) / spread * (height - 20)

    xs = np.linspace(MARGIN, WIDTH - 4, values.size) if values.size > 1 else [float(MARGIN)]
    points = " ".join(f"{x:.1f},{y_of(float(value)):.1f}" for x, value in zip(xs, values, strict=True))
    zero = y_of(0.0)
    return "".join(
        (
            f'<line x1="{MARGIN}" x2="{WIDTH - 4}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="#8888" />',
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.3" />',
            _text(MARGIN, top + 11, title),
            *(_text(MARGIN - 4, y_of(value) + 4, f"{value:.2f}", "end") for value in dict.fromkeys((high, low))),
        )
    )


def _text(x: float, y: float, said: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{escape(said)}</text>'


def table_html(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
