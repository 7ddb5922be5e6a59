"""What `coordinator-node verify` runs: the script that strangers run without this package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import coordinator_node
from coordinator_node.entities.errors import ConfigurationError


def verification_script() -> ModuleType:
    """`docs/verify/verify.py`: beside the package in a checkout, in it in an installed wheel.

    Raises:
        ConfigurationError: in neither, because the installation is not whole.
    """
    package = Path(coordinator_node.__file__).parent
    for path in (package / "_verify.py", package.parent / "docs" / "verify" / "verify.py"):
        if path.is_file():
            spec = importlib.util.spec_from_file_location("coordinator_node_verify", path)
            if spec and spec.loader:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    raise ConfigurationError(f"no verify.py in {package} or beside it: install coordinator-node anew")
