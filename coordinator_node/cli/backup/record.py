"""What is written beside a dump: what it must hold, so that a restored database can be checked against it."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from coordinator_node.db.contents import Contents
from coordinator_node.entities.errors import ConfigurationError


class BackupRecord(BaseModel):
    """The dump `FILE` in figures; stands in `FILE.json`. Versions of Postgres are major ones."""

    made_at: datetime
    engine_version: str
    server_version: int
    program_version: int
    size_bytes: int
    sha256: str
    contents: Contents


def record_of(dump: Path) -> Path:
    """Where the record of a dump stands."""
    return dump.with_name(f"{dump.name}.json")


def read_record(dump: Path) -> BackupRecord:
    """The record of a dump.

    Raises:
        ConfigurationError: the dump or its record is missing, or the record cannot be read.
    """
    path = record_of(dump)
    if not dump.is_file():
        raise ConfigurationError(f"{dump} is no file")
    try:
        return BackupRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} is missing, which backup wrote beside the dump: without it what is restored cannot be checked."
            " Bring it, or run pg_restore yourself"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        raise ConfigurationError(f"{path} is no record of a backup: {error.errors()[0]['msg']}") from None


def digest_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
