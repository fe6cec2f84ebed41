"""Fields of a row that a person wrote: found by any of their spellings, checked, and never guessed.

`Fields` knows each field under one name; `SPELLINGS` lists what else it may be called. Upper
and lower case are one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from typing import Any

from avqa_llm.errors import AnnotationError, MediaError
from avqa_llm.media.changes import Cut
from avqa_llm.training.lines import Line, clean, short, unknown

SPELLINGS: dict[str, tuple[str, ...]] = {
    "video": ("video", "file", "filename", "file_name", "media", "clip", "path", "video_path"),
    "video_id": ("video_id", "v_id", "clip_id"),
    "audio": ("audio", "audio_path", "sound_file"),
    "videos": ("videos",),
    "audios": ("audios",),
    "question": ("question", "q", "query", "prompt", "instruction"),
    "answer": ("answer", "a", "response", "output"),
    "type": ("type", "question_type", "category"),
    "start": ("start", "start_s", "start_time"),
    "end": ("end", "end_s", "end_time"),
    "choices": ("choices", "options", "multi_choice"),
    "label": ("label", "correct_answer"),
    "split": ("split", "subset"),
    "questions": ("questions", "qa", "qas"),
    "conversations": ("conversations", "conversation", "messages"),
    "conversations1": ("conversations1",),
    "conversations2": ("conversations2",),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "tag": ("tag",),
    "id": ("id", "question_id", "source", "licence", "license"),
}
"""What each field may be called. `id` says where a row comes from, of which nothing is
learned."""

LONGEST_S = 1e7
_FEATURES = (".npy", ".npz", ".pt", ".pth", ".pkl", ".h5", ".safetensors")
_SECONDS = re.compile(r"\d{1,9}(?:\.\d*)?|\.\d+")
_PLACEHOLDER = re.compile(r"\s*<(?:video|audio|image)>\s*", re.IGNORECASE)
_MARK = re.compile(r"</?Q>")
LEAD_IN = "Summarize the video to help answer:"
"""What stands before the question in AVinstruct (Ye et al., ECCV 2024)."""


class Fields:
    """One row, or a part of one. Every method raises AnnotationError with file, line and field."""

    def __init__(self, line: Line, raw: object, allowed: Collection[str], place: str = "") -> None:
        self.line, self.place = line, place
        if not isinstance(raw, dict):
            raise line.wrong(place.rstrip("."), f"should be an object, is {short(raw)}")
        known = {word: name for name in allowed for word in SPELLINGS[name]}
        self.values: dict[str, Any] = {}
        self.spelled: dict[str, str] = {}
        for key, value in raw.items():
            name = known.get(key.strip().lower())
            if name is None:
                raise line.wrong(f"{place}{clean(key) or short(key)}", unknown(key, known))
            if name == "id" or _absent(value):
                continue
            if name in self.values and self.values[name] != value:
                other = self.spelled[name]
                raise self.wrong(name, f"{short(value)} is called {other!r} too: keep one", key)
            self.values[name], self.spelled[name] = value, key

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def wrong(self, name: str, why: str, spelled: str | None = None) -> AnnotationError:
        """The error about a field, under the name that it has in the row."""
        return self.line.wrong(f"{self.place}{spelled or self.spelled.get(name, name)}", why)

    def text(self, name: str) -> str:
        """A text that has to be there."""
        if name not in self.values:
            known = ", ".join(SPELLINGS[name])
            raise self.wrong(name, f"is missing or empty (it may be called {known})")
        return self.checked(name, self.values[name])

    def optional_text(self, name: str) -> str:
        """A text, or an empty one where the field is absent."""
        return self.checked(name, self.values[name]) if name in self.values else ""

    def checked(self, name: str, value: object, spelled: str | None = None) -> str:
        """A value as text; whole numbers are texts too."""
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e15:
            return str(value)
        text = clean(value) if isinstance(value, str) else None
        if text is None:
            raise self.wrong(name, f"should be text, is {short(value)}", spelled)
        return text

    def asked(self, name: str, value: object, spelled: str | None = None) -> str:
        """A question without the places for media and the marks that stand around it."""
        said = self.checked(name, value, spelled)
        if len(_MARK.findall(said)) % 2:
            raise self.wrong(
                name, f"has marks <Q> that do not come in pairs: {short(said)}", spelled
            )
        text = _PLACEHOLDER.sub(" ", _MARK.sub("", said)).strip().removeprefix(LEAD_IN).strip()
        if not text:
            raise self.wrong(name, f"asks nothing: {short(said)}", spelled)
        return text

    def seconds(self, name: str) -> float | None:
        """A time, or None where the field is absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, str) and _SECONDS.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, f"should be seconds such as 12.5, is {short(value)}")
        if not 0 <= value < LONGEST_S:
            raise self.wrong(name, f"{short(value)} is no time of a clip, in seconds")
        return float(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; in one text they are parted by `|`. () where the field is absent."""
        value = self.values.get(name)
        if value is None:
            return ()
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise self.wrong(name, f"is no JSON list: {short(value)}") from error
        elif isinstance(value, str):
            value = value.split("|")
        if not isinstance(value, list) or not value:
            raise self.wrong(name, f"should be a list of texts, is {short(value)}")
        return tuple(self.checked(name, item) for item in value)

    def items(self, name: str) -> list[Any]:
        """A list with at least one item."""
        value = self.values.get(name)
        if not isinstance(value, list) or not value:
            raise self.wrong(name, f"should be a list with at least one item, is {short(value)}")
        return value

    def label(self, choices: tuple[str, ...]) -> str | None:
        """The right answer as a closed set has it: a text, or AVinstruct's number of a choice."""
        value = self.values.get("label")
        if value is None:
            return None
        numbered = self.spelled["label"].strip().lower() == "correct_answer"
        if numbered and isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < len(choices):
                raise self.wrong("label", f"{short(value)} numbers none of {len(choices)} choices")
            return choices[value]
        text = self.checked("label", value)
        if choices and text.casefold() not in {choice.casefold() for choice in choices}:
            raise self.wrong("label", f"{short(text)} is none of the choices {short(choices)}")
        return text

    def cut(self, *, sound: bool = True, picture: bool = True) -> Cut:
        """The part that is asked about."""
        start, end = self.seconds("start"), self.seconds("end")
        try:
            return Cut(start_s=start, end_s=end, sound=sound, picture=picture)
        except MediaError as error:
            raise self.wrong("end", str(error)) from error


def clip_of(row: Fields, parts: dict[str, list[str]], *, two_files: bool) -> tuple[str, str, Cut]:
    """Which clip a row is about: its name, its file, and which part and modalities of it.

    Args:
        row: of `video`, `video_id`, `audio`, `videos` and `audios` it gives at least one.
        parts: paths that stand in messages, by `video` and `audio`.
        two_files: whether the format names picture and sound each in a field, so that a missing
            one means that the model is not to see or hear.
    """
    paths = {kind: _path(row, kind, parts.get(kind, [])) for kind in ("video", "audio")}
    name = row.optional_text("video_id")
    picture, sound = paths["video"], paths["audio"]
    file = picture or sound
    given = [path for path in (picture, sound) if path]
    if given and all(path.lower().endswith(_FEATURES) for path in given):
        if not name:
            raise row.wrong("video", f"{short(file)} holds features: name the media file")
        file = name
    elif picture and sound and picture != sound:
        why = f"{short(sound)} is another file than {short(picture)}: put both into one file"
        raise row.wrong("audio", f"{why} (ffmpeg -i PICTURE -i SOUND -c copy BOTH.mp4)")
    if not (file or name):
        known = ", ".join((*SPELLINGS["video"], *SPELLINGS["video_id"], *SPELLINGS["audio"]))
        raise row.wrong("video", f"is missing: the row names no clip (it may be called {known})")
    heard = bool(sound) or not (two_files and picture)
    cut = row.cut(sound=heard, picture=bool(picture) or not sound)
    return name or file, file or name, cut


def _path(row: Fields, kind: str, more: list[str]) -> str:
    found = [row.optional_text(kind), *more]
    several = f"{kind}s"
    if several in row:
        found += [row.checked(several, value) for value in row.items(several)]
    different = list(dict.fromkeys(filter(None, found)))
    if len(different) > 1:
        why = f"names {len(different)} files, {short(different[0])} the first: a row is about one"
        raise row.wrong(several if several in row else kind, why)
    return different[0] if different else ""


def _absent(value: object) -> bool:
    """Whether a field says nothing: null, an empty text or list, the NaN of a table."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip()) or value == []
