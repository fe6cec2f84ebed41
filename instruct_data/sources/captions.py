"""Descriptions of Bandstand clips, written from the truth and from nothing else.

Who stands where, who is heard when, how loud and how fast, who is silent, who cannot be seen,
where it is, and whether somebody speaks. Times are rounded to a tenth of a second.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from instruct_data.bandstand.record import level_word, rate_word
from instruct_data.bandstand.scene import Player, Scene, Voiceover

PROMPTS = (
    "Describe the clip.",
    "Describe what can be seen and heard.",
    "What happens in this video?",
    "Give a full description of the picture and the sound.",
    "Tell me who plays, where they stand and when they are heard.",
    "What do you see and hear here?",
    "Summarise this performance.",
    "Write down everything that happens in this clip.",
)

LOUDNESS = ("very softly", "softly", "at a medium volume", "loudly", "very loudly")
PACE = ("very slowly", "slowly", "at a medium pace", "fast", "very fast")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")

_PLACES = {
    "indoor": (
        "The performance takes place indoors.",
        "This is an indoor performance.",
        "The scene is indoors.",
    ),
    "outdoor": (
        "The performance takes place outdoors.",
        "This is an outdoor performance.",
        "The scene is outdoors.",
    ),
}
_STAGES = (
    "From left to right the picture shows {}.",
    "In the picture, from left to right, there are {}.",
    "Seen from left to right: {}.",
)
_STAGES_OF_ONE = (
    "The picture shows {}.",
    "In the picture there is {}.",
    # There may be other things around, but no other instrument.
    "The only instrument in the picture is {}.",
)
_PLAYS = (
    "{who} plays {loud} and {fast} {when}.",
    "{who} can be heard {when}, playing {loud} and {fast}.",
    "{who} sounds {when}; it plays {loud} and {fast}.",
)
_SILENT = (
    "{who} makes no sound.",
    "{who} is not heard.",
    "{who} stays silent.",
)
_MIMES = (
    "{who} makes no sound, although its player moves as if playing {when}.",
    "{who} is only mimed: there is movement {when}, but no sound.",
)
_SPEAKS = (
    "An unseen narrator speaks {}.",
    "A narrator is heard {} and never seen.",
    "There is a voiceover {}.",
)
_NOBODY_SPEAKS = (
    "Nobody speaks.",
    "There is no voiceover.",
    "No narrator is heard.",
)


def caption(scene: Scene) -> tuple[str, str]:
    """A request for a description, and the description; the same for the same scene."""
    rng = np.random.default_rng([zlib.crc32(scene.video_id.encode()), scene.look])
    return _pick(PROMPTS, rng), describe(scene, rng)


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """What the truth says, in sentences drawn from a few wordings each."""
    place = _pick(_PLACES[scene.place], rng)
    order = sorted(scene.heard, key=lambda player: (player.start_s or 0.0, player.pan))
    sentences = [
        _stage(scene.seen, rng),
        *(_plays(scene, player, rng) for player in order),
        *(_silent(scene, player, rng) for player in scene.seen if not player.audible),
        _voice(scene.voiceover, scene.seconds, rng),
    ]
    sentences.insert(0 if rng.random() < 0.7 else len(sentences), place)
    return " ".join(sentences)


def _pick(wordings: Sequence[str], rng: np.random.Generator) -> str:
    return wordings[int(rng.integers(len(wordings)))]


def _stage(seen: Sequence[Player], rng: np.random.Generator) -> str:
    if not seen:
        return "Nobody is in the picture."
    groups = [
        f"{_listed([_a(player) for player in players])} {_at(side)}"
        for side, players in groupby(seen, key=lambda player: player.side)
    ]
    return _pick(_STAGES if len(seen) > 1 else _STAGES_OF_ONE, rng).format(_listed(groups))


def _plays(scene: Scene, player: Player, rng: np.random.Generator) -> str:
    when = _when(player.start_s or 0.0, player.end_s or 0.0, scene.seconds)
    loud, fast = LOUDNESS[int(level_word(player)[1:])], PACE[int(rate_word(player)[1:])]
    text = _pick(_PLAYS, rng).format(who=_who(scene, player), loud=loud, fast=fast, when=when)
    return _sentence(text)


def _silent(scene: Scene, player: Player, rng: np.random.Generator) -> str:
    who = _who(scene, player)
    if player.moves_s is None:
        return _sentence(_pick(_SILENT, rng).format(who=who))
    return _sentence(_pick(_MIMES, rng).format(who=who, when=_when(*player.moves_s, scene.seconds)))


def _voice(voice: Voiceover | None, seconds: float, rng: np.random.Generator) -> str:
    if voice is None:
        return _pick(_NOBODY_SPEAKS, rng)
    return _pick(_SPEAKS, rng).format(_when(voice.start_s, voice.end_s, seconds))


def _who(scene: Scene, player: Player) -> str:
    """A name that fits this player alone."""
    name = _noun(player.instrument)
    if not player.visible:
        return f"{_article(name)} {name} outside the picture"
    same = [other for other in scene.seen if other.instrument == player.instrument]
    if len(same) == 1:
        return f"the {name}"
    if [other.side for other in same].count(player.side) == 1:
        return f"the {name} {_at(player.side)}"
    place = next(i for i, other in enumerate(scene.seen) if other is player)
    return f"the {name} that is {ORDINALS[place]} from the left"


def _when(start_s: float, end_s: float, seconds: float) -> str:
    if start_s == 0 and end_s == seconds:
        return "from beginning to end"
    start = "from the beginning" if start_s == 0 else f"from about {start_s:.1f} seconds"
    end = "to the end" if end_s == seconds else f"to about {end_s:.1f} seconds"
    return f"{start} {end}"


def _at(side: str) -> str:
    return "in the middle" if side == "middle" else f"on the {side}"


def _a(player: Player) -> str:
    name = _noun(player.instrument)
    return f"{_article(name)} {name}"


def _noun(instrument: str) -> str:
    """Its name, in the singular."""
    return "set of congas" if instrument == "congas" else instrument.replace("_", " ")


def _article(name: str) -> str:
    # "u" counts as a consonant: ukulele is the only such name.
    return "an" if name[0] in "aeio" else "a"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    # Parts that hold an "and" themselves need a comma before the last.
    comma = "," if any(" and " in part for part in parts) else ""
    return f"{', '.join(parts[:-1])}{comma} and {parts[-1]}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
