"""`avqa listen`: what is measured of a file's sound, and what is said in it."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avqa_llm.acoustics import Facts, Measurement
    from avqa_llm.media import Clip
    from avqa_llm.speech import Transcript

QUIETEST_LUFS = -60.0
"""Loudness of an empty bar; a full one has 0 LUFS."""
BAR = 40
A_DAY_S = 86400.0


def run(args: argparse.Namespace) -> int:
    """`avqa listen FILE`: facts of the file, or of the part from --from to --to, and speech."""
    from avqa_llm.acoustics import facts_of
    from avqa_llm.media import Keyframes, read_clip

    # Of the picture one keyframe is enough, which is cheap: only the sound is looked at.
    sampling = Keyframes(every_s=A_DAY_S, tolerance_s=A_DAY_S)
    clip = read_clip(args.file, sampling=sampling, max_side=64)
    facts = facts_of(clip, args.start_s, args.end_s)
    transcript = _transcript(clip, args) if args.speech else None
    if args.json:
        row = {"file": str(args.file), "notes": clip.notes, "facts": facts.to_json()}
        if transcript is not None:
            row["speech"] = transcript.to_json()
        json.dump(row, sys.stdout, indent=2)
        print()
        return 0
    print("\n".join([*describe(clip, facts), *(spoken(transcript) if transcript else ())]))
    return 0


def _transcript(clip: Clip, args: argparse.Namespace) -> Transcript:
    from avqa_llm.speech import Transcriber

    return Transcriber.load(args.speech).transcribe(clip, args.start_s, args.end_s)


def describe(clip: Clip, facts: Facts) -> Iterator[str]:
    """Facts as lines for a person: what holds for the whole, then second by second."""
    yield from (f"note: {note}" for note in clip.notes)
    yield facts.text()
    if not facts.active:
        return
    yield ""
    for name in ("loudness", "tempo", "pitch", "pitch_range"):
        yield f"  {name:<12}{_with_doubt(getattr(facts, name))}"
    yield ""
    yield "  second    LUFS   side  onsets"
    for second, lufs in enumerate(facts.loudness_lufs):
        yield _line(facts, second, lufs)


def _line(facts: Facts, second: int, lufs: float | None) -> str:
    start = facts.start_s + second
    onsets = sum(start <= at < start + 1 for at in facts.onsets_s)
    side = facts.balance[second]
    loud = "     -" if lufs is None else f"{lufs:6.1f}"
    where = "    -" if side is None else f"{side:+5.2f}"
    return f"  {start:6g}  {loud}  {where}  {onsets:6d}  {_bar(lufs)}".rstrip()


def _bar(lufs: float | None) -> str:
    full = 0.0 if lufs is None else 1 - lufs / QUIETEST_LUFS
    return "#" * math.floor(BAR * min(1.0, max(0.0, full)))


def _with_doubt(found: Measurement) -> str:
    doubt = "" if found.tolerance is None else f" ± {found.tolerance:.2g}"
    note = f"   {found.note}" if found.value is not None and found.note else ""
    return f"{found.text()}{doubt}{note}"


def spoken(transcript: Transcript) -> Iterator[str]:
    """A transcript as lines for a person: a model's opinion, and said to be one."""
    yield ""
    if transcript.note:
        yield f"Speech: {transcript.note}"
    else:
        yield f"Speech, as Whisper heard it (language: {transcript.language})"
    for span in transcript.voice:
        yield f"  {span.start_s:6.1f}-{span.end_s:.1f} s  a voice"
    for segment in transcript.segments:
        yield f"  {segment.start_s:6.1f}-{segment.end_s:.1f} s  {segment.text}"
