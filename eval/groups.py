"""The groups that results are broken down by, beside the question types.

Within a group, each question counts once (micro average), as in the benchmarks' own definition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.benchmarks.base import Question
from eval.benchmarks.family import is_synthetic
from eval.floors import Floor
from eval.samples import RunError
from instruct_data.overlap import video_name

# v1 numbers its real clips; those that v2 adds have the id of their YouTube page, and some the
# number of a part of it.
_REAL = re.compile(r"[0-9]{8}|[\w-]{11}(?:_#[0-9]{2})?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What some groups are told by, beside the question itself."""

    floor: Floor | None = None
    seen: Collection[str] | None = None
    """Clips of the fit and train files, by `instruct_data.overlap.video_name`."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A part of the questions."""

    select: Callable[[Question, Context], bool]
    """Raises RunError that names the row and the key where the question does not say."""
    needs: str | None = None
    """The field of `Context` that must be known."""
    about: str


def synthetic(question: Question) -> bool:
    """Whether the authors made the clip from two videos, by its id. Raises RunError for others."""
    if is_synthetic(question.video_id):
        return True
    if _REAL.fullmatch(video_name(question.video_id)):
        return False
    raise RunError(
        f"row {question.number}, key 'video_id': {question.video_id!r} is neither the id of a real "
        "clip (8 digits, or a YouTube id) nor of a synthetic one (8 digits after va, sa, vv, esa, "
        "eva or evv): the groups real and synthetic cannot be told"
    )


def subset(question: Question) -> str:
    """`head` or `tail`. Raises RunError where the question does not say."""
    if question.subset not in ("head", "tail"):
        raise RunError(
            f"row {question.number}, key 'subset': is {question.subset!r}, should be 'head' or "
            "'tail': give the file that says which row is which, or choose a benchmark without"
        )
    return question.subset


def held_out(question: Question) -> bool:
    """Whether training never sees the wording. Raises RunError where nobody knows."""
    if question.held_out is None:
        raise RunError(
            f"row {question.number}, key 'held_out': is missing: whether the wording "
            f"{question.question!r} was kept from training is not known"
        )
    return question.held_out


def is_disjoint(question: Question, context: Context) -> bool:
    """Whether neither the clip nor the sound that is heard with it was seen."""
    assert context.seen is not None, "asked only where it is known"
    names = (question.video_id, question.sound_of or question.video_id)
    return not any(video_name(name) in context.seen for name in names)


def agrees_with_prior(question: Question, context: Context) -> bool:
    """Whether the gold answer is the most frequent one of the template."""
    assert context.floor is not None, "asked only where it is known"
    return context.floor.answer(question) == question.gold


GROUPS: dict[str, Group] = {
    "Audio": Group(
        about="the types that need the sound alone", select=lambda q, _: q.scene == "Audio"
    ),
    "Visual": Group(
        about="the types that need the picture alone", select=lambda q, _: q.scene == "Visual"
    ),
    "Audio-Visual": Group(
        about="the types that need both", select=lambda q, _: q.scene == "Audio-Visual"
    ),
    "head": Group(about="frequent answers", select=lambda q, _: subset(q) == "head"),
    "tail": Group(about="rare answers", select=lambda q, _: subset(q) == "tail"),
    "real": Group(about="recorded clips", select=lambda q, _: not synthetic(q)),
    "synthetic": Group(about="clips put together by the authors", select=lambda q, _: synthetic(q)),
    "video-disjoint": Group(
        about="clips that neither the fit nor the train file has", select=is_disjoint, needs="seen"
    ),
    "prior-agreeing": Group(
        about="the gold answer is what the blind floor says",
        select=agrees_with_prior,
        needs="floor",
    ),
    "prior-disagreeing": Group(
        about="the gold answer is not what the blind floor says",
        select=lambda q, context: not agrees_with_prior(q, context),
        needs="floor",
    ),
    "held-out wordings": Group(
        about="wordings that training never sees", select=lambda q, _: held_out(q)
    ),
    "training wordings": Group(
        about="wordings that training may see", select=lambda q, _: not held_out(q)
    ),
}

_LACKS = {
    "seen": "no fit or train file was given, so nothing says which clips were seen",
    "floor": "no fit file was given, so there is no blind floor",
}


def masks(
    names: Sequence[str], questions: Sequence[Question], context: Context
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Which questions belong to each group, and why the other groups could not be computed.

    Raises RunError for a name that is no group's, and where a question lacks a group's key.
    """
    found: dict[str, np.ndarray] = {}
    not_computed: dict[str, str] = {}
    for name in names:
        group = _group(name)
        if group.needs is not None and getattr(context, group.needs) is None:
            not_computed[name] = _LACKS[group.needs]
            continue
        chosen = (group.select(question, context) for question in questions)
        mask_Q = np.fromiter(chosen, bool, len(questions))
        if mask_Q.any():
            found[name] = mask_Q
        else:
            not_computed[name] = f"none of the {len(questions)} questions belongs to it"
    return found, not_computed


def _group(name: str, groups: Mapping[str, Group] = GROUPS) -> Group:
    if name not in groups:
        raise RunError(f"there is no group {name!r}; there are {', '.join(groups)}")
    return groups[name]
