"""What is right after a change.

Where a question comes from a Bandstand scene, the scene is changed as the clip was, and asked
again: the answer is exact, and a question that has no single answer any more is left out. What
a person could dispute is taken both ways (`Readings`), and only an answer that all ways agree
on counts. Elsewhere rules say what stays; what they do not say cannot be known (None).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from eval.benchmarks.base import Question
from eval.probes import words
from eval.probes.media import LeftOut
from eval.probes.words import Words
from instruct_data.augment import MIRROR
from instruct_data.bandstand.questions import candidates
from instruct_data.bandstand.scene import INSTRUMENTS, MIN_PLAY_S, Player, Scene, Voiceover
from instruct_data.templates import TEMPLATES

ILL_POSED = "no single answer after the change"
MAY_HIDE_EQUALS = "its 'no' may mean that both are equal"
ORDER_OF_STARTS = "backwards, the order of starts is that of stops"
OTHER_LENGTH = "the other clip has another length"
SEEN_AND_HEARD = "an instrument is seen in one clip and heard in the other"
EYE_AND_EAR = "eye and ear disagree after the change"

SOUND, PICTURE = "sound", "picture"
NEEDS = {
    "Audio": frozenset({SOUND}),
    "Visual": frozenset({PICTURE}),
    "Audio-Visual": frozenset({SOUND, PICTURE}),
}
"""What the answer to a question rests on, by the first word of its type."""

VOICEOVER = "Is there a voiceover?"
ALWAYS = "Is the <Object> in the video always playing?"
TAIL_S = 0.1
"""How far a note may ring, or a codec smear it, beyond the times of the scene."""
NOTE = 1.1
"""From any moment of a player's time to its next note: at most so many periods of its rhythm."""

