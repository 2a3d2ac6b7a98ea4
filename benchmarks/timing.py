"""How often something runs in a second."""

from __future__ import annotations

import time
from collections.abc import Callable


def per_second(step: Callable[[], object], seconds: float = 1.0, batch: int = 50) -> float:
    """Runs of `step` in a second of processor time, after a short warm-up."""
    for _ in range(batch):
        step()
    done = 0
    start = time.process_time()
    while (spent := time.process_time() - start) < seconds:
        for _ in range(batch):
            step()
        done += batch
    return done / spent


def compared(ours: dict[str, float], peer: dict[str, float]) -> dict[str, dict[str, float]]:
    """Rates of both sides and their ratio, by operation."""
    return {
        name: {
            "ours": round(ours[name]),
            "peer": round(peer[name]),
            "ratio": round(ours[name] / peer[name], 2),
        }
        for name in ours
    }
