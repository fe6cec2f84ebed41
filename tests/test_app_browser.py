"""The page in a real browser: what a visitor sees, clicks and hears of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app_world import DUO, page

pytest.importorskip("playwright", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or ""
if not CHROMIUM:
    pytest.skip("no chromium on the path", allow_module_level=True)

from app.screenshots import DESKTOP, PATIENCE_MS, PHONE, ask, browser  # noqa: E402

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
REAL = DATA / "clips" / "demo_1.mp4"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with page(tmp_path_factory.mktemp("uploads")) as served:
        yield served.address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser(CHROMIUM) as found:
        yield found


@pytest.fixture
def tab(chromium: Any, address: str) -> Iterator[Any]:
    """A visit that must not fail anywhere in the page's own code."""
    made = chromium.new_page(viewport=DESKTOP)
    faults: list[str] = []
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.goto(address)
    made.wait_for_selector("#question textarea", timeout=PATIENCE_MS)
    yield made
    made.close()
    assert not faults


def at_s(tab: Any) -> float:
    """Where the player stands."""
    return float(tab.evaluate("document.querySelector('#player video').currentTime"))


def test_evidence_moves_the_player_and_the_sound_can_be_muted(tab: Any) -> None:
    assert "guzheng" in ask(tab, "Which instrument comes in first?", DUO)
    assert "no" in ask(tab, "Is the violin louder than the guzheng?")
    tab.wait_for_selector("#proof .av-panel", timeout=PATIENCE_MS)
    button = tab.locator("#proof [data-seek]:not([data-seek^='0'])").first
    wanted = float(button.get_attribute("data-seek"))
    assert wanted >= 1 and at_s(tab) < 0.5
    button.focus()
    tab.keyboard.press("Enter")  # as somebody does who has no mouse
    tab.wait_for_function(
        "wanted => document.querySelector('#player video').currentTime >= wanted - 0.01",
        arg=wanted,
        timeout=PATIENCE_MS,
    )
    assert at_s(tab) < wanted + 3
    tab.get_by_text("What if? Ask the same").click()
    tab.get_by_label("Mute the sound").check()
    tab.click("#again")
    tab.wait_for_selector("#compared .av-compare", timeout=PATIENCE_MS)
    sides = tab.locator("#compared .av-side")
    assert sides.count() == 2
    assert "Not heard" in sides.nth(1).inner_text() and "Not heard" not in sides.nth(0).inner_text()


def test_an_older_answer_is_shown_again_with_its_evidence(tab: Any) -> None:
    ask(tab, "Which instrument comes in first?", DUO)
    ask(tab, "Is the violin louder than the guzheng?")
    asked = tab.locator("#proof .av-asked")
    tab.wait_for_function(
        "() => document.querySelector('#proof .av-asked')?.innerText.includes('louder')",
        timeout=PATIENCE_MS,
    )
    tab.locator("#chatbot").get_by_text("guzheng", exact=True).first.click()
    tab.wait_for_function(
        "() => document.querySelector('#proof .av-asked')?.innerText.includes('first')",
        timeout=PATIENCE_MS,
    )
    assert asked.inner_text() == "Which instrument comes in first?"


def test_the_question_that_came_with_the_clip_can_be_edited(tab: Any) -> None:
    ask(tab, "Which instrument comes in first?", DUO)
    ask(tab, "Is the violin louder than the guzheng?")
    tab.locator("#chatbot button[aria-label='Edit']").first.click()
    tab.locator("#chatbot textarea").fill("Where is the performance?")
    tab.locator("#chatbot button[aria-label='Submit']").first.click()
    tab.wait_for_function(
        "() => document.querySelector('#proof .av-asked')?.innerText.includes('performance')",
        timeout=PATIENCE_MS,
    )
    said = tab.locator("#chatbot").inner_text()
    assert "outdoor" in said and "louder" not in said  # what came after it is gone


def test_a_sample_is_one_click_away(tab: Any) -> None:
    tab.locator("#chatbot").get_by_text("Is the tuba more rhythmic").click()
    tab.wait_for_selector("#chatbot .av-lights", timeout=PATIENCE_MS)
    tab.wait_for_selector("#proof .av-panel", timeout=PATIENCE_MS)
    assert "trio.mp4" in tab.locator("#player figcaption").inner_text()


def test_a_broken_file_is_a_sentence_and_the_page_goes_on(tab: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video" * 100)
    tab.set_input_files("#question input[type=file]", broken)
    tab.wait_for_selector("#player [role=alert]", timeout=PATIENCE_MS)
    assert "broken.mp4" in tab.locator("#player [role=alert]").inner_text()


def test_a_real_clip_is_said_to_be_unlike_what_the_model_knows(tab: Any) -> None:
    if not REAL.exists():
        pytest.skip(f"no real clip at {REAL} (AVQA_TEST_DATA)")
    said = ask(tab, "How many instruments are sounding in the video?", REAL)
    assert "⚠" in said and "demo_1.mp4" in said


def test_a_phone_shows_everything_without_scrolling_sideways(chromium: Any, address: str) -> None:
    tab = chromium.new_page(viewport=PHONE)
    tab.goto(address)
    ask(tab, "Which instrument comes in first?", DUO)
    tab.wait_for_selector("#proof .av-panel", timeout=PATIENCE_MS)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    tab.close()
