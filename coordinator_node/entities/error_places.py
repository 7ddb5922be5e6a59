"""Where in an operator's own code an error came from."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import pydantic

import coordinator_node
from coordinator_node.entities.json_values import reason_of

_ENGINE = Path(coordinator_node.__file__).parent
# A workspace that ships with the engine is an operator's code all the same.
_WORKSPACE = _ENGINE / "local" / "demo_workspace"
_PACKAGES = tuple({Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")})
_LIBRARY = Path(sysconfig.get_path("stdlib"))
# It stands between the engine and an operator's types, and is never where a mistake is.
_PYDANTIC = Path(pydantic.__file__).parent


def place_of(error: BaseException) -> str | None:
    """`file:line` of the code that is neither the engine's nor a library's and is nearest to the error.

    Installed packages count where nothing else is on the way, as when the operator's own code is installed. The file is
    relative to the present folder where it lies in it. None for an error that no such code was part of.
    """
    places = list(_places(error))
    own = [place for place in places if not _lies_in(place[0], _PACKAGES)]
    nearest = next(iter(own or places), None)
    return None if nearest is None else f"{shown_path(nearest[0])}:{nearest[1]}"


def reason_and_place_of(error: BaseException) -> str:
    """One line that says what was raised and, where that is known, by which line of the operator's code."""
    place = place_of(error)
    return reason_of(error) if place is None else f"{reason_of(error)} ({place})"


def shown_path(file: Path) -> str:
    """A file's path, relative to the present folder where it lies in it."""
    try:
        return str(file.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the present folder is gone
        return str(file)


def _places(error: BaseException) -> Iterator[tuple[Path, int]]:
    """The lines that an error passed through, the nearest to its origin first, without the engine's and Python's."""
    for each in reversed(list(_chain(error))):
        if isinstance(each, SyntaxError) and each.filename and each.lineno:
            yield Path(each.filename), each.lineno
        for frame in reversed(traceback.extract_tb(each.__traceback__)):
            file = Path(frame.filename)
            if frame.lineno and file.is_absolute() and not _is_ours_or_pythons(file):
                yield file, frame.lineno


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then what caused it, and so on."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _is_ours_or_pythons(file: Path) -> bool:
    if _lies_in(file, (_PYDANTIC,)):
        return True
    if _lies_in(file, (_ENGINE,)):
        return not _lies_in(file, (_WORKSPACE,))
    return _lies_in(file, (_LIBRARY,)) and not _lies_in(file, _PACKAGES)


def _lies_in(file: Path, folders: tuple[Path, ...]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)
