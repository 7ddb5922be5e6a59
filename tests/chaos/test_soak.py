"""What the soak calls growth."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from soak import growth, written


def test_what_the_warm_up_brings_is_no_growth() -> None:
    assert growth([100, 300, 500, 600, *[700] * 12]) == 0


def test_a_slow_leak_is_growth() -> None:
    assert growth([100.0 + minute for minute in range(60)]) == pytest.approx(34, abs=1)


def test_noise_is_not() -> None:
    assert growth([100.0 + minute % 2 for minute in range(64)]) == pytest.approx(0, abs=0.5)


def test_what_a_process_has_written_counts_and_what_it_has_read_does_not(tmp_path: Path) -> None:
    file = tmp_path / "read.bin"
    file.write_bytes(b"x" * 2**24)
    before = written(os.getpid())

    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        assert pages.find(b"y") == -1
        read = written(os.getpid()) - before
        with mmap.mmap(-1, 2**24, flags=mmap.MAP_PRIVATE) as memory:  # no heap of freed pages
            memory.write(b"x" * len(memory))
            assert written(os.getpid()) - before - read >= len(memory) / 1024
    assert read < 2**13
