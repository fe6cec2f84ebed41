"""Can the figure be believed? Checks that go with every run, each with a sentence.

A check passes, fails, warns, or is unproven: what was not measured is never called fine. One
failure makes the run invalid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from avqa_llm.labels import LABELS
from eval.benchmarks.base import Question
from eval.floors import Floor
from eval.journal import Delivered
from eval.samples import Sample
from eval.scoring import Scorer
from eval.statistics import paired_difference

Check = dict[str, Any]

MARGIN = 0.05
"""How far above the blind floor a model may stand without sound and picture. A model of the
question's words alone is above it honestly: 54.09 against 51.05 on v1 (Li et al. 2022)."""
WIDEST = 0.5
"""Of the interval of that gain, from end to end: a wider one says nothing."""
UNREAD = 0.05
"""Share of the questions whose files may have a stream of which nothing can be read."""
DEAF_AT_LEAST = 8
"""Questions on which a modality has to change something, or the check stays unproven."""


def integrity(
    samples: Sequence[Sample],
    *,
    control: Sequence[Mapping[str, Any]],
    questions: Mapping[int, Question],
    floor: Floor | None,
    sound: Delivered,
    picture: Delivered,
    files: Mapping[str, str],
    overlap: Mapping[str, Any] | None,
    score: Scorer,
    taken: Sequence[str] = (),
) -> dict[str, Any]:
    """All checks of a run.

    Args:
        samples: its answers.
        control: the rows of `eval.control.controls`.
        questions: by row.
        floor: the blind floor; without one, the check of empty media is unproven.
        sound: of how many questions there was sound, and it reached the model.
        picture: the same for the picture.
        files: sha-256 of the question files.
        overlap: with the training file; None where none was named.
        score: the scorer that was used.
        taken: `mute`, `blank`: what the run itself took away.
    """
    checks = {
        "no gold leak": leak(control),
        "empty media at the floor": empty(control, questions, floor),
        "sound delivered": delivered(sound, "sound", "mute" in taken),
        "picture delivered": delivered(picture, "picture", "blank" in taken),
        "sound matters": matters(control, "deaf", "had_sound", questions, "sound"),
        "picture matters": matters(control, "blind", "had_picture", questions, "picture"),
        "scorer": scorer(score),
        "files": _check("pass", f"{len(files)} question files, each with its SHA-256"),
        "train overlap": overlapping(overlap),
    }
    return {"valid": all(c["state"] != "fail" for c in checks.values()), "checks": checks}


def _check(state: str, says: str, **figures: Any) -> Check:
    return {"state": state, "says": says, **figures}


def leak(control: Sequence[Mapping[str, Any]]) -> Check:
    """Do answers follow a gold answer that was planted? Whoever sees no gold hits by chance.

    The planted answers are drawn evenly and apart from all else, so chance is known exactly; the
    bound is three standard deviations above it (and one hit).
    """
    rows = [row for row in control if row["control"] == "leak"]
    if not rows:
        return _check("unproven", "no control was asked: nothing says that gold did not leak")
    hits = sum(row["label"] == row["gold"] for row in rows)
    expected = sum(row["chance"] for row in rows)
    spread = math.sqrt(sum(row["chance"] * (1 - row["chance"]) for row in rows))
    figures = {"n": len(rows), "hits": hits, "expected": round(expected, 2)}
    said = f"{hits} of {len(rows)} planted answers came back; {expected:.1f} would by chance"
    bound = expected + 3 * spread + 1
    if hits > bound:
        return _check("fail", f"GOLD LEAK: {said}. The gold answer reaches the model.", **figures)
    if len(rows) <= bound:
        return _check("unproven", f"{said}: too few to say", **figures)
    return _check("pass", said, **figures)


def empty(
    control: Sequence[Mapping[str, Any]], questions: Mapping[int, Question], floor: Floor | None
) -> Check:
    """Without sound and picture, is the model no better than the blind floor allows?"""
    rows = [row for row in control if row["control"] == "empty"]
    if not rows:
        return _check("unproven", "no question was asked without sound and picture")
    if floor is None:
        return _check("unproven", "no floor to compare with: name a --fit file", n=len(rows))
    levels = [
        [floor.answer(questions[row["row"]], level) == row["gold"] for row in rows]
        for level in ("template", "template+values")
    ]
    blind = max(levels, key=sum)
    right = [row["label"] == row["gold"] for row in rows]
    gain = paired_difference(right, blind, [row["video_id"] for row in rows])
    accuracy, level = sum(right) / len(rows), sum(blind) / len(rows)
    figures = {"n": len(rows), "accuracy": accuracy, "floor": level, "low": _null(gain.low)}
    said = (
        f"{100 * accuracy:.2f} % of {len(rows)} questions without sound and picture; the floor "
        f"is {100 * level:.2f} %, the gain {100 * gain.value:+.2f} [{100 * gain.low:+.2f}, "
        f"{100 * gain.high:+.2f}], allowed are {100 * MARGIN:.0f} points"
    )
    if gain.low > MARGIN:
        return _check("fail", f"ABOVE THE FLOOR WITH NOTHING TO SEE OR HEAR: {said}", **figures)
    if not gain.high - gain.low < WIDEST:
        return _check("unproven", f"{said}: too few to say", **figures)
    return _check("pass", said, **figures)


