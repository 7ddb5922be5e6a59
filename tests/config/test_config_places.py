"""A config that is broken stops the worker with its own error, and with the line that it came from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator_node.config_loader import load_config, reset_cache
from coordinator_node.entities.error_places import reason_and_place_of
from coordinator_node.entities.errors import ConfigurationError

HEAD = "from coordinator_node.crunch_config import CrunchConfig as Base\n"


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CRUNCH_CONFIG_MODULE", "my_places:CrunchConfig")
    sys.modules.pop("my_places", None)
    reset_cache()
    yield tmp_path / "my_places.py"
    sys.modules.pop("my_places", None)
    reset_cache()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "\nimport no_such_library\n", r"No module named 'no_such_library' \(my_places\.py:3\)"),
        (HEAD + "class CrunchConfig(Base:\n    pass\n", r"SyntaxError: .*my_places\.py"),
        (HEAD + "def broken(): return {}['gone']\nbroken()\n", r"KeyError: 'gone' \(my_places\.py:2\)"),
        (HEAD + "\nclass CrunchConfig(Base):\n    metrics: list[str] = []\n    needed: int\n", r"my_places\.py:3"),
        (
            HEAD + "from pydantic import Field\ndef schedules(): raise OSError('no disk')\n"
            "class CrunchConfig(Base):\n    scheduled_predictions: list = Field(default_factory=schedules)\n",
            r"is not valid: OSError: no disk \(my_places\.py:3\)",
        ),
    ],
)
def test_a_broken_config_is_said_with_file_and_line(config_file: Path, text: str, said: str) -> None:
    config_file.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_config()
    assert len(str(raised.value).splitlines()) == 1


def test_an_error_of_nobodys_code_has_no_place() -> None:
    assert reason_and_place_of(ValueError("said\nso")) == "ValueError: said so"
