"""Questions that take two looks: what is said while an instrument rests, and solos compared.

When something rests or plays alone the model's record says; what is said then a speech model
says, and how loud it is then is measured.
"""

from __future__ import annotations

import re

from avqa_llm.agent.bench import Bench, Finding
from avqa_llm.agent.events import Event, Events
from avqa_llm.agent.lookup import Found, Unclear, sounding, span_of
from avqa_llm.agent.meaning import Thing
from avqa_llm.agent.measuring import LOUDER_LU, alone
from avqa_llm.agent.telling import listed
from avqa_llm.agent.wording import Words, words_of
from avqa_llm.errors import AVQAError

_SAID = re.compile(
    r"\bwhat (?:is|was|gets|words are) (?:being )?(?:said|spoken)\b|\bwhat do\w* .*\bsay\b"
)
_RESTS = re.compile(r"\b(?:rests?|resting|silent|pauses?|paused|not play\w*|not sound\w*|is out)\b")
_WHILE = re.compile(r"\b(?:while|when|as|during)\b")
_SOLO = re.compile(r"\bsolos?\b")
_LOUDER = re.compile(r"\b(?:louder|quieter|softer)\b")
_LESS = re.compile(r"\b(?:quieter|softer)\b")
MOST_PARTS = 4


def rests(player: Event, events: Events) -> list[tuple[float, float]]:
    """When a player does not play, by the record."""
    start, end = span_of(player)
    parts = [(0.0, start), (end, events.seconds)]
    return [part for part in parts if part[1] - part[0] >= 2 * events.tick_s]


def solos(events: Events) -> list[tuple[Event, tuple[float, float]]]:
    """The times in which one player plays alone, the longest of each, in order."""
    found = [(player, alone(player, events)) for player in events.heard]
    return sorted(((p, part) for p, part in found if part), key=lambda both: both[1])


def look_twice(question: str, bench: Bench) -> tuple[Found, tuple[Finding, ...]] | None:
    """An answer with what it rests on; None for other questions. Raises Unclear."""
    words = words_of(question)
    names = list(dict.fromkeys(name for _, name in words.instruments))
    if len(names) == 1 and words.find(_SAID) and words.find(_WHILE):
        return _said(words, Thing(name=names[0]), bench)
    if not names and words.find(_SOLO) and words.find(_LOUDER) and len(words.orders) == 2:
        return _solos(words, bench)
    return None


def _said(words: Words, thing: Thing, bench: Bench) -> tuple[Found, tuple[Finding, ...]]:
    try:
        player = sounding(thing, bench.events)
        parts = rests(player, bench.events) if words.find(_RESTS) else [span_of(player)]
        findings = tuple(bench.transcribe(*part) for part in parts[:MOST_PARTS])
    except (Unclear, AVQAError) as error:  # the model hears no words, so it is not asked
        return Found(text=f"cannot tell: {error}", about=(), why="no speech was looked at"), ()
    told = "; ".join(finding.text for finding in findings) or f"{thing} never rests"
    why = f"speech was looked for at {listed(parts)}"
    return Found(text=told, about=(player,), why=why), findings


def _solos(words: Words, bench: Bench) -> tuple[Found, tuple[Finding, ...]]:
    line = solos(bench.events)
    if bench.events.voice is not False:
        raise Unclear("somebody may be speaking, so no solo can be measured")
    picked = []
    for order in words.orders:
        at = order - 1 if order > 0 else len(line) - 1
        if at >= len(line) or len(line) < 2:
            raise Unclear(f"{len(line)} solos are noted, too few to compare")
        picked.append(line[at])
    findings = tuple(bench.measure("loudness", *part) for _, part in picked)
    values = [finding.data["value"] for finding in findings]
    if None in values or abs(values[0] - values[1]) < LOUDER_LU:
        raise Unclear("the solos differ too little to measure")
    louder = (values[0] > values[1]) != words.find(_LESS)
    about = tuple(player for player, _ in picked)
    why = f"measured: {values[0]:.1f} and {values[1]:.1f} LUFS"
    return Found(text="yes" if louder else "no", about=about, why=why), findings
