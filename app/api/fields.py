"""A JSON object read field by field: what is not known or not of its kind is refused by name, nothing is ignored."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from hearth.api.errors import ApiError

_KINDS = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "object": dict, "array": list}


def parse_object(data: bytes) -> dict[str, Any]:
    """Raises ApiError for anything but a JSON object."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the body is not JSON: {error}"[:200]) from None
    if not isinstance(found, dict):
        raise ApiError(f"the body is a JSON {type(found).__name__}; it must be an object")
    return found


class Fields:
    """``null`` counts as not given. ``place`` stands before names in messages, as in "messages[0]."."""

    def __init__(self, given: dict[str, Any], known: Iterable[str], place: str = "") -> None:
        """Raises ApiError naming the first field that is not ``known``."""
        self._given = given
        self.place = place
        names = set(known)
        for name in given:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {close[0]}?" if close else "leave it out"
                raise ApiError(
                    f"{place}{name[:80]}: not supported here; {hint}", param=f"{place}{name[:80]}", code="unsupported"
                )

    def take(self, name: str, kind: str) -> Any:
        """The value, or None if it is not given. Raises ApiError if it is not of its kind."""
        value = self._given.get(name)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        right = isinstance(value, _KINDS[kind]) and (is_number or kind not in ("integer", "number"))  # type: ignore[arg-type]
        if not right:
            raise self.wrong(name, f"is {_shown(value)}; it must be a JSON {kind}")
        return value

    def need(self, name: str, kind: str) -> Any:
        """The value. Raises ApiError if it is not given or not of its kind."""
        value = self.take(name, kind)
        if value is None:
            raise self.wrong(name, "is missing")
        return value

    def refuse_unless(self, name: str, allowed: Iterable[Any], why: str) -> None:
        """Raises ApiError if the value, when given, is not one that asks for nothing."""
        value = self._given.get(name)
        if value is not None and value not in list(allowed):
            raise self.wrong(name, f"is {_shown(value)}: {why}", code="unsupported")

    def wrong(self, name: str, problem: str, *, code: str | None = None) -> ApiError:
        return ApiError(f"{self.place}{name} {problem}", param=f"{self.place}{name}", code=code)

    def __contains__(self, name: str) -> bool:
        return self._given.get(name) is not None

    def raw(self, name: str) -> Any:
        return self._given.get(name)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "…"
