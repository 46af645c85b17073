"""Answers are Markdown of unknown intent: turns it into HTML in which nothing runs, loads or frames."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

_SAFE_LINK = re.compile(r"https?://", re.IGNORECASE)
_REFERENCE = re.compile(r"\[(\d{1,3})\]")
MAX_NESTING = 20


def _no_pictures(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """A picture named in an answer would be fetched from its server: its name is shown, and nothing is loaded."""
    del self, options, env
    return f'<span class="hearth-no-picture">[picture: {html.escape(tokens[index].content)}]</span>'


def _text_with_references(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Mapping[str, Any]) -> str:
    del self, options
    chips: Mapping[int, str] = env.get("chips", {})

    def chip(match: re.Match[str]) -> str:
        return chips.get(int(match[1]), match[0])

    return _REFERENCE.sub(chip, html.escape(tokens[index].content, quote=False))


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": MAX_NESTING})
    parser.enable(["table", "strikethrough"])
    parser.validateLink = lambda url: bool(_SAFE_LINK.match(url))  # type: ignore[method-assign]
    parser.add_render_rule("image", _no_pictures)
    parser.add_render_rule("text", _text_with_references)
    return parser


_PARSER = _make_parser()


def render_markdown(text: str, chips: Mapping[int, str] | None = None) -> str:
    """HTML of ``text``. ``chips`` holds HTML to stand in for ``[n]`` outside of code; links are http(s) only."""
    return str(_PARSER.render(text, {"chips": chips or {}}))
