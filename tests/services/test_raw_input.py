"""What models receive: the newest records of every subject, in time order, however many old ones there are."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from builders import START, at, records, settings_of
from pydantic import BaseModel
from sqlalchemy import Engine
from sqlmodel import Session

from coordinator_node.crunch_config import CrunchConfig
from coordinator_node.db.engine import transaction
from coordinator_node.services.predict.raw_input import InputBuilderError, InputReader, MarketInput

MINUTE = 60.0
SUBJECTS = ("BTC", "ETH", "SOL")


def price(subject: str, minute: int) -> float:
    return 1000.0 * SUBJECTS.index(subject) + minute


def store_candles(engine: Engine, minutes: dict[str, range]) -> None:
    with transaction(engine) as session:
        for subject, its_minutes in minutes.items():
            values: dict[float, dict[str, Any]] = {
                minute * MINUTE: {"open": price(subject, minute), "close": price(subject, minute) + 0.5}
                for minute in its_minutes
            }
            records(session, values, subject, kind="candle", granularity="1m")


def reader(window: int) -> InputReader:
    settings = settings_of(
        FEED_SUBJECTS=",".join(SUBJECTS),
        FEED_KIND="candle",
        FEED_GRANULARITY="1m",
        FEED_CANDLES_WINDOW=str(window),
    )
    return InputReader(CrunchConfig(), settings)


def test_every_subject_has_its_newest_records_in_time_order_among_many_old_ones(engine: Engine) -> None:
    # Days of old records, and subjects that ended at different times.
    store_candles(engine, {"BTC": range(-3000, 100), "ETH": range(-3000, 97), "SOL": range(-10, -7)})
    with Session(engine) as session:
        given = reader(window=5).read(session, at(100 * MINUTE))
    assert given is not None
    newest = {"BTC": range(95, 100), "ETH": range(92, 97), "SOL": range(-10, -7)}
    for subject, minutes in newest.items():
        data = given.subjects[subject]
        assert data["symbol"] == subject
        assert [candle["ts"] for candle in data["candles_1m"]] == [
            int(START.timestamp()) + minute * 60 for minute in minutes
        ]
        assert [candle["open"] for candle in data["candles_1m"]] == [price(subject, minute) for minute in minutes]
        assert data["asof_ts"] == int(START.timestamp()) + (minutes[-1] + 1) * 60
    assert given.raw_data() == {"subjects": given.subjects}


def test_a_candle_that_had_not_closed_at_the_time_is_not_given(engine: Engine) -> None:
    store_candles(engine, {"BTC": range(10)})
    with Session(engine) as session:
        given = reader(window=3).read(session, at(5 * MINUTE) - timedelta(microseconds=1))
    assert given is not None
    assert list(given.subjects) == ["BTC"]
    assert [candle["open"] for candle in given.subjects["BTC"]["candles_1m"]] == [1.0, 2.0, 3.0]


class Indicators(BaseModel):
    """An operator's input_type."""

    mean: float
    more: Any = None


class Builder:
    """What the operator's builder below makes of any input."""

    made: dict[str, Any]


def build(raw: dict[str, Any]) -> dict[str, Any]:
    """An INFERENCE_INPUT_BUILDER."""
    return Builder.made


def built(engine: Engine, made: dict[str, Any]) -> MarketInput | None:
    Builder.made = made
    with transaction(engine) as session:
        records(session, {0.0: {"price": 1.0}})
        settings = settings_of(INFERENCE_INPUT_BUILDER=f"{__name__}:build")
        return InputReader(CrunchConfig(input_type=Indicators), settings).read(session, at(1))


def test_what_a_builder_computes_is_given_as_json_has_it(engine: Engine) -> None:
    made = {"mean": math.nan, "more": {"scalar": np.float32(0.5), "series": np.array([np.nan, 2.0]), "far": -math.inf}}
    given = built(engine, made)
    assert given is not None
    assert given.subjects["BTC"] == {"mean": None, "more": {"scalar": 0.5, "series": [None, 2.0], "far": None}}


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_a_builders_text_that_cannot_be_stored_skips_the_input_with_the_reason(engine: Engine, text: str) -> None:
    with pytest.raises(InputBuilderError, match=r"input of BTC: UnstorableError: it\.more holds text"):
        built(engine, {"mean": 1.0, "more": text})
