"""Gradio's theme variables in Hearth's colours, with the fonts of the system: no font is fetched."""

from __future__ import annotations

from typing import Any

import gradio as gr

_EMBER = gr.themes.Color(
    *("#fdf3ee", "#fae3d8", "#f4c6b2", "#eba384", "#df7c56", "#c8572f"),
    *("#b04722", "#8f391d", "#6f2e19", "#532415", "#36170d"),
)
_SAND = gr.themes.Color(
    *("#fbf9f6", "#f4f0ea", "#e8e1d7", "#d6ccbe", "#a99d8e", "#7d7266"),
    *("#5f564c", "#463f38", "#302b26", "#211d1a", "#171412"),
)
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def make_theme() -> Any:
    """A calm theme: sand for surfaces, ember for what can be done."""
    theme = gr.themes.Base(primary_hue=_EMBER, secondary_hue=_SAND, neutral_hue=_SAND, font=_FONTS, font_mono=_MONO)
    return theme.set(
        body_background_fill="#fbf9f6",
        body_background_fill_dark="#171412",
        block_border_width="0px",
        block_shadow="none",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        border_color_primary="#e8e1d7",
        border_color_primary_dark="#37312b",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#211d1a",
        background_fill_secondary="#f4f0ea",
        background_fill_secondary_dark="#1c1916",
        input_background_fill="#ffffff",
        input_background_fill_dark="#26211d",
        button_primary_background_fill="*primary_500",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
    )
