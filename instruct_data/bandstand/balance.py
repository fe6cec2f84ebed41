"""Which well-posed questions are asked, so that answers are balanced, or biased on purpose.

Questions are picked greedily, clip after clip: a template's next question takes the
answer that is furthest below its target share; where only over-represented answers are
to be had, the template is not asked about this clip.

`bias` moves the target from even (0) to the answer shares of MUSIC-AVQA v1's test file (1),
where the most frequent answer of each template, given blindly, is right about half of the time.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from instruct_data.bandstand.questions import Candidate
from instruct_data.bandstand.scene import INSTRUMENTS

EVEN_CAP = {"binary": 0.52, "few": 0.40, "instrument": 0.10}
"""Balanced: the largest share that an answer may take among two, a few or the 22 instruments."""
SLACK = 0.02
"""How far above its share in MUSIC-AVQA v1 an answer may rise in a biased set."""
HEAD_START = 4
"""Questions that each answer may have before shares are looked at."""

# Answers of MUSIC-AVQA v1's test file (json_update), counted by template.
V1_ANSWERS: dict[str, dict[str, int]] = {
    "Is the <Object> louder than the <Object>?": {"yes": 154, "no": 153},
    "Is the <Object> more rhythmic than the <Object>?": {"yes": 80, "no": 78},
    "Is the <Object> playing longer than the <Object>?": {"yes": 37, "no": 92},
    "Are there <Object> and <Object> sound?": {"yes": 240, "no": 63},
    "How many musical instruments were heard throughout the video?": {
        "one": 113, "two": 170, "three": 51, "four": 16, "five": 5,
    },
    "Is there a <Object> sound?": {"yes": 257, "no": 93},
    "Are there <Object> and <Object> instruments in the video?": {"yes": 176, "no": 97},
    "How many <Object> are in the entire video?": {
        "zero": 18, "one": 97, "two": 136, "three": 45, "four": 37, "five": 10,
    },
    "How many types of musical instruments appeared in the entire video?": {
        "one": 152, "two": 121, "three": 19, "four": 4, "five": 1,
    },
    "Is there a <Object> in the entire video?": {"yes": 216, "no": 53},
    "Where is the performance?": {"indoor": 235, "outdoor": 88},
    "Is the <Object> on the <LR> louder than the <Object> on the <LR>?": {"yes": 186, "no": 105},
    "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?": {
        "yes": 128, "no": 116,
    },
    "Is the instrument on the <LR> louder than the instrument on the <LR>?": {
        "yes": 144, "no": 178,
    },
    "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?": {
        "yes": 100, "no": 144,
    },
    "How many instruments are sounding in the video?": {
        "one": 70, "two": 153, "three": 35, "four": 11, "five": 3,
    },
    "How many instruments in the video did not sound from beginning to end?": {
        "zero": 187, "one": 78, "two": 11, "three": 3, "four": 2,
    },
    "How many sounding <Object> in the video？": {
        "zero": 36, "one": 220, "two": 90, "three": 31, "four": 39, "five": 5,
    },
    "How many types of musical instruments sound in the video?": {
        "one": 85, "two": 149, "three": 35, "four": 8, "five": 2,
    },
    "Is the <Object> in the video always playing?": {"yes": 199, "no": 89},
    "Is there a voiceover?": {"yes": 88, "no": 345},
    "Is this sound from the instrument in the video?": {"yes": 236, "no": 31},
    "Is the <FL> sound coming from the <LR> instrument?": {"yes": 146, "no": 116},
    "Where is the <LL> instrument?": {"left": 89, "right": 82, "middle": 61},
    "Where is the <FL> sounding instrument?": {"left": 72, "right": 67, "middle": 46},
    "Which <Object> makes the sound <FL>?": {
        "simultaneously": 138, "right": 18, "left": 11, "middle": 9,
    },
}  # fmt: skip
# Templates answered by an instrument share one distribution, counted over all of them.
V1_INSTRUMENTS = (
    108, 128, 38, 53, 74, 136, 84, 21, 55, 31, 61, 103, 60, 166, 47, 102, 24, 79, 72, 92, 216, 39,
)  # fmt: skip
_INSTRUMENT_ANSWERS = dict(zip(INSTRUMENTS, V1_INSTRUMENTS, strict=True))


class Balancer:
    """Picks at most one question a template and clip. Stateful: it remembers what was asked."""

    def __init__(self, bias: float = 0.0) -> None:
        if not 0.0 <= bias <= 1.0:
            raise ValueError(f"bias {bias} is outside 0 (balanced) to 1 (as MUSIC-AVQA v1)")
        self.bias = bias
        self.asked: dict[str, Counter[str]] = defaultdict(Counter)

    def pick(
        self, template: str, rows: list[Candidate], rng: np.random.Generator
    ) -> Candidate | None:
        """The question to ask of this template, or None."""
        asked = self.asked[template]
        total = sum(asked.values()) + 1
        target = self._target(template)
        answers = sorted({row.answer for row in rows})
        rng.shuffle(answers)
        answer = min(answers, key=lambda a: asked[a] - target.get(a, 0.0) * total)
        if asked[answer] >= HEAD_START + self._cap(template, answer) * total:
            return None
        asked[answer] += 1
        fitting = [row for row in rows if row.answer == answer]
        return fitting[int(rng.integers(len(fitting)))]

    def _cap(self, template: str, answer: str) -> float:
        v1 = V1_ANSWERS.get(template)
        kind = "instrument" if v1 is None else "binary" if len(v1) == 2 else "few"
        shares = v1 or _INSTRUMENT_ANSWERS
        biased = shares.get(answer, 0) / sum(shares.values()) + SLACK
        return (1 - self.bias) * EVEN_CAP[kind] + self.bias * biased

    def _target(self, template: str) -> dict[str, float]:
        v1 = V1_ANSWERS.get(template) or _INSTRUMENT_ANSWERS
        total = sum(v1.values())
        even = 1 / len(v1)
        return {a: (1 - self.bias) * even + self.bias * n / total for a, n in v1.items()}
