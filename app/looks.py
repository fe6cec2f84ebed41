"""How the page looks and how its moments work: style, script and theme.

Nothing is fetched: fonts are those of the machine. Colours are those of Okabe and Ito (2008),
darkened or lightened to be read on paper and on dark ground, as in the reports of `eval`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

_HERE = Path(__file__).resolve().parent
CSS = (_HERE / "looks.css").read_text(encoding="utf-8")
"""Style of page and panel, light and dark (`.dark`), from a phone's width on."""
HEAD = f"<script>{(_HERE / 'looks.js').read_text(encoding='utf-8')}</script>"
"""Makes `[data-seek]` buttons move the player that they name, and says so politely."""

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Paper and ink, one blue. Give it to `launch()`."""
    import gradio as gr

    blue = gr.themes.Color(
        name="ink-blue",
        c50="#eef5fa", c100="#d8e8f3", c200="#b1d0e6", c300="#7fb4d6", c400="#4494c4",
        c500="#0072b2", c600="#0067a5", c700="#05557f", c800="#0d4462", c900="#12374d",
        c950="#0d2535",
    )  # fmt: skip
    paper = gr.themes.Color(
        name="paper",
        c50="#fbfaf8", c100="#f4f2ee", c200="#e6e2db", c300="#d0cbc2", c400="#8f8c86",
        c500="#6a6863", c600="#4f4e4b", c700="#393a3d", c800="#24272c", c900="#1b1e22",
        c950="#131519",
    )  # fmt: skip
    return gr.themes.Base(
        primary_hue=blue,
        secondary_hue=blue,
        neutral_hue=paper,
        font=SANS,
        font_mono=MONO,
        radius_size=gr.themes.sizes.radius_lg,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        body_text_color="#1c1e21",
        body_text_color_dark="#e8e6e1",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="#a4a9b2",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_700",
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_500",
        block_label_text_color_dark="#a4a9b2",
        input_background_fill="#ffffff",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_300",
        button_primary_background_fill_hover_dark="*primary_200",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#0d2535",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        link_text_color="*primary_600",
        link_text_color_dark="#62b5e8",
    )
