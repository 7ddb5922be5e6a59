"""What was found, for a person and for a machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from coordinator_node.services.checks.findings import Finding, Level

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILED: "bold red"}


def verdict_of(findings: Sequence[Finding]) -> Level:
    """The worst of all."""
    return max((finding.level for finding in findings), key=list(Level).index, default=Level.OK)


def print_text(workspace: Path, findings: Sequence[Finding]) -> None:
    """One line a finding, then a line that sums up."""
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(finding.check) for finding in findings)
    console.print(Text(f"{workspace}"))
    for finding in findings:
        line = Text(f"{finding.level:<8}", style=STYLES[finding.level])
        line.append(f"{finding.check:<{width}}  {_one_line(finding.message)}", style="default")
        if finding.remedy:
            line.append(f" -> {_one_line(finding.remedy)}", style="default")
        console.print(line)
    counts = Counter(finding.level for finding in findings)
    summary = ", ".join(f"{counts[level]} {level}" for level in reversed(Level) if counts[level])
    console.print(Text(summary, style=STYLES[verdict_of(findings)]))


def print_json(workspace: Path, findings: Sequence[Finding], *, offline: bool) -> None:
    """One object: workspace, offline, verdict (ok, warning, failed), and checks [{check, level, message, remedy}]."""
    checks = [
        {"check": each.check, "level": each.level.value, "message": each.message, "remedy": each.remedy}
        for each in findings
    ]
    document = {
        "workspace": str(workspace),
        "offline": offline,
        "verdict": verdict_of(findings).value,
        "checks": checks,
    }
    typer.echo(json.dumps(document, indent=2))


def _one_line(text: str) -> str:
    return " ".join(text.split())
