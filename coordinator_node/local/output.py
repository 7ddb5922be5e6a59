"""One output for many programs: each line whole, behind the name of the program that wrote it."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

STYLES = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_yellow", "bright_blue")
# Longer than any sane log line; a program that never ends its line must not fill the memory.
LONGEST_LINE = 65536


class Output:
    """Prints lines with their program's name before them, in colours on a terminal and plain elsewhere.

    Everything goes through one rich console from one thread, so lines never mix, and a live display of the same
    console stays in its place below them.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._styles: dict[str, str] = {}
        self._width = 0

    def line(self, name: str, text: str, style: str = "") -> None:
        """Print one line of the program called `name`; `style` is a rich style for its text."""
        colour = self._styles.setdefault(name, STYLES[len(self._styles) % len(STYLES)])
        self._width = max(self._width, len(name))
        body = Text.from_ansi(text)
        body.stylize(style)
        self.console.print(Text.assemble((f"{name:<{self._width}} | ", colour), body), soft_wrap=True, highlight=False)


class LineSplitter:
    """Cuts a stream of bytes into lines of text; what is not UTF-8 becomes a replacement character."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes. A line that grows beyond LONGEST_LINE is cut."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > LONGEST_LINE:
            whole.append(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]
        return [self._decode(line) for line in whole]

    def end(self) -> list[str]:
        """What came after the last newline, if anything."""
        rest, self._rest = self._rest, b""
        return [self._decode(rest)] if rest else []

    @staticmethod
    def _decode(line: bytes) -> str:
        return line.rstrip(b"\r").decode("utf-8", errors="replace")
