"""Every example answers what the competition accepts."""

import importlib
import pkgutil

import pytest

from starter_challenge import examples
from starter_challenge.config import CrunchConfig
from starter_challenge.tracker import TrackerBase

NAMES = [module.name for module in pkgutil.iter_modules(examples.__path__)]


def model_of(name):
    module = importlib.import_module(f"{examples.__name__}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, TrackerBase) and value is not TrackerBase
    ]
    assert len(found) == 1, f"{name} holds {len(found)} models instead of one"
    return found[0]()


def window(count):
    candles = [
        {"ts": 60 * i, "open": 100 + i, "high": 101 + i, "low": 99 + i, "close": 100 + i, "volume": 1.0}
        for i in range(count)
    ]
    return {"symbol": "BTC", "asof_ts": 60 * count, "candles_1m": candles}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 120])
def test_it_answers_in_range(name, count):
    model = model_of(name)
    model.tick(window(count))
    CrunchConfig().output_type.model_validate(model.predict("BTC", 15, 5))


def test_there_are_three():
    assert len(NAMES) >= 3
