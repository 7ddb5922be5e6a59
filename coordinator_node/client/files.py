"""Files of the API on this machine: each is whole or not there, and fetched again only if it changed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import requests

from coordinator_node.client.transport import Transport
from coordinator_node.entities.ids import new_id
from coordinator_node.schemas.report.backfill import BackfillFile


def segment(text: str) -> str:
    """One segment of a path. Dots alone would mean another path, also percent-encoded.

    Raises:
        ValueError: it is empty, or dots alone.
    """
    if text in ("", ".", ".."):
        raise ValueError(f"{text!r} is no id")
    return quote(text, safe="")


def place_of(file: BackfillFile, folder: Path) -> Path:
    """Where a file belongs below a folder.

    Raises:
        ValueError: its path leads out of the folder.
    """
    place = folder / file.path
    if not place.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the file's path {file.path} leads out of {folder}")
    return place


def fetch(transport: Transport, file: BackfillFile, place: Path) -> None:
    """Fetch a file; what stands in its place is replaced by a whole one."""
    _fetch(transport, file, place, None)


def fetch_if_changed(transport: Transport, file: BackfillFile, place: Path) -> bool:
    """Fetch a file unless what stands in its place is the same; whether it had to be fetched.

    The ETag of what stands there is kept in a hidden file beside it.
    """
    tag = _tag_of(place)
    known = tag.read_text() if place.is_file() and tag.is_file() else None
    answer = _fetch(transport, file, place, known)
    if answer is None:
        return False
    if etag := answer.headers.get("ETag"):
        tag.write_text(etag)
    return True


def _fetch(transport: Transport, file: BackfillFile, place: Path, known: str | None) -> requests.Response | None:
    """The answer that was written to the place; None where the API says that `known` is its ETag still."""
    path = "/data/backfill/" + "/".join(segment(part) for part in file.path.split("/"))
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f".{place.name}.{new_id()}")
    try:
        answer = transport.save(path, unfinished, known)
        if answer.status_code == requests.codes.not_modified:
            return None
        # First the old tag goes: killed here or later, the file is fetched anew.
        _tag_of(place).unlink(missing_ok=True)
        unfinished.replace(place)
        return answer
    finally:
        unfinished.unlink(missing_ok=True)


def _tag_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.etag")
