"""The page, really served on a free port, and visitors who ask it through its API."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra `app` is not installed")

from app.__main__ import Served, parser
from app.clips import SAMPLES

DUO, TRIO, OFF = (SAMPLES / name for name in ("duo.mp4", "trio.mp4", "offscreen.mp4"))


@contextmanager
def page(folder: Path, *line: str) -> Iterator[Served]:
    """A page with these options; uploads lie in `folder`."""
    args: argparse.Namespace = parser().parse_args(["--port", "0", *line])
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder.resolve())
    served = Served(args, folder.resolve())
    try:
        yield served
    finally:
        served.close()
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


class Visitor:
    """One visit: what it says is said in one conversation."""

    def __init__(self, served: Served) -> None:
        from gradio_client import Client

        self.client = Client(served.address, verbose=False)

    def message(self, text: str, *clips: Path) -> dict[str, Any]:
        from gradio_client import handle_file

        return {"text": text, "files": [handle_file(str(clip)) for clip in clips]}

    def ask(self, text: str, *clips: Path, model: str = "tiny") -> tuple[str, dict[str, Any]]:
        """What is said, and the details."""
        said, told = self.client.predict(
            self.message(text, *clips), model, False, False, api_name="/chat"
        )
        return said, told


def named(folder: Path, clip: Path, name: str) -> Path:
    """A copy of a clip under another name."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(clip, folder / name))
