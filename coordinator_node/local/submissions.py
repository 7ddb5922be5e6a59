"""What a folder of submissions holds: a folder for each model, with a `main.py`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAIN = "main.py"
REQUIREMENTS = "requirements.txt"
DESCRIPTION = "submission.json"
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# Besides its Python files. A model may write others while it runs, and they must not make it another deployment.
PARTS = (REQUIREMENTS, DESCRIPTION)


@dataclass(frozen=True)
class Submission:
    """One submitted model, as its folder was when it was read.

    Attributes:
        folder: where it is.
        model_id: the same for the same folder name, for ever.
        deployment_id: changes with its Python files, requirements.txt or submission.json.
        infos: model_name, cruncher_id and cruncher_name, and whatever else submission.json gives.
        problem: why submission.json was not used; empty if it was, or is not there.
    """

    folder: Path
    model_id: str
    deployment_id: str
    infos: dict[str, Any]
    problem: str = ""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def requirements(self) -> Path | None:
        """The submission's requirements.txt, or None if it needs nothing of its own."""
        path = self.folder / REQUIREMENTS
        return path if path.is_file() else None


def find_submissions(folder: Path) -> dict[str, Submission]:
    """The submissions in a folder, by model id, in the order of their names.

    Folders without a main.py, and those whose name begins with a dot or an underscore or cannot be printed, are no
    submissions. One that cannot be read, because it vanishes meanwhile, is left out.

    Raises:
        OSError: the folder cannot be read.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")) or not path.name.isprintable():
            continue
        with contextlib.suppress(OSError):
            if (path / MAIN).is_file():
                submission = read_submission(path)
                found[submission.model_id] = submission
    return found


def read_submission(folder: Path) -> Submission:
    """The submission in a folder.

    Raises:
        OSError: a file of it cannot be read.
    """
    model_id = model_id_of(folder.name)
    infos, problem = _read_description(folder / DESCRIPTION)
    defaults = {"model_name": folder.name, "cruncher_id": model_id, "cruncher_name": folder.name}
    return Submission(folder, model_id, f"{model_id}-{digest_of(folder)[:12]}", defaults | infos, problem)


def model_id_of(folder_name: str) -> str:
    """An id that is safe in URLs and comma lists: the folder's name, or a cleaned one with a digest of it."""
    if SAFE_NAME.fullmatch(folder_name):
        return folder_name
    cleaned = re.sub(r"[^A-Za-z0-9]+", "-", folder_name).strip("-")
    return f"{cleaned or 'model'}-{hashlib.sha256(folder_name.encode()).hexdigest()[:8]}"


def digest_of(folder: Path) -> str:
    """A digest of the names and contents of the files that the submission is made of."""
    digest = hashlib.sha256()
    for path in sorted(_parts(folder)):
        content = path.read_bytes()
        digest.update(os.fsencode(path.relative_to(folder)) + f"\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _parts(folder: Path) -> Iterator[Path]:
    """The files that the submission is made of; not those of an environment that its player keeps in it."""
    for parent, folders, files in folder.walk():
        folders[:] = [name for name in folders if not name.startswith((".", "__")) and not _is_venv(parent / name)]
        yield from (parent / name for name in files if Path(name).suffix == ".py" or name in PARTS)


def _is_venv(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").exists()


def _read_description(path: Path) -> tuple[dict[str, Any], str]:
    if not path.is_file():
        return {}, ""
    try:
        infos = json.loads(path.read_bytes())
    except ValueError as error:
        return {}, f"{path} is not JSON ({error}): its folder's name is used instead"
    if not isinstance(infos, dict):
        return {}, f"{path} is not a JSON object: its folder's name is used instead"
    return {name: str(value) if name in ("model_name", "cruncher_id") else value for name, value in infos.items()}, ""
