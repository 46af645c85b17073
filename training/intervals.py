"""Intervals for shares that were counted."""

from __future__ import annotations

import math


def wilson(right: float, total: int, z: float = 1.96) -> tuple[float, float]:
    """The interval within 0..1 in which the true share lies with 95 % confidence (Wilson 1927)."""
    share = right / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(max(0.0, share * (1 - share)) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
