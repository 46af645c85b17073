"""Figures that are measured, with their targets: one line each for people, one JSON object for machines."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

WIDTH = 76


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the table. ``value`` None: it could not be measured, and ``note`` says why."""

    row: str
    name: str
    value: float | None
    target: float
    at_most: bool
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def line(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.4g}"
        state = {True: "reached", False: "MISSED", None: "–"}[self.reached]
        target = f"{'≤' if self.at_most else '≥'} {self.target:.4g}"
        note = f"   {self.note}" if self.note else ""
        return f"{self.name:<{WIDTH}} {value:>12}   {target:>8}   {state}{note}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "reached": self.reached}


def figure_of(fields: dict[str, Any]) -> Figure:
    """The figure that ``to_json`` wrote."""
    return Figure(**{name: value for name, value in fields.items() if name != "reached"})


def header() -> str:
    return f"{'figure':<{WIDTH}} {'value':>12}   {'target':>8}"


def summary(benchmark: str, figures: list[Figure], surroundings: dict[str, Any]) -> str:
    """The JSON line that ends a run."""
    counts = {state: sum(figure.reached is state for figure in figures) for state in (True, False, None)}
    return json.dumps(
        {
            "benchmark": benchmark,
            **surroundings,
            "reached": counts[True],
            "missed": counts[False],
            "not_measured": counts[None],
            "figures": [figure.to_json() for figure in figures],
        }
    )


def say(text: str) -> None:
    """Progress, to standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)
