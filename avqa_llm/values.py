"""Values that a language model writes, put right: of records by tags, of steps by the record.

A record says how loud and how fast each player is; the tags of the sound know it better. So they
replace these words before anything is read there: intervention on a bottleneck of concepts (Koh
et al., ICML 2020, section 4). Where two of a kind are heard, tags cannot tell them apart, and the
record stays. Steps quote a record; where several play, a small model now and then quotes the
wrong player, and what it says then is not what it has written down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from avqa_llm.encoders.tags import Tags
from avqa_llm.prompt import spoken

SEGMENTS = " ; "
"""Between the players of a record."""
SIDES = ("left", "middle", "right", "off")
"""Where a player stands: the word after its name."""
TIE = 2.0
"""What it costs to write two values as one step, in squared steps."""
_VALUE = re.compile(r"[a-z]\d+")


def corrected(record: str, tags: Tags) -> str:
    """A record whose values are those of the tags, where only one player of a kind is heard."""
    scale_of = {word: n for n, scale in enumerate(tags.scales) for word in scale}
    players = [segment.split(" ") for segment in record.split(SEGMENTS)]
    kinds = [_kind(words, tags) if scale_of.keys() & set(words) else None for words in players]
    alone = [n for n, kind in enumerate(kinds) if kind is not None and kinds.count(kind) == 1]
    for number, scale in enumerate(tags.scales):
        values = [tags.values[str(kinds[n])][number] for n in alone]
        for n, step in zip(alone, apart(values, len(scale)), strict=True):
            players[n] = [scale[step] if scale_of.get(w) == number else w for w in players[n]]
    return SEGMENTS.join(" ".join(words) for words in players)


def apart(values: Sequence[float], steps: int) -> list[int]:
    """The steps of some values: the nearest, but greater where a value is greater, if that is near.

    Which of two is louder is asked of a record, hardly ever how loud they are: values that fall on
    one step are moved to neighbouring ones, unless their squared ways would add up to more than
    `TIE`.
    """
    order = sorted(range(len(values)), key=lambda n: values[n])
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}  # by the step of the last one
    below = float("-inf")
    for n in order:
        value, tie = min(max(values[n], 0.0), steps - 1.0), TIE * (values[n] > below)
        best = {
            step: min(
                (cost + (step - value) ** 2 + tie * (bool(taken) and step == last), [*taken, step])
                for last, (cost, taken) in best.items()
                if last <= step
            )
            for step in range(min(best), steps)
        }
        below = values[n]
    found = min(best.values())[1]
    return [found[order.index(n)] for n in range(len(values))]


def quoted(steps: str, record: str) -> str:
    """Steps whose values are those of the record, where it has one player of that name and side."""
    players: dict[tuple[str, ...], list[list[str]]] = {}
    for segment in record.split(SEGMENTS):
        words = segment.split()
        end = next((n + 1 for n, word in enumerate(words) if word in SIDES), 0)
        if end:
            players.setdefault(tuple(words[:end]), []).append(words[end:])
    said, at = steps.split(), 0
    while at < len(said):
        name = next((name for name in players if tuple(said[at : at + len(name)]) == name), ())
        at += max(1, len(name))
        known = players.get(name, [])
        value_of = {word[0]: word for word in known[0] if _VALUE.fullmatch(word)} if known else {}
        while name and at < len(said) and _VALUE.fullmatch(said[at]):
            if len(known) == 1:
                said[at] = value_of.get(said[at][0], said[at])
            at += 1
    return " ".join(said)


def _kind(words: Sequence[str], tags: Tags) -> str | None:
    """The kind that a segment begins with, the longest name first."""
    text = " ".join(words)
    fitting = [kind for kind in tags.values if text.startswith(f"{spoken(kind)} ")]
    return max(fitting, key=len, default=None)
