"""What the tests of the local stack need around them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Python is told to write no bytecode and none is there, each model host would compile pandas anew."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode and not Path(importlib.util.cache_from_source(pandas.__file__)).exists():
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield
