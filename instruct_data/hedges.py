"""Answers that commit to nothing: what a preference pair teaches a model not to say.

`{a}` and `{b}` are two different answers, one of them the right one, in either order. The
canonical scorer takes every one of these sentences for `no_answer`, whatever is filled in.
"""

from __future__ import annotations

import numpy as np

HEDGES: dict[str, tuple[str, ...]] = {
    "any": (
        "That is hard to say.",
        "It depends on what is meant by the question.",
        "There is music in this video.",
        "The video shows a performance of music.",
        "I would have to go through the video again to be sure.",
        "Several answers are possible.",
        "The question can be read in different ways.",
        "I am not certain; it goes by too quickly.",
        "That is an interesting question about this performance.",
        "Hard to tell, the recording leaves it open.",
        "Different people would answer this differently.",
        "Various things happen in the video, and that is among them.",
    ),
    "yes-no": (
        "Yes and no: it depends on the part of the video that is meant.",
        "Yes or no, either would be a fair reply.",
        "It may be so, and it may be otherwise.",
        "Both answers can be defended here.",
        "It depends on how closely you follow the video.",
        "That is a matter of opinion.",
        "Some would agree with that, others would disagree.",
        "In a way it is, and in a way it is not.",
        "Sometimes it seems so, at other moments the opposite is true.",
        "That seems likely, although the opposite is just as possible.",
        "I would neither confirm nor deny it.",
    ),
    "count": (
        "There are a few.",
        "Several, I would guess.",
        "Somewhere between {a} and {b}.",
        "Either {a} or {b}, depending on how you count.",
        "At least {a}, possibly more.",
        "Quite a number can be made out.",
        "The number changes in the course of the video.",
        "{a}, unless the background is counted as well, which makes it {b}.",
        "Perhaps {a}, perhaps {b}.",
        "A handful, give or take.",
        "Not very many.",
    ),
    "instrument": (
        "It is {a} or {b}.",
        "It seems to be {a}, although {b} would fit as well.",
        "It is some kind of musical instrument.",
        "It is an instrument that is common in this sort of music.",
        "Perhaps {a}, or something of that family.",
        "{a}, or else {b}; both can be made out.",
        "Some would say {a}, others would say {b}.",
        "It is an instrument that also appears elsewhere in the video.",
        "Maybe {a}, though {b} is just as likely.",
        "Something that is played with both hands.",
    ),
    "side": (
        "It is somewhere on the stage.",
        "It is {a} or {b}.",
        "It is {a}, or rather {b}.",
        "It is next to the others.",
        "It is {a} at times and {b} at other times.",
        "That depends on the point of view of the player or the viewer.",
        "It is near the people who are playing.",
        "Perhaps {a}, perhaps {b}.",
        "It is where the player is.",
    ),
    "which-side": (
        "{a} or {b}, it is a close call.",
        "Perhaps {a}, perhaps {b}.",
        "They are hard to tell apart in time.",
        "It depends on what counts as the start.",
        "Both {a} and {b} would be fair answers.",
        "They play around that time.",
    ),
    "place": (
        "Either {a} or {b}, the picture fits both.",
        "It looks {a}, but it may just as well be {b}.",
        "It is a place with room for an audience.",
        "It is somewhere with enough light to film.",
        "It is at the place where the musicians meet.",
        "It is on some kind of stage.",
        "Perhaps {a}, perhaps {b}.",
    ),
}
"""By the kind of the answers (`Template.answers`); those under `any` fit every question."""

DEAF: tuple[str, ...] = (
    "This video has no sound, so I cannot tell.",
    "I cannot hear anything in this clip.",
    "Nothing is audible here.",
    "The clip seems to be silent, so the question cannot be answered.",
    "Without sound this can only be guessed.",
    "There is nothing to hear, so I can only go by the picture.",
    "The audio track appears to be missing.",
    "As far as the picture goes, that remains unclear.",
    "Only the picture is there to judge by, and it does not show this.",
    "I see people with instruments, but I do not hear them play.",
    "The recording is mute, and the picture alone does not settle it.",
    "Going by the picture alone, I am unable to answer.",
)
"""What is said about a clip by someone who does not hear it."""

# What a listener who hears nothing takes for the truth, where the question is about sound alone.
DEAF_LABELS: dict[str, str] = {
    "Is there a <Object> sound?": "no",
    "Are there <Object> and <Object> sound?": "no",
    "Is there a voiceover?": "no",
    "How many musical instruments were heard throughout the video?": "zero",
    "How many instruments are sounding in the video?": "zero",
    "How many sounding <Object> in the video\uff1f": "zero",
    "How many types of musical instruments sound in the video?": "zero",
}

_PHRASES = {"left": "on the left", "right": "on the right", "middle": "in the middle"}
_PHRASES |= {"indoor": "indoors", "outdoor": "outdoors"}


def hedge(family: str, right: str, other: str, rng: np.random.Generator) -> str:
    """Draw a hedge that fits a kind of answers; `right` and `other` are two of its labels.

    A family without hedges of its own, such as open answers, takes those that fit any question.
    """
    own, any_ = HEDGES.get(family, ()), HEDGES["any"]
    # Two in three are of the family: they are the likelier way to dodge such a question.
    bank = own if own and rng.random() < 2 / 3 else any_
    return fill_hedge(bank[int(rng.integers(len(bank)))], family, right, other, rng)


def fill_hedge(text: str, family: str, right: str, other: str, rng: np.random.Generator) -> str:
    """Put the two answers into a hedge, in either order."""
    named = [_phrase(family, right), _phrase(family, other)]
    if rng.random() < 0.5:
        named.reverse()
    filled = text.format(a=named[0], b=named[1])
    return filled[0].upper() + filled[1:]


def _phrase(family: str, label: str) -> str:
    words = label.replace("_", " ")
    if family == "instrument":
        return f"the {words}"
    return _PHRASES.get(words, words)