def delivered(counts: Delivered, modality: str, taken: bool) -> Check:
    """Did the modality reach the model for every question whose clip has it?"""
    figures = dict(vars(counts))
    if taken:
        return _check("pass", f"the {modality} was taken away on purpose", **figures)
    if counts.unread > UNREAD * (counts.there + counts.unread):
        return _check(
            "fail",
            f"{modality.upper()} LOST IN READING: {counts.unread} of "
            f"{counts.there + counts.unread} questions are about files that have it",
            **figures,
        )
    if not counts.there:
        return _check("warn", f"no clip has {'a ' * (modality == 'picture')}{modality}", **figures)
    lost = counts.there - counts.consumed - counts.unproven
    if lost:
        return _check(
            "fail",
            f"{modality.upper()} DROPPED: it did not reach the model for {lost} of "
            f"{counts.there} questions whose clips have it",
            **figures,
        )
    if counts.unproven:
        return _check(
            "unproven",
            f"the engine cannot prove that the {modality} reached the model for "
            f"{counts.unproven} of {counts.there} questions",
            **figures,
        )
    said = f"the {modality} reached the model for all {counts.there} questions whose clips have it"
    if counts.unread:
        more = f"; nothing could be read of it for {counts.unread} more"
        return _check("warn", said + more, **figures)
    return _check("pass", said, **figures)


def matters(
    control: Sequence[Mapping[str, Any]],
    name: str,
    had: str,
    questions: Mapping[int, Question],
    modality: str,
) -> Check:
    """Does anything change when the modality is taken away?

    An engine may say that it consumed what never reached the answer. If answers and
    probabilities stay the same to the last digit, it did not.
    """
    other = {"sound": "Visual", "picture": "Audio"}[modality]
    rows = [
        row
        for row in control
        if row["control"] == name and row[had] and questions[row["row"]].scene != other
    ]
    changed = sum(not row["same"] for row in rows)
    clips = {row["video_id"] for row in rows}
    moved = {row["video_id"] for row in rows if not row["same"]}
    figures = {"n": len(rows), "changed": changed, "clips": len(clips), "clips_changed": len(moved)}
    said = (
        f"without the {modality}, {changed} of {len(rows)} answers that may need it changed, or "
        f"their probability did; in {len(moved)} of {len(clips)} clips"
    )
    measured = all(row["measured"] for row in rows)
    if changed:
        # Where probabilities are told, hardly any stays the same to the last digit.
        return _check("warn" if measured and moved != clips else "pass", said, **figures)
    # Without probabilities, a few equal answers say little.
    enough = DEAF_AT_LEAST * (1 if measured else 4)
    if len(rows) < enough:
        return _check("unproven", f"{said}: too few to say", **figures)
    return _check("fail", f"THE {modality.upper()} CHANGES NOTHING: {said}", **figures)


_CANARIES = (
    ("piano", "no"),
    ("saxophone", "one"),
    ("xylophone", "one"),
    ("more than ten", "ten"),
    ("I do not know", "no"),
    ("", "yes"),
    ("yes or no", "no"),
    ("It could be the cello or the violin", "violin"),
)
"""Texts with a gold answer that they do not give, although it can be found in them."""
_CHOICES = ("cat", "caterpillar", "dog barking", "rain")
_TRAPS = (("caterpillar", "cat"), ("a cat or the rain", "rain"), ("I do not know", "cat"))
"""The same for multiple choice."""


def scorer(score: Scorer) -> Check:
    """Does the scorer credit what was not said, or refuse the plain answer?"""

    def says(text: str, gold: str, choices: tuple[str, ...] = ()) -> bool:
        blank: dict[str, Any] = {"number": 1, "video_id": "", "question_id": None, "type": ""}
        return score(text, Question(**blank, question="", gold=gold, choices=choices)) == gold

    credited = [text for text, gold in _CANARIES if says(text, gold)]
    credited += [text for text, gold in _TRAPS if says(text, gold, _CHOICES)]
    refused = [label for label in LABELS if not says(label, label)]
    refused += [choice for choice in _CHOICES if not says(choice, choice, _CHOICES)]
    if credited:
        return _check(
            "fail",
            f"THE SCORER GUESSES: it credits {credited[0]!r} with an answer that it does not "
            f"give ({len(credited)} of {len(_CANARIES) + len(_TRAPS)} such texts)",
        )
    if refused:
        return _check("fail", f"THE SCORER IS DEAF: it does not take {refused[0]!r} for itself")
    traps = len(_CANARIES) + len(_TRAPS)
    return _check("pass", f"credits none of {traps} traps, and each of the {len(LABELS)} answers")


def overlapping(overlap: Mapping[str, Any] | None) -> Check:
    """Were test clips seen in training? The official splits share some, so it only warns."""
    if overlap is None:
        return _check("unproven", "no training file was named (--train), so none was compared")
    shared, videos = overlap["shared_videos"], overlap["videos"]
    said = f"{shared} of {videos} test clips are in the training file"
    return _check("warn" if shared else "pass", said, **dict(overlap))


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value
