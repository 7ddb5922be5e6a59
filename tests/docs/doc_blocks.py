"""What a page of Markdown holds for its reader to type: fenced blocks, and the commands in those for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELLS = ("sh", "bash")
# What begins a new command within a line, and what redirects one's input or output.
SEPARATORS = ("&&", "||", "|", ";", "&")
REDIRECTIONS = (">", ">>", "<")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: as the fence names it; empty for what is only to be looked at.
        text: what stands between the fences.
        line: the number of its first line.
    """

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that it belongs into, where its first line is a comment that names one."""
        found = re.match(r"# ([\w./-]+\.py)\n", self.text)
        return found[1] if found else None


@dataclass(frozen=True)
class Command:
    """A line for a shell, continuation lines joined; `line` is the number of its first."""

    text: str
    line: int

    def parts(self) -> list[list[str]]:
        """The words of each of its simple commands, without redirections and what they name."""
        parts: list[list[str]] = [[]]
        words = shlex.shlex(self.text, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        skipped = False
        for word in words:
            if word in SEPARATORS:
                parts.append([])
            elif word not in REDIRECTIONS and not skipped:
                parts[-1].append(word)
            skipped = word in REDIRECTIONS
        return [part for part in parts if part]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Block(found[1], found[2], text.count("\n", 0, found.start(2)) + 1)


def commands_of(block: Block) -> Iterator[Command]:
    lines = enumerate(block.text.splitlines(), block.line)
    for number, line in lines:
        text = line
        while text.endswith("\\"):
            text = text[:-1].rstrip() + " " + next(lines)[1].strip()
        command = Command(text, number)
        if command.parts():
            yield command