Readings = tuple[Scene, ...]
Answers = Mapping[tuple[str, tuple[str, ...]], str]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A question after the change, with its right answer."""

    question: str
    expected: str | None
    choices: tuple[str, ...] = ()


Judge = Callable[[Question, "Scene | None", "Scene | None"], Judged]
"""From a question, the scene of its clip and that of the other clip. Raises LeftOut."""


# -- rules -----------------------------------------------------------------------------------


def stays(question: Question, scene: Scene | None, other: Scene | None) -> Judged:
    """Whatever was done: sound and picture still show what is asked for."""
    return _as_asked(question, question.gold)


def without(*gone: str) -> Judge:
    """The truth where sound or picture or both were taken away."""

    def judge(question: Question, scene: Scene | None, other: Scene | None) -> Judged:
        known = not needs(question) & set(gone)
        return _as_asked(question, question.gold if known else None)

    return judge


def needs(question: Question) -> frozenset[str]:
    """What the answer rests on. Raises LeftOut where the type does not say it."""
    if question.scene not in NEEDS:
        raise LeftOut(words.OTHER_TYPE)
    return NEEDS[question.scene]


def mirrored(question: Question, scene: Scene | None, other: Scene | None) -> Judged:
    """Left and right exchanged: exact everywhere, as in `instruct_data.augment.mirrored`."""
    after = words.mirrored(question)
    if scene is not None and after.slots is not None:
        return _judged(after, answer((mirrored_scene(scene),), question.template, after.slots))
    has_side = TEMPLATES[question.template or ""].answers in ("side", "which-side")
    gold = MIRROR.get(question.gold, question.gold) if has_side else question.gold
    return _judged(after, gold)


def time_reversed(question: Question, scene: Scene | None, other: Scene | None) -> Judged:
    """Played backwards, first and last exchanged: exact on scenes.

    Elsewhere all stays but order: who starts last need not stop last, so nothing tells who is
    first backwards (`instruct_data.augment.time_reversed`).
    """
    after = words.time_reversed(question)
    about_order = words.is_about_order(question)
    if scene is not None and after.slots is not None:
        readings = _backwards(scene) if about_order else (reversed_scene(scene),)
        return _judged(after, answer(readings, question.template, after.slots))
    if words.counts_from_the_start(question):
        raise LeftOut(ORDER_OF_STARTS)
    return _judged(after, None if about_order else question.gold)


def swapped(question: Question, scene: Scene | None, other: Scene | None) -> Judged:
    """A comparison the other way round: yes becomes no; a no may hide equals but on scenes."""
    after = words.swapped(question)
    if scene is not None and after.slots is not None:
        return _judged(after, answer((scene,), question.template, after.slots))
    if question.gold != "yes":
        raise LeftOut(MAY_HIDE_EQUALS)
    return _judged(after, "no")


def shifted(seconds: float) -> Judge:
    """The truth where the sound was moved against the picture: exact on scenes.

    Elsewhere what rests on the picture alone stays, and with a second at most also how many
    and which instruments are heard, and whether there is a voiceover.
    """

    def judge(question: Question, scene: Scene | None, other: Scene | None) -> Judged:
        if SOUND not in needs(question):
            return _as_asked(question, question.gold)
        slots = words.slots_of(question)
        if scene is not None and slots is not None:
            expected = answer(shifted_scenes(scene, seconds), question.template, slots)
            # It is seen to play while it is not heard.
            if question.template == ALWAYS and expected != question.gold:
                raise LeftOut(EYE_AND_EAR)
            return _as_asked(question, expected)
        lasts = question.type == "Audio Counting" or question.template == VOICEOVER
        return _as_asked(question, question.gold if lasts and abs(seconds) <= 1 else None)

    return judge


def sound_swapped(question: Question, scene: Scene | None, other: Scene | None) -> Judged:
    """The other clip's sound under this clip's picture: exact on scenes."""
    return _dubbed(question, (scene, other), kept=PICTURE)


def picture_swapped(question: Question, scene: Scene | None, other: Scene | None) -> Judged:
    """The other clip's picture above this clip's sound: exact on scenes."""
    return _dubbed(question, (other, scene), kept=SOUND)


def _dubbed(question: Question, scenes: tuple[Scene | None, Scene | None], *, kept: str) -> Judged:
    if needs(question) == {kept}:
        return _as_asked(question, question.gold)
    picture, sound = scenes
    slots = None if picture is None else words.slots_of(question)
    if picture is None or sound is None or slots is None:
        return _as_asked(question, None)
    if picture.seconds != sound.seconds:
        raise LeftOut(OTHER_LENGTH)
    shared = {p.instrument for p in picture.seen} & {p.instrument for p in sound.heard}
    # Who hears a violin and sees one takes the one for the other.
    if shared and len(needs(question)) > 1 and question.template != VOICEOVER:
        raise LeftOut(SEEN_AND_HEARD)
    dubbed = dubbed_scene(picture, sound)
    return _as_asked(question, answer((dubbed,), question.template, slots))


def _as_asked(question: Question, expected: str | None) -> Judged:
    return Judged(question=question.question, expected=expected, choices=question.choices)


def _judged(after: Words, expected: str | None) -> Judged:
    return Judged(question=after.text, expected=expected, choices=after.choices)


# -- scenes after a change -------------------------------------------------------------------


def mirrored_scene(scene: Scene) -> Scene:
    """Left and right exchanged."""

    def turned(player: Player) -> Player:
        x = None if player.x is None else round(1 - player.x, 3)
        return replace(player, x=x, pan=-player.pan)

    off = (player for player in scene.players if not player.visible)
    return replace(scene, players=tuple(map(turned, (*scene.seen[::-1], *off))))


def reversed_scene(scene: Scene) -> Scene:
    """Played backwards."""

    def turned(span: tuple[float, float]) -> tuple[float, float]:
        return round(scene.seconds - span[1], 2), round(scene.seconds - span[0], 2)

    def player_turned(player: Player) -> Player:
        moves = player.moves_s and turned(player.moves_s)
        if player.start_s is None or player.end_s is None:
            return replace(player, moves_s=moves)
        start, end = turned((player.start_s, player.end_s))
        return replace(player, start_s=start, end_s=end, moves_s=moves)

    voice = scene.voiceover
    if voice is not None:
        start, end = turned((voice.start_s, voice.end_s))
        voice = replace(voice, start_s=start, end_s=end)
    return replace(scene, players=tuple(map(player_turned, scene.players)), voiceover=voice)


@functools.lru_cache(maxsize=64)
def _backwards(scene: Scene) -> Readings:
    """A player is last heard up to a note before its end, so backwards it may start as late."""
    turned = reversed_scene(scene)
    ways = [(p, _late(p)) if p.audible else (p,) for p in turned.players]
    return tuple(replace(turned, players=players) for players in itertools.product(*ways))


@functools.lru_cache(maxsize=64)
def shifted_scenes(scene: Scene, seconds: float) -> Readings:
    """The sound moved by so many seconds and cut at both ends of the clip; movements stay.

    A sound of which less than `MIN_PLAY_S` is left may count or not, and a player whose start
    was cut off may be heard at once or with its next note.
    """
    ways = [_cut(player, seconds, scene.seconds) for player in scene.players]
    voices = _cut_voice(scene.voiceover, seconds, scene.seconds)
    return tuple(
        replace(scene, players=players, voiceover=voice)
        for players in itertools.product(*ways)
        for voice in voices
    )


def _cut(player: Player, seconds: float, length_s: float) -> tuple[Player, ...]:
    if player.start_s is None or player.end_s is None:
        return (player,)
    start, end = round(player.start_s + seconds, 2), round(player.end_s + seconds, 2)
    heard = replace(player, start_s=start, end_s=end)
    if start >= 0 and end <= length_s:
        return (heard,)
    left_s = min(end, length_s) - max(start, 0.0)
    if left_s <= -TAIL_S:
        return (_silent(player),)
    if left_s < MIN_PLAY_S:
        start = max(0.0, min(start, length_s - TAIL_S))
        heard = replace(heard, start_s=start, end_s=min(length_s, max(end, TAIL_S)))
        return _silent(player), heard
    heard = replace(heard, start_s=max(0.0, start), end_s=min(length_s, end))
    return (heard, _late(heard)) if start < 0 else (heard,)


def _cut_voice(
    voice: Voiceover | None, seconds: float, length_s: float
) -> tuple[Voiceover | None, ...]:
    if voice is None:
        return (None,)
    start, end = max(0.0, voice.start_s + seconds), min(length_s, voice.end_s + seconds)
    if end - start <= -TAIL_S:
        return (None,)
    heard = replace(voice, start_s=round(start, 2), end_s=round(max(start, end), 2))
    return (heard,) if end - start >= MIN_PLAY_S else (None, heard)


def _late(player: Player) -> Player:
    """The same player, first heard with the next note."""
    assert player.start_s is not None and player.end_s is not None and player.rate_hz is not None
    start = round(min(player.start_s + NOTE / player.rate_hz, player.end_s), 2)
    return replace(player, start_s=start)


def _silent(player: Player) -> Player:
    return replace(player, start_s=None, end_s=None, level_db=None, rate_hz=None)


@functools.lru_cache(maxsize=64)
def dubbed_scene(picture: Scene, sound: Scene) -> Scene:
    """One clip's picture with another one's sound, which then comes from nobody on it."""
    seen = (_silent(player) for player in picture.seen)
    heard = (replace(player, x=None, moves_s=None) for player in sound.heard)
    return replace(
        picture,
        players=(*seen, *heard),
        voiceover=sound.voiceover,
        noise_db=sound.noise_db,
    )


# -- asking a scene --------------------------------------------------------------------------


def answer(readings: Readings, template: str | None, slots: tuple[str, ...]) -> str:
    """The one answer that all readings give. Raises LeftOut where there is none."""
    found = _answer(readings[0], template or "", slots)
    if found is None or any(_answer(r, template or "", slots) != found for r in readings[1:]):
        raise LeftOut(ILL_POSED)
    return found


def _answer(scene: Scene, template: str, slots: tuple[str, ...]) -> str | None:
    """A scene's answer. `candidates` names a few absent instruments only, by `look` and `index`:
    another look, which no answer rests on, makes it name the one that is asked about.
    """
    key = (template, slots)
    if key in answers(scene):
        return answers(scene)[key]
    there = {player.instrument for player in scene.players}
    for value in slots:
        if value in INSTRUMENTS and value not in there:
            other = replace(scene, look=INSTRUMENTS.index(value) - scene.index)
            return answers(other).get(key)
    return None


@functools.lru_cache(maxsize=512)
def answers(scene: Scene) -> Answers:
    """Every well-posed question about a scene with its answer."""
    found: dict[tuple[str, tuple[str, ...]], str] = {}
    disputed = set()
    for template, rows in candidates(scene).items():
        for row in rows:
            if found.setdefault((template, row.slots), row.answer) != row.answer:
                disputed.add((template, row.slots))
    return {key: label for key, label in found.items() if key not in disputed}
