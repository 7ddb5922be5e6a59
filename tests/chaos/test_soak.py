"""What the soak calls growth."""

from __future__ import annotations

import pytest
from soak import growth


def test_what_the_warm_up_brings_is_no_growth() -> None:
    assert growth([100, 300, 500, 600, *[700] * 12]) == 0


def test_a_slow_leak_is_growth() -> None:
    assert growth([100.0 + minute for minute in range(60)]) == pytest.approx(34, abs=1)


def test_noise_is_not() -> None:
    assert growth([100.0 + minute % 2 for minute in range(64)]) == pytest.approx(0, abs=0.5)
