"""Questions by voice: what was said becomes text, which is shown before it is asked."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from app.history import cleaned
from avqa_llm.errors import AVQAError, MediaError
from avqa_llm.media import MediaLimits, read_clip

MISSING = (
    "Asking by voice needs a speech model: start the page with --whisper MODEL (a name, or a"
    " directory of a faster-whisper model), with the extra `speech` installed."
)
LONGEST_S = 60.0


class Voice:
    """A transcriber, or the reason why there is none."""

    def __init__(self, model: str = "") -> None:
        """Load `model`; empty: none is wanted. Raises AVQAError if it cannot be loaded."""
        self._transcriber: Any = None
        self._lock = threading.Lock()
        if not model:
            return
        try:
            from avqa_llm.speech import Transcriber
        except ImportError as error:
            raise AVQAError(f"--whisper {model}: {MISSING}") from error
        self._transcriber = Transcriber.load(model)

    @property
    def is_there(self) -> bool:
        """Whether speech can be understood."""
        return self._transcriber is not None

    async def text(self, path: str) -> str:
        """What is said in a recording. Raises AVQAError where nothing is."""
        if not self.is_there:
            raise AVQAError(MISSING)
        return await asyncio.to_thread(self._text, Path(path))

    def _text(self, path: Path) -> str:
        try:
            clip = read_clip(path, limits=MediaLimits(max_seconds=LONGEST_S, timeout_s=30))
        except MediaError as error:  # where files lie here is nobody's business
            raise MediaError(str(error).replace(str(path), "the recording")) from error
        with self._lock:
            found = self._transcriber.transcribe(clip)
        if found.says_nothing:
            raise AVQAError(f"No question was heard ({found.note or 'no speech was found'}).")
        return cleaned(found.text)
