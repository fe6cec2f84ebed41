"""Panel, style and script in a real browser: seeking, keyboard, narrow pages, hostile text."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app import looks
from app.panel import panel
from app.seen import Shown, shown
from avqa_llm.answer import Answer
from avqa_llm.engine import load_engine
from avqa_llm.session import Session

pytest.importorskip("playwright", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or ""
if not CHROMIUM:
    pytest.skip("no chromium on the path", allow_module_level=True)

from app.screenshots import browser  # noqa: E402

SAMPLE = Path(__file__).resolve().parent.parent / "app" / "samples" / "duo.mp4"
EVIL = (
    "${window.hacked = 1} {{window.hacked}} {% raw %} </section></style>"
    "<img src=x onerror='window.hacked = 2'><script>window.hacked = 3</script>"
)
PATIENCE_MS = 30_000
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def asked() -> tuple[Answer, Shown]:
    engine = load_engine("tiny")
    clip = engine.read(SAMPLE)
    return Session(engine, clip).ask("Which instrument comes in first?"), shown(clip, SAMPLE.name)


@pytest.fixture(scope="module")
def address(asked: tuple[Answer, Shown]) -> Iterator[str]:
    """A page with a player, a real panel and, in another tab, one of a hostile server."""
    answer, clip = asked
    evil = dataclasses.replace(answer, answer=EVIL, steps=EVIL, record=EVIL, warnings=(EVIL,))
    with gr.Blocks() as blocks:
        gr.Video(SAMPLE, elem_id="player")
        gr.HTML(panel(answer, clip, player="player"), elem_id="good")
        gr.HTML(panel(evil, clip, player="absent"), elem_id="evil")
    _, address, _ = blocks.launch(
        prevent_thread_lock=True,
        quiet=True,
        server_name="127.0.0.1",
        theme=looks.theme(),
        css=looks.CSS,
        head=looks.HEAD,
        allowed_paths=[str(SAMPLE.parent)],
    )
    yield address
    blocks.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser(CHROMIUM) as found:
        yield found


def opened(chromium: Any, address: str, width: int = 1200, theme: str = "light") -> Any:
    tab = chromium.new_page(viewport={"width": width, "height": 800})
    tab.goto(f"{address}?__theme={theme}")
    tab.wait_for_selector("#evil .av-panel", timeout=PATIENCE_MS)
    tab.wait_for_function(
        "document.querySelector('#player video')?.readyState >= 1", timeout=PATIENCE_MS
    )
    return tab


def at_s(tab: Any) -> float:
    return float(tab.evaluate("document.querySelector('#player video').currentTime"))


def test_a_moment_plays_a_little_is_marked_and_said(chromium: Any, address: str) -> None:
    tab = opened(chromium, address)
    moment = tab.locator("#good figcaption .av-time").first
    start, end = (float(moment.get_attribute(name)) for name in ("data-seek", "data-until"))
    moment.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function(f"document.querySelector('#player video').currentTime >= {start}")
    assert re.search(r"\bav-now\b", moment.get_attribute("class"))
    assert tab.locator("#av-said").inner_text().startswith(f"Playing from {start:.1f}")
    assert tab.locator("#av-said").get_attribute("aria-live") == "polite"
    tab.wait_for_function("document.querySelector('#player video').paused", timeout=PATIENCE_MS)
    assert end <= at_s(tab) < end + 1.0
    assert not re.search(r"\bav-now\b", moment.get_attribute("class"))
    assert "av-live" in tab.locator("#good .av-strip").get_attribute("class")
    tab.close()


def test_who_moves_the_player_by_hand_is_not_stopped(chromium: Any, address: str) -> None:
    tab = opened(chromium, address)
    moment = tab.locator("#good figcaption .av-time").first
    moment.click()
    tab.wait_for_function("!document.querySelector('#player video').paused")
    tab.wait_for_timeout(300)
    tab.evaluate("document.querySelector('#player video').currentTime = 6.5")
    tab.wait_for_function("document.querySelector('#player video').currentTime > 7.2")
    assert not tab.evaluate("document.querySelector('#player video').paused")
    tab.close()


def test_a_click_on_the_strip_plays_from_there(chromium: Any, address: str) -> None:
    tab = opened(chromium, address)
    sound = tab.locator("#good .av-sound")
    box = sound.bounding_box()
    sound.click(position={"x": 0.45 * box["width"], "y": box["height"] - 5})
    tab.wait_for_function("document.querySelector('#player video').currentTime > 4")
    assert 4.4 < at_s(tab) < 6.0
    tab.close()


def test_a_player_that_is_not_there_is_said(chromium: Any, address: str) -> None:
    tab = opened(chromium, address)
    tab.locator("#evil figcaption .av-time").first.click()
    assert tab.locator("#av-said").inner_text() == "There is no video to play."
    tab.close()


def test_hostile_text_is_text_in_the_page_too(chromium: Any, address: str) -> None:
    tab = opened(chromium, address)
    tab.wait_for_timeout(300)
    assert tab.evaluate("window.hacked") is None
    said = tab.locator("#evil .av-answer").inner_text()
    assert " ".join(said.split()) == " ".join(EVIL.split())
    tab.close()


@pytest.mark.parametrize("width, theme", [(390, "light"), (390, "dark"), (1200, "dark")])
def test_the_panel_fits_and_can_be_read(
    chromium: Any, address: str, width: int, theme: str
) -> None:
    tab = opened(chromium, address, width, theme)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    overflowing = tab.evaluate(
        """[...document.querySelectorAll('#good .av-panel *')].filter(e =>
        e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.av-mark')).length"""
    )
    assert overflowing == 0
    faint = tab.evaluate(CONTRAST)
    assert faint == []
    tab.close()


CONTRAST = """(() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) =>
    v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('#good .av-panel :is(p, span, dt, dd, h4, strong, button)')]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((e) => !e.closest('.av-strip'))
    .map((e) => {
      const pair = [light(numbers(getComputedStyle(e).color)), light(ground(e))];
      return [e.className || e.tagName, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
    })
    .filter(([, ratio]) => ratio < 4.5);
})()"""
"""Texts whose contrast is below that of WCAG 2.2 AA, 4.5."""
