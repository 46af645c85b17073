"""Values of a workbook's cells as people see them: dates, times, percentages and numbers by the cell's format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from hearth.multimodal.documents_table import cell_text

Look = Literal["number", "percent", "date", "time", "duration"]

# Formats that files name by number alone; the East Asian calendars' are dates too.
_BUILT_IN_BY_LOOK: dict[Look, tuple[int, ...]] = {
    "percent": (9, 10),
    "date": (*range(14, 18), 22, *range(27, 32), 36, *range(50, 59)),
    "time": (*range(18, 22), *range(32, 36), 45, 47),
    "duration": (46,),
}
_BUILT_IN = {number: look for look, numbers in _BUILT_IN_BY_LOOK.items() for number in numbers}
_QUOTED = re.compile(r'"[^"]*"|\\.|_.|\*.')
_BRACKETED = re.compile(r"\[[^\]]*\]")
_DURATION = re.compile(r"\[(?:h+|m+|s+)\]", re.IGNORECASE)
_MAX_CODE_CHARS = 500


@dataclass(frozen=True, slots=True)
class Formats:
    """How the cells of a workbook look, by the number of their style; ``from_1904`` is Excel's old calendar on Macs."""

    looks: tuple[Look, ...]
    from_1904: bool


def read_formats(styles: Any | None, from_1904: bool) -> Formats:
    """From the root element of a workbook's styles, if it has some."""
    if styles is None:
        return Formats((), from_1904)
    own = {entry.get("numFmtId"): _look(entry.get("formatCode", "")) for entry in styles.iter("{*}numFmt")}
    cells = styles.find("{*}cellXfs")
    numbers = [] if cells is None else [entry.get("numFmtId", "0") for entry in cells.iterchildren("{*}xf")]
    return Formats(tuple(own.get(number) or _BUILT_IN.get(int(number), "number") for number in numbers), from_1904)


def shown_value(value: str, kind: str, formats: Formats, style: str) -> str:
    """``value`` as it stands in the file, of the cell type ``kind`` ("n", "b", "str", "e", "d"). Raises ValueError."""
    if kind == "b":
        return "FALSE" if value == "0" else "TRUE"
    if kind == "d":
        return cell_text(value.replace("T", " ").removesuffix(" 00:00:00"))
    if kind != "n":
        return cell_text(value)
    index = int(style)
    look = formats.looks[index] if 0 <= index < len(formats.looks) else "number"
    number = float(value)
    if look == "percent":
        return f"{number * 100:.10g}%"
    if look == "duration":
        minutes = round(number * 24 * 60)
        return f"{minutes // 60}:{minutes % 60:02d}"
    if look in ("date", "time"):
        return _moment(number, look == "time", formats.from_1904) or f"{number:.15g}"
    return value if value.lstrip("-").isdigit() else f"{number:.15g}"


def _look(code: str) -> Look:
    code = _QUOTED.sub("", code[:_MAX_CODE_CHARS])
    if _DURATION.search(code):
        return "duration"
    code = _BRACKETED.sub("", code).partition(";")[0].lower()
    if "general" in code:
        return "number"
    clock = "h" in code or "s" in code
    if "d" in code or "y" in code or ("m" in code and not clock):
        return "date"
    if clock:
        return "time"
    return "percent" if "%" in code else "number"


def _moment(days: float, time_only: bool, from_1904: bool) -> str | None:
    """A day, a time of day, or both; None for what no calendar has."""
    # Excel counts a 29 February 1900 that never was.
    start = datetime(1904, 1, 1) if from_1904 else datetime(1899, 12, 31 if days < 60 else 30)
    try:
        moment = start + timedelta(seconds=round(days * 86_400))
    except (OverflowError, ValueError):
        return None
    clock = f"{moment:%H:%M:%S}".removesuffix(":00")
    if time_only and 0 <= days < 1:
        return clock
    return f"{moment:%Y-%m-%d}" + ("" if clock == "00:00" else f" {clock}")
