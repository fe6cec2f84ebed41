"""Speech: when somebody speaks, and what is said, with the time of every word.

Both by faster-whisper (extra `speech`): its Silero voice detection, which comes with the package,
and Whisper models, which come by name from the hub or from a folder. Whisper invents words in
music and silence, so it hears only what voice detection lets through; where that finds nothing,
it does not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.acoustics.kinds import Span
from avqa_llm.acoustics.window import edges
from avqa_llm.errors import AcousticsError, SpeechError
from avqa_llm.media.clip import Clip

__all__ = ["Segment", "SpeechError", "Transcriber", "Transcript", "Word", "voice_spans"]

RATE_HZ = 16000
"""What Silero and Whisper were trained on."""
VOICE = {
    "threshold": 0.6,
    "min_speech_duration_ms": 250,
    "min_silence_duration_ms": 500,
    "speech_pad_ms": 200,
}
"""Shorter speech is dropped, shorter pauses are bridged, and so much is added on both sides. On 160
Bandstand scenes, which have synthetic voices and loud music, it finds 66 of 69 voices and 93 % of
their seconds, and hears one in 7 of 91 scenes without: fewer than at Silero's own 0.5 (11)."""
NO_SOUND = "the clip has no sound track"
NO_SPEECH = "no speech was found"
NO_WORDS = "a voice was found, but no words"
CONVERT = (
    "ct2-transformers-converter --model DIR --output_dir OUT "
    "--copy_files tokenizer.json preprocessor_config.json"
)
INSTALL = "pip install -c requirements.txt -e '.[speech]'"


@dataclass(frozen=True)
class Word:
    """A word, with its time on the clip's clock."""

    start_s: float
    end_s: float
    text: str
    probability: float
    """As Whisper sees it, 0 to 1."""


@dataclass(frozen=True)
class Segment:
    """What Whisper takes for a sentence or a part of one."""

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Transcript:
    """What is said in a clip or a part of it: a model's opinion, not a measurement."""

    segments: tuple[Segment, ...]
    language: str
    """Code of the language that Whisper heard; empty where it did not run."""
    voice: tuple[Span, ...]
    """Where voice detection heard somebody."""
    note: str
    """Why there are no words; empty where there are some."""

    @property
    def text(self) -> str:
        """All that is said."""
        return " ".join(segment.text for segment in self.segments)

    @property
    def says_nothing(self) -> bool:
        """Whether there are no words."""
        return not self.text

    def to_json(self) -> dict[str, Any]:
        """Plain types for `json.dumps`, with the text."""
        return {**asdict(self), "text": self.text}


def voice_spans(clip: Clip) -> tuple[Span, ...]:
    """Where somebody speaks (or sings, which Silero does not tell apart); needs no model file.

    Edges are padded by 0.2 s. A clip without sound has none.

    Raises:
        SpeechError: faster-whisper is not installed.
    """
    return _voice(_heard_S(clip, 0.0, clip.duration_s), 0.0)


class Transcriber:
    """A Whisper model. Several threads may share one."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def load(cls, model: str | Path = "base", *, device: str = "auto") -> Transcriber:
        """Load a model by its name (`base`, `small` ..., a hub id) or from a folder.

        Args:
            model: a folder holds model.bin and tokenizer.json in the format of CTranslate2. A
                name that is not in the hub's cache is downloaded.
            device: auto, cpu or cuda.

        Raises:
            SpeechError: faster-whisper is missing, or the model is, or it does not load.
        """
        whisper = _faster_whisper()
        place = _checked(model)
        try:
            return cls(whisper.WhisperModel(place, device=device))
        except (OSError, ValueError, RuntimeError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SpeechError(
                f"the Whisper model {str(model)!r} does not load ({why}); where the hub cannot be "
                "reached, give the folder of a model that was fetched elsewhere"
            ) from error

    def transcribe(
        self, clip: Clip, start_s: float | None = None, end_s: float | None = None
    ) -> Transcript:
        """What is said between two times, on the clip's clock.

        Raises:
            SpeechError: times outside of the clip.
        """
        try:
            start, end = edges(clip, start_s, end_s)
        except AcousticsError as error:
            raise SpeechError(str(error)) from None
        heard_S = _heard_S(clip, start, end)
        voice = _voice(heard_S, start)
        if not voice:
            note = NO_SPEECH if clip.has_sound else NO_SOUND
            return Transcript(segments=(), language="", voice=(), note=note)
        found, info = self._model.transcribe(
            heard_S,
            vad_filter=True,
            vad_parameters=VOICE,
            word_timestamps=True,
            temperature=0.0,  # the same clip gives the same words
            # What was misheard once is not to mislead the rest.
            condition_on_previous_text=False,
        )
        segments = tuple(_segments(found, start, end))
        note = "" if segments else NO_WORDS
        return Transcript(segments=segments, language=info.language, voice=voice, note=note)


def _segments(found: Iterable[Any], start: float, end: float) -> Iterator[Segment]:
    """Whisper's segments that hold words, moved to the clip's clock and kept inside the part.

    What has no length is no speech: Whisper invents it behind the end of what it was given.
    """

    def at(time_s: float) -> float:
        return min(max(start + float(time_s), start), end)

    for segment in found:
        words = tuple(
            Word(at(word.start), at(word.end), _printable(word.word), float(word.probability))
            for word in segment.words or ()
            if _printable(word.word)
        )
        text = _printable(segment.text)
        if text and at(segment.end) > at(segment.start):
            yield Segment(at(segment.start), at(segment.end), text, words)


def _printable(text: str) -> str:
    """Without spaces around it and without control characters, which a terminal would obey."""
    return "".join(char for char in text if char.isprintable()).strip()


def _heard_S(clip: Clip, start: float, end: float) -> np.ndarray:
    """Mono float32 (S,) at 16 kHz; empty without sound."""
    if not clip.has_sound:
        return np.zeros(0, np.float32)
    return clip.sound_at(RATE_HZ, 1)[0, round(start * RATE_HZ) : round(end * RATE_HZ)]


def _voice(heard_S: np.ndarray, start: float) -> tuple[Span, ...]:
    if not len(heard_S):
        return ()
    _faster_whisper()
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    found = get_speech_timestamps(heard_S, VadOptions(**VOICE))
    return tuple(
        Span(start + part["start"] / RATE_HZ, start + part["end"] / RATE_HZ) for part in found
    )


def _faster_whisper() -> Any:
    try:
        import faster_whisper
    except ImportError as error:
        raise SpeechError(f"speech needs faster-whisper ({error}): {INSTALL}") from error
    return faster_whisper


def _checked(model: str | Path) -> str:
    """The model as faster-whisper takes it; a folder is looked at first, so that the error helps.

    Without tokenizer.json in the folder faster-whisper would ask the hub for one.
    """
    folder = Path(model)
    if folder.is_dir():
        missing = [name for name in ("model.bin", "tokenizer.json") if not (folder / name).exists()]
        if missing:
            raise SpeechError(
                f"{folder} holds no {' and no '.join(missing)}: give a Whisper model in "
                f"CTranslate2's format, which {CONVERT} makes"
            )
    elif isinstance(model, Path) or folder.is_absolute() or str(model).startswith("."):
        raise SpeechError(f"the folder {folder} does not exist: give that of a Whisper model")
    return str(model)
