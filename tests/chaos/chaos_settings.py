"""The stacks that faults are played on: what is different in each, and what must be there for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from chaos_stack import Setting
from cut_proxy import CutProxy

sys.path.insert(0, str(Path(__file__).parents[1] / "feeds"))

from local_venue import LocalVenue
from venue_market import PythMarket

HERE = Path(__file__).parent
SMALL_DISK = "128k"
VENUE_STEP_SECONDS = 0.5
FAKETIME = "faketime/libfaketimeMT.so.1"
# 0.9.10 takes the steady clock's deadline of a condition for one of the wall clock's, long past, so that whoever waits
# for the GIL spins (its pull request 503). Told how long to wait, it does that instead; Python waits so long there.
GIL_MILLISECONDS = 5
HOUR = 3600


class NotHereError(RuntimeError):
    """A fault cannot be played on this machine; the message says what is missing."""


class SmallDisk:
    """The disk of the Parquet folder: a small tmpfs where root may mount one, else a limit on the size of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.mounted = _ran("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder))

    def grow(self) -> None:
        _ran("mount", "-o", "remount,size=64m", str(self.folder))

    def close(self) -> None:
        if self.mounted:
            _ran("umount", "-l", str(self.folder))


class Clocks:
    """The clocks of the processes by libfaketime; a process reads its file about once a second."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._folder = folder
        self._library = library
        folder.mkdir()

    def can_be_wrong(self) -> bool:
        """Whether a process sees the clock that it is given; some machines ignore the wish to preload."""
        self.set("probe", -HOUR)
        command = ["env", *(f"{name}={value}" for name, value in self.environment("probe").items())]
        seen = subprocess.run([*command, sys.executable, "-c", "import time; print(time.time())"], capture_output=True)
        self._file("probe").unlink()
        return seen.returncode == 0 and abs(time.time() - HOUR - float(seen.stdout)) < HOUR / 2

    def environment(self, name: str) -> Mapping[str, str]:
        """What makes a process of that name look at its own clock."""
        file = self._file(name)
        if not file.exists():
            self.set(name, 0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds; to read the file at each look costs more than all else
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_WAIT_MS": str(GIL_MILLISECONDS),
            "FAKETIME_DONT_RESET": "1",
        }

    def set(self, name: str, seconds: int) -> None:
        """Let a process's clock show so many seconds more than the machine's."""
        new = self._file(name).with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.chmod(0o644)
        new.rename(self._file(name))

    @property
    def names(self) -> list[str]:
        """The processes that have a clock."""
        return [file.stem for file in self._folder.glob("*.clock")]

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"


def libfaketime() -> Path | None:
    """The library; None where it is not installed."""
    found = [path for root in ("/usr/lib", "/usr/lib64", "/usr/local/lib") for path in Path(root).glob(f"*/{FAKETIME}")]
    return next((path for path in [*found, Path("/usr/lib") / FAKETIME] if path.exists()), None)


class Market(PythMarket):
    """A market with a price every second."""

    def has_update(self, second: int) -> bool:
        return True


@asynccontextmanager
async def _common(folder: Path) -> AsyncIterator[tuple[Setting, object]]:
    disk = SmallDisk(folder / "parquet")
    try:
        yield Setting(environment={"BACKFILL_DATA_DIR": str(disk.folder)}), disk
    finally:
        disk.close()


@asynccontextmanager
async def _clock(folder: Path) -> AsyncIterator[tuple[Setting, object]]:
    library = libfaketime()
    if library is None:
        raise NotHereError("libfaketime is not installed: apt-get install faketime")
    clocks = Clocks(folder / "clocks", library)
    if not clocks.can_be_wrong():
        raise NotHereError(f"{library} is there, but a process that preloads it shows the machine's time")
    yield Setting(preload=clocks.environment), clocks


@asynccontextmanager
async def _farm(folder: Path) -> AsyncIterator[tuple[Setting, object]]:
    yield Setting(models=100, orchestrator=HERE / "flapping_models.py"), None


@asynccontextmanager
async def _venue(folder: Path) -> AsyncIterator[tuple[Setting, object]]:
    """Pyth's own client, against a venue on this machine whose clock goes with the machine's."""
    async with AsyncExitStack() as stack:
        venue = stack.enter_context(LocalVenue(now_ms=int(time.time() * 1000), pyth=Market()))
        proxy = CutProxy(lambda: asyncio.open_connection("127.0.0.1", venue.port))
        await stack.enter_async_context(proxy.serving())
        going = asyncio.create_task(_go(venue))
        stack.callback(going.cancel)
        url = f"http://127.0.0.1:{proxy.port}"
        environment = {"FEED_SOURCE": "pyth", "PYTH_API_KEY": ""}
        environment |= {"PYTH_HERMES_URL": url, "PYTH_BENCHMARKS_URL": url, "GROUND_TRUTH_TIMEOUT_SECONDS": "3600"}
        yield Setting(environment=environment), proxy


async def _go(venue: LocalVenue) -> None:
    while True:
        await asyncio.sleep(VENUE_STEP_SECONDS)
        await asyncio.to_thread(venue.advance, time.time() - venue.now_ms / 1000)


def _ran(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


SETTINGS = {"common": _common, "clock": _clock, "farm": _farm, "venue": _venue}
