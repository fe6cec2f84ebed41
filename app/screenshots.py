"""`python -m app.screenshots OUT`: the page as it looks, made by asking it in a real browser.

Needs playwright and a Chromium (`--chromium`, or the one on the path); both are for development.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
).split()
DESKTOP, PHONE = {"width": 1360, "height": 1180}, {"width": 390, "height": 844}
SAMPLE = Path(__file__).resolve().parent / "samples" / "duo.mp4"
QUESTIONS = ("Which instrument comes in first?", "Is the violin louder than the guzheng?")
PATIENCE_MS = 60_000


def main() -> int:
    """Start a page, ask, take pictures."""
    parser = argparse.ArgumentParser(prog="python -m app.screenshots", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with served() as address, browser(args.chromium) as chromium:
        for name, theme, size in (
            ("page-light", "light", DESKTOP),
            ("page-dark", "dark", DESKTOP),
            ("page-phone", "light", PHONE),
        ):
            page = chromium.new_page(viewport=size)
            page.goto(f"{address}?__theme={theme}")
            for question in QUESTIONS:
                ask(page, question, SAMPLE if question == QUESTIONS[0] else None)
            page.wait_for_selector("#proof .av-panel", timeout=PATIENCE_MS)
            page.wait_for_timeout(800)
            page.screenshot(path=args.out / f"{name}.png", full_page=size is PHONE)
            page.close()
    print(f"wrote three pictures into {args.out}")
    return 0


@contextmanager
def served(*more: str) -> Iterator[str]:
    """A page on a free port, as its address, until it is not needed any more."""
    line = [sys.executable, "-m", "app", "--port", "0", *more]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=os.environ.copy())
    assert process.stdout is not None
    try:
        for said in process.stdout:
            if found := re.search(r"The page is at (\S+)", said):
                yield found[1]
                return
        raise SystemExit(f"the page did not start (status {process.wait()})")
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def browser(chromium: str) -> Iterator[Any]:
    """A Chromium that is driven from here; empty: the one of playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=chromium or None, args=FLAGS)
        try:
            yield found
        finally:
            found.close()


def ask(page: Any, question: str, clip: Path | None = None) -> str:
    """Put a question as a visitor does, and wait for its answer: the text of the message."""
    page.wait_for_selector("#question textarea", timeout=PATIENCE_MS)
    before = page.locator("#chatbot .av-lights").count()
    if clip is not None:
        page.set_input_files("#question input[type=file]", clip)
        page.wait_for_selector("#player video", timeout=PATIENCE_MS)
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")
    page.wait_for_function(
        "n => document.querySelectorAll('#chatbot .av-lights').length > n",
        arg=before,
        timeout=PATIENCE_MS,
    )
    return str(page.locator("#chatbot .message.bot, #chatbot .bot").last.inner_text())


if __name__ == "__main__":
    sys.exit(main())
