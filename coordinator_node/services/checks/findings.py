"""What a check finds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from coordinator_node.runtime.logging import get_logger

log = get_logger(__name__)


class Level(StrEnum):
    """How bad it is: FAILED would fail in production; a WARNING may be meant."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One line of a check.

    Attributes:
        check: the check's name, a word.
        level: how bad it is.
        message: what was found, and where.
        remedy: what to do about it; empty where there is nothing to do, or the message says it.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""


def fine(check: str, message: str) -> list[Finding]:
    """All is well, and what was looked at."""
    return [Finding(check, Level.OK, message)]


def warning(check: str, message: str, remedy: str = "") -> list[Finding]:
    """What may be meant, but probably is not."""
    return [Finding(check, Level.WARNING, message, remedy)]


def failed(check: str, message: str, remedy: str = "") -> list[Finding]:
    """What would fail in production."""
    return [Finding(check, Level.FAILED, message, remedy)]


def warn_of(findings: Iterable[Finding]) -> None:
    """Log what a worker found at its start and should be known; what must stop it is refused elsewhere."""
    for finding in findings:
        if finding.level is not Level.OK:
            log.warning(finding.message, check=finding.check, remedy=finding.remedy or None)


def did_you_mean(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """`did you mean X?` for the known name that is most like one that is unknown; empty where none is."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return f"did you mean {nearest[0]}?" if nearest else ""
