"""The templates of workspaces: the scaffold that all share, and the packs laid over it.

They stand beside the package in a checkout, and inside it in an installed wheel.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import coordinator_node
from coordinator_node.entities.errors import ConfigurationError

DESCRIPTION = "pack.toml"


@dataclass(frozen=True)
class Pack:
    """One kind of competition that `init` can begin with.

    Attributes:
        name: what --pack takes.
        title: one line that says what models answer and how they are scored.
        folder: its files, laid over the scaffold's.
    """

    name: str
    title: str
    folder: Path


def templates_folder() -> Path:
    """The folder that holds scaffold/ and packs/.

    Raises:
        ConfigurationError: neither a checkout nor an installed wheel has them.
    """
    package = Path(coordinator_node.__file__).parent
    for folder in (package / "_templates", package.parent):
        if (folder / "scaffold").is_dir() and (folder / "packs").is_dir():
            return folder
    raise ConfigurationError(f"no templates in {package / '_templates'} nor in {package.parent}: install it anew")


def scaffold_folder() -> Path:
    """The files that every workspace begins with."""
    return templates_folder() / "scaffold"


def packs() -> dict[str, Pack]:
    """All packs by name, in the order of their names."""
    found = {}
    for file in sorted((templates_folder() / "packs").glob(f"*/{DESCRIPTION}")):
        described = tomllib.loads(file.read_text(encoding="utf-8"))
        found[file.parent.name] = Pack(file.parent.name, described["title"], file.parent)
    return found


def find_pack(name: str) -> Pack:
    """A pack by its name.

    Raises:
        ConfigurationError: there is none of that name; the message lists those there are.
    """
    known = packs()
    if name not in known:
        raise ConfigurationError(f"there is no pack {name!r}; there are: {', '.join(known)}")
    return known[name]
