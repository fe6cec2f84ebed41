"""The 33 question templates of MUSIC-AVQA, and what fills each slot.

A template's text is the annotation file's own, stripped: `<Object>`, `<LR>`, `<LRer>`,
`<LL>`, `<FL>`, `<TH>` and `<BA>` are slots, filled left to right. One template ends in a
full-width question mark; that is how the benchmark spells it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from avqa_llm.labels import LABELS as LABELS
from instruct_data.bandstand.scene import INSTRUMENTS

SIDES = ("left", "middle", "right")

SLOT_VALUES: dict[str, tuple[str, ...]] = {
    "Object": INSTRUMENTS,
    "LR": SIDES,
    "LRer": ("leftest", "rightest"),
    "LL": ("loudest", "lowest"),
    "FL": ("first", "last"),
    "TH": ("first", "second", "third", "fourth", "fifth"),
    "BA": ("before", "after"),
}
"""What each slot can hold. `lowest` means quietest, not lowest in pitch."""

SLOT = re.compile(r"<(\w+)>")


@dataclass(frozen=True, kw_only=True)
class Template:
    """One question shape of the benchmark."""

    text: str
    modality: str
    """`Audio`, `Visual` or `Audio-Visual`: what the benchmark says is needed to answer."""
    kind: str
    """`Counting`, `Comparative`, `Existential`, `Location` or `Temporal`."""
    slots: tuple[str, ...]
    """Names of the slots in the order of the text."""
    answers: str
    """`yes-no`, `count`, `instrument`, `side`, `place`, or `which-side` (a side or
    `simultaneously`)."""

    @property
    def type(self) -> tuple[str, str]:
        """Modality and kind, as in the `type` field of an annotation row."""
        return self.modality, self.kind


# Per type: each template with the kind of its answers.
_BY_TYPE: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("Audio", "Comparative"): (
        ("Is the <Object> louder than the <Object>?", "yes-no"),
        ("Is the <Object> more rhythmic than the <Object>?", "yes-no"),
        ("Is the <Object> playing longer than the <Object>?", "yes-no"),
    ),
    ("Audio", "Counting"): (
        ("Are there <Object> and <Object> sound?", "yes-no"),
        ("How many musical instruments were heard throughout the video?", "count"),
        ("Is there a <Object> sound?", "yes-no"),
    ),
    ("Audio-Visual", "Comparative"): (
        ("Is the <Object> on the <LR> louder than the <Object> on the <LR>?", "yes-no"),
        ("Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?", "yes-no"),
        ("Is the instrument on the <LR> louder than the instrument on the <LR>?", "yes-no"),
        ("Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?", "yes-no"),
    ),
    ("Audio-Visual", "Counting"): (
        ("How many instruments are sounding in the video?", "count"),
        ("How many instruments in the video did not sound from beginning to end?", "count"),
        ("How many sounding <Object> in the video\uff1f", "count"),
        ("How many types of musical instruments sound in the video?", "count"),
    ),
    ("Audio-Visual", "Existential"): (
        ("Is the <Object> in the video always playing?", "yes-no"),
        ("Is there a voiceover?", "yes-no"),
        ("Is this sound from the instrument in the video?", "yes-no"),
    ),
    ("Audio-Visual", "Location"): (
        ("Is the <FL> sound coming from the <LR> instrument?", "yes-no"),
        ("What is the <LR> instrument of the <FL> sounding instrument?", "instrument"),
        ("Where is the <LL> instrument?", "side"),
        (
            "Which is the musical instrument that sounds at the same time as the <Object>?",
            "instrument",
        ),
    ),
    ("Audio-Visual", "Temporal"): (
        ("What is the <TH> instrument that comes in?", "instrument"),
        ("Where is the <FL> sounding instrument?", "side"),
        ("Which <Object> makes the sound <FL>?", "which-side"),
        ("Which instrument makes sounds <BA> the <Object>?", "instrument"),
    ),
    ("Visual", "Counting"): (
        ("Are there <Object> and <Object> instruments in the video?", "yes-no"),
        ("How many <Object> are in the entire video?", "count"),
        ("How many types of musical instruments appeared in the entire video?", "count"),
        ("Is there a <Object> in the entire video?", "yes-no"),
    ),
    ("Visual", "Location"): (
        ("What is the instrument on the <LR> of <Object>?", "instrument"),
        ("What kind of instrument is the <LRer> instrument?", "instrument"),
        ("What kind of musical instrument is it?", "instrument"),
        ("Where is the performance?", "place"),
    ),
}

TEMPLATES: dict[str, Template] = {
    text: Template(
        text=text,
        modality=modality,
        kind=kind,
        slots=tuple(SLOT.findall(text)),
        answers=answers,
    )
    for (modality, kind), rows in _BY_TYPE.items()
    for text, answers in rows
}
"""The 33 templates by their text."""


def fill(template_text: str, values: Sequence[str]) -> str:
    """Put the values into the slots, left to right, exactly as the benchmark does.

    Raises ValueError when there are more or fewer values than slots.
    """
    slots = SLOT.findall(template_text)
    if len(values) != len(slots):
        raise ValueError(
            f"{template_text!r} has {len(slots)} slots but got {len(values)} values {list(values)}"
        )
    remaining = iter(values)
    return SLOT.sub(lambda _: next(remaining), template_text)
