"""Every example answers what the competition accepts."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from starter_challenge import examples
from starter_challenge.config import CrunchConfig
from starter_challenge.tracker import TrackerBase

README = Path(__file__).parent.parent / "README.md"
NAMES = [module.name for module in pkgutil.iter_modules(examples.__path__)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("x", [0.0, -3.0])
def test_it_answers_in_range(name, x):
    module = importlib.import_module(f"{examples.__name__}.{name}")
    (model,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, TrackerBase) and value is not TrackerBase
    ]
    CrunchConfig().output_type.model_validate(model().predict({"x1": x, "x2": x, "x3": x, "x4": x}))


def test_the_readmes_model_answers_in_range():
    (code,) = re.findall(
        r"```python\n(.*?)```", README.read_text(encoding="utf-8").partition("## The score")[0], re.DOTALL
    )
    names = {}
    exec(code, names)  # noqa: S102 - the README's own code
    answer = names["MyTracker"]().predict({"x1": 1.0, "x2": 2.0, "x3": 0.0, "x4": 0.0})
    assert CrunchConfig().output_type.model_validate(answer).value == 0.5 * 1.0 - 0.3 * 2.0


def test_there_are_three():
    assert len(NAMES) >= 3
