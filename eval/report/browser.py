"""The answers that the page carries for its browser, as compact JSON.

Rows are lists, and what repeats is a number into one list of strings: a page of some thousand
answers stays a few megabytes.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avqa_llm.answer import Consumed, Evidence
from avqa_llm.labels import NO_ANSWER
from eval.media import file_of, find_media
from eval.report.reading import Run
from eval.report.words import count, many
from eval.samples import ProbeSample, RunError, Sample

WHOLE = 5000
"""Up to so many answers, all are in the page."""
WRONG = 4000
"""Of more, at most so many that some run answers wrongly; right ones fill up to `WHOLE`."""
BYTES = 4_000_000
"""And not more than so much JSON."""
LONGEST = 2000
"""Characters of an answer that are shown."""
SEED = 0


def browser_data(runs: Sequence[Run], page_folder: Path) -> dict[str, Any]:
    """What `browser.js` reads: runs, strings, answers, and what was left out, in words."""
    packed = _Packed(runs)
    chosen = _chosen(runs)
    rows: list[list[Any]] = []
    size = 0
    for sample in chosen:
        row = packed.row(sample)
        size += len(as_json(row)) + 1
        if size + packed.size > BYTES:
            break
        rows.append(row)
    whole = len(runs[0].samples)
    says = f"All {count(whole)} answers are here."
    if len(rows) < whole:
        says = _says(chosen[: len(rows)], runs[0].samples)
    rows.sort(key=lambda row: row[0])
    return {
        "runs": [{"name": run.name, "media": media(run, page_folder)} for run in runs],
        "files": files(runs[0], {sample.video_id for sample in chosen[: len(rows)]}),
        "strings": packed.strings,
        "samples": rows,
        "says": says,
    }


def as_json(data: Any) -> str:
    """JSON that no browser takes for HTML: ASCII, without `<`, `>` and `&`."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def media(run: Run, page_folder: Path) -> str | None:
    """The media folder as the page reaches it, with a slash at its end; None where unknown."""
    folder = run.provenance.get("media")
    if not folder:
        return None
    try:
        return quote(Path(os.path.relpath(folder, page_folder)).as_posix()) + "/"
    except ValueError:  # another drive
        return Path(folder).absolute().as_uri() + "/"


def files(run: Run, videos: Collection[str]) -> dict[str, str]:
    """Where clips lie below the media folder, as parts of an address: those not at `ID.mp4`.

    A mirrored clip that is not there is shown by the clip that it mirrors.
    """
    folder = Path(run.provenance.get("media") or "")
    try:
        if not run.provenance.get("media") or not folder.is_dir():
            return {}
        found = find_media(folder)
    except (OSError, RunError):
        return {}
    paths = {video: file_of(found, video) for video in videos}
    below = {
        video: path.relative_to(folder).as_posix()
        for video, path in sorted(paths.items())
        if path is not None
    }
    return {
        video: quote(os.fsencode(path)) for video, path in below.items() if path != f"{video}.mp4"
    }


# --- which answers --------------------------------------------------------------------------


def _chosen(runs: Sequence[Run]) -> list[Sample]:
    """The answers to show, those that matter most first."""
    samples = list(runs[0].samples)
    if len(samples) <= WHOLE:
        drawn = random.Random(SEED).sample(samples, len(samples))
        return sorted(drawn, key=lambda sample: sample.correct)
    elsewhere = {one.row for run in runs[1:] for one in run.samples if not one.correct}
    wrong = [one for one in samples if not one.correct or one.row in elsewhere]
    right = [one for one in samples if one.correct and one.row not in elsewhere]
    dice = random.Random(SEED)
    drawn = dice.sample(wrong, min(WRONG, len(wrong)))
    drawn += dice.sample(right, min(WHOLE - len(drawn), len(right)))
    return drawn


def _says(shown: Sequence[Sample], samples: Sequence[Sample]) -> str:
    parts = []
    for word, correct in (("wrong or missing", False), ("right", True)):
        here = sum(one.correct == correct for one in shown)
        there = sum(one.correct == correct for one in samples)
        parts.append(f"{count(here)} of {count(there)} {word}")
    left = len(samples) - len(shown)
    return (
        f"To keep the page small, it holds {' and '.join(parts)} answers, drawn at random; "
        f"{many(left, 'answer')} left out here are in samples.jsonl."
    )


# --- packing --------------------------------------------------------------------------------


class _Packed:
    """Turns answers into lists, with one list of strings for all of them."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.strings: list[str] = []
        self.size = 0
        """Of the strings, as they are written."""
        self._number: dict[str, int] = {}
        self._others = [{one.row: one for one in run.samples} for run in runs[1:]]
        self._probes: defaultdict[int, list[ProbeSample]] = defaultdict(list)
        for probe in runs[0].probes:
            self._probes[probe.row].append(probe)

    def row(self, sample: Sample) -> list[Any]:
        """The fields in the order in which `browser.js` names them."""
        return [
            sample.row,
            self._string(sample.video_id),
            self._string(sample.type),
            self._string(sample.template),
            sample.question,
            self._string(sample.gold),
            self._string(sample.label),
            _outcome(sample),
            _text(sample.answer, sample.label),
            _share(sample.probability),
            [[self._string(one.label), _share(one.probability)] for one in sample.alternatives],
            _consumed(sample.consumed),
            [_evidence(one) for one in sample.evidence],
            [self._string(one) for one in sample.warnings],
            [self._probe(one, sample) for one in self._probes[sample.row]],
            [self._other(others.get(sample.row), sample) for others in self._others],
            self._string(sample.sound_of),
        ]

    def _string(self, text: str | None) -> int | None:
        if text is None:
            return None
        if text not in self._number:
            self._number[text] = len(self.strings)
            self.strings.append(text)
            self.size += len(as_json(text)) + 1
        return self._number[text]

    def _probe(self, probe: ProbeSample, sample: Sample) -> list[Any]:
        return [
            self._string(probe.probe),
            self._string(probe.expected),
            self._string(probe.label),
            _text(probe.answer, probe.label),
            _share(probe.probability),
            probe.question if probe.question != sample.question else 0,
        ]

    def _other(self, other: Sample | None, sample: Sample) -> list[Any] | None:
        """The same question in another run; None where it was not asked there."""
        if other is None or (other.video_id, other.question) != (sample.video_id, sample.question):
            return None
        text = _text(other.answer, other.label)
        return [self._string(other.label), _outcome(other), text, _share(other.probability)]


def _outcome(sample: Sample) -> int:
    """0 wrong, 1 right, 2 no answer."""
    return 2 if sample.label == NO_ANSWER else int(sample.correct)


def _text(answer: str, label: str) -> str | int:
    """The model's own words; 0 where they are the label itself."""
    if answer == label:
        return 0
    if len(answer) > LONGEST:
        return f"{answer[:LONGEST]} … ({many(len(answer) - LONGEST, 'character')} more)"
    return answer


def _share(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _consumed(found: Consumed | None) -> list[int] | None:
    """Tokens of sound and picture; -1 where the modality did not reach the model."""
    if found is None:
        return None
    return [
        found.sound_tokens if found.sound else -1,
        found.picture_tokens if found.picture else -1,
    ]


def _evidence(one: Evidence) -> list[Any]:
    times = [round(one.start_s, 2), round(one.end_s, 2), round(one.weight, 3)]
    region = [] if one.region is None else [round(place, 3) for place in one.region]
    return [int(one.modality == "picture"), *times, *region]
