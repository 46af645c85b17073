"""The few line icons of the page, drawn here so that no icon font is needed."""

from __future__ import annotations

_SHAPES = {
    "menu": '<path d="M4 7h16M4 12h16M4 17h16"/>',
    "theme": '<circle cx="12" cy="12" r="8"/><path d="M12 4a8 8 0 0 0 0 16z" fill="currentColor"/>',
    "close": '<path d="M6 6l12 12M18 6L6 18"/>',
    "pencil": '<path d="M5 19l1-4L16 5l3 3L9 18z"/>',
    "bin": '<path d="M5 7h14M10 7V5h4v2M7 7l1 12h8l1-12"/>',
    "flame": '<path d="M12 3c1 4 5 6 5 11a5 5 0 0 1-10 0c0-2 1-3 2-4 0 2 1 3 2 3 1-3-1-6 1-10z" fill="currentColor"/>',
}


def icon(name: str) -> str:
    """An inline SVG in the colour of the text around it."""
    return (
        '<svg class="hearth-icon" viewBox="0 0 24 24" width="17" height="17" fill="none" stroke="currentColor" '
        f'stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{_SHAPES[name]}</svg>'
    )
