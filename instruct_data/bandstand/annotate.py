"""Scenes to annotation rows: MUSIC-AVQA's own schema, and instruction rows for training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from instruct_data.bandstand.balance import Balancer
from instruct_data.bandstand.questions import Candidate, candidates
from instruct_data.bandstand.record import (
    event_record,
    record_without_picture,
    record_without_sound,
)
from instruct_data.bandstand.scene import Scene
from instruct_data.templates import TEMPLATES
from instruct_data.wordings import ask


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question of the set: what is asked of which scene."""

    scene: Scene
    question_id: int
    template: str
    candidate: Candidate
    wording: str
    """The question filled in and reworded."""


LOOK_UPS = 3
"""Questions of a template that compares or looks up, where records are all that is learned."""


def annotate(
    scenes: Iterable[Scene],
    *,
    seed: int,
    bias: float = 0.0,
    held_out: bool = False,
    of_records: bool = False,
) -> Iterator[list[Asked]]:
    """The questions of each scene, in order.

    `held_out` words them with the paraphrases that training never sees. `of_records` asks for
    those who read the event record: up to `LOOK_UPS` questions of each template whose answer is
    looked up there, and also what nobody could hear.
    """
    balancer = Balancer(bias)
    rng = np.random.default_rng([seed, round(bias * 1000), int(held_out)])
    question_id = 0
    for scene in scenes:
        rows = []
        for template, fitting in candidates(scene, by_ear=not of_records).items():
            for _ in range(LOOK_UPS if of_records and _is_looked_up(template) else 1):
                picked = balancer.pick(template, fitting, rng) if fitting else None
                if picked is None:
                    break
                fitting = [other for other in fitting if other.slots != picked.slots]
                wording = ask(template, _words(picked.slots, rng), rng, held_out=held_out)
                rows.append(
                    Asked(
                        scene=scene,
                        question_id=question_id,
                        template=template,
                        candidate=picked,
                        wording=wording,
                    )
                )
                question_id += 1
        yield rows


def _is_looked_up(template: str) -> bool:
    """Whether one finds a value of somebody, or somebody by a value."""
    modality, kind = TEMPLATES[template].type
    return kind in ("Comparative", "Temporal") or (modality, kind) == ("Audio-Visual", "Location")


def _words(slots: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    """Slot values as people say them."""
    plain = {"leftest": "leftmost", "rightest": "rightmost"} if rng.random() < 0.5 else {}
    return [plain.get(value, value.replace("_", " ")) for value in slots]


def v1_row(asked: Asked, *, reworded: bool) -> dict[str, Any]:
    """A row in the schema of MUSIC-AVQA v1.

    `reworded` gives the filled form of MUSIC-AVQA-R, and names the template beside it, which
    the question itself no longer shows.
    """
    row: dict[str, Any] = {
        "video_id": asked.scene.video_id,
        "question_id": asked.question_id,
        "type": json.dumps(list(TEMPLATES[asked.template].type)),
        "question_content": asked.wording if reworded else asked.template,
        "templ_values": json.dumps([] if reworded else list(asked.candidate.slots)),
        "question_deleted": 0,
        "anser": asked.candidate.answer,
    }
    return {**row, "template": asked.template} if reworded else row


def instruct_row(scene: Scene, rows: list[Asked]) -> dict[str, Any]:
    """One clip for training: its event record, and its questions with answers and evidence."""
    return {
        "video_id": scene.video_id,
        "record": event_record(scene),
        "record_without_sound": record_without_sound(scene),
        "record_without_picture": record_without_picture(scene),
        "events": _events(scene),
        "questions": [
            {
                "question_id": asked.question_id,
                "question": asked.wording,
                "template": asked.template,
                "steps": asked.candidate.steps,
                "answer": asked.candidate.answer,
                "evidence": [_where(scene, index) for index in asked.candidate.about],
            }
            for asked in rows
        ],
    }


def _events(scene: Scene) -> list[dict[str, Any]]:
    """Players from left to right, then the narrator, with names."""
    events = [
        {"name": p.instrument, "x": p.x, "start_s": p.start_s, "end_s": p.end_s}
        for p in scene.players
    ]
    if voice := scene.voiceover:
        times = {"start_s": voice.start_s, "end_s": voice.end_s}
        events.append({"name": "voice", "x": None, **times})
    return events


def _where(scene: Scene, index: int) -> dict[str, float | None]:
    player = scene.players[index]
    return {"x": player.x, "start_s": player.start_s, "end_s": player.end_s}
