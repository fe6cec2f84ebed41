"""A conversation as a file: JSON for programs, Markdown for people."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from app.markup import percent
from app.reply import changes_of, plain
from app.room import Room, Turn

VERSION = 1


def to_json(room: Room) -> str:
    """Everything that was said, with the evidence; files by name and hash, never by place."""
    rows: list[dict[str, Any]] = [
        {
            "asked_at": _time(turn),
            "clip": None if turn.media is None else turn.media.name,
            "changes": changes_of(turn),
            "model": turn.model,
            "question": turn.question,
            "said": turn.said,
            "answer": None if turn.answer is None else turn.answer.to_json(),
            "steps": [vars(step) for step in turn.steps],
            "seconds": round(turn.seconds, 3),
        }
        for turn in room.turns
    ]
    clips = [{"name": media.name, "sha256": media.sha256} for media in room.media]
    return json.dumps({"version": VERSION, "clips": clips, "turns": rows}, indent=2)


def to_markdown(room: Room) -> str:
    """The conversation to read, every answer with what it rests on."""
    lines = ["# Conversation", ""]
    lines += [f"- {plain(media.name)} (sha256 `{media.sha256[:12]}`)" for media in room.media]
    for turn in room.turns:
        lines += ["", f"## {plain(turn.question) or '(no question)'}", "", *_answer(turn)]
    return "\n".join(lines) + "\n"


def _answer(turn: Turn) -> list[str]:
    if turn.answer is None:
        return [plain(turn.said)]
    answer = turn.answer
    sure = "" if answer.probability is None else f", {percent(answer.probability)} sure"
    clip = "" if turn.media is None else f" about {plain(turn.media.name)}"
    changed = f" ({', '.join(changes_of(turn))})" if changes_of(turn) else ""
    lines = [f"**{plain(answer.answer)}**{sure}. {plain(turn.model)}{clip}{changed}.", ""]
    lines += [f"- Warning: {plain(warning)}" for warning in answer.warnings]
    verbs = {"sound": "listened at", "picture": "looked at"}
    lines += [
        f"- {verbs.get(place.modality, place.modality)} {place.start_s:.1f}–{place.end_s:.1f} s"
        f" ({percent(place.weight)})"
        for place in answer.evidence
    ]
    used = answer.consumed
    lines += (
        ["- what reached the model is unknown"]
        if used is None
        else [f"- {used.sound_tokens} tokens of sound, {used.picture_tokens} of picture"]
    )
    lines += [f"- {step.kind}: {plain(step.tool)}: {plain(step.result)}" for step in turn.steps]
    return lines


def _time(turn: Turn) -> str:
    return datetime.fromtimestamp(turn.at, timezone.utc).isoformat(timespec="seconds")
