"""What holds for all tests: how they are divided among processes, and that no property is judged by the clock.

A file stays together in one process, and so does all that needs a systemd of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine, or the first run in a fresh checkout, is slow without anything being wrong.
settings.register_profile("waD", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("waD")

TOGETHER = ("systemd",)
"""Directories whose tests share a costly fixture."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(root)
        group = place.parts[0] if place.parts[0] in TOGETHER else str(place)
        item.add_marker(pytest.mark.xdist_group(group))
