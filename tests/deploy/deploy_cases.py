"""The files that deployments are made of, as they stand in the checkout and in a workspace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SCAFFOLD = ROOT / "scaffold"
PLACES = {"@node@": "node", "@challenge@": "challenge", "@version@": "0.2.0"}


def text_of(file: Path) -> str:
    """A file's text, a template's as `init` fills it in."""
    content = file.read_text(encoding="utf-8")
    for mark, place in PLACES.items():
        content = content.replace(mark, place)
    return content


def compose_of(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text_of(file))
    return loaded


def locked(file: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """The packages of a lock by name: the version, and the hashes."""
    found = {}
    for block in re.split(r"\n(?=[a-z0-9])", file.read_text(encoding="utf-8")):
        if head := re.match(r"([a-z0-9._-]+)==([^ ]+)", block):
            found[head[1]] = (head[2], frozenset(re.findall(r"--hash=(\S+)", block)))
    return found
