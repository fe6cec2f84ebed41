"""What is right after a change, proved on scenes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from avqa_llm.media import Clip
from eval.benchmarks.base import Question
from eval.probes import PROBES, Case, Changed, Chunk, truth, words
from eval.probes.media import LeftOut
from instruct_data.augment import AUGMENTATIONS, UnsafeAugmentation
from instruct_data.bandstand.questions import NUMBERS, candidates
from instruct_data.bandstand.scene import Player, Scene, sample_scene
from instruct_data.bandstand.sound import render_sound
from instruct_data.records import Clip as RecordClip
from instruct_data.records import Record, Turn
from instruct_data.sentences import spoken
from instruct_data.templates import TEMPLATES, fill
from instruct_data.wordings import WORDINGS, fill_wording
from tests.test_augment import mirror_scene, reverse_scene

CHUNK = 6
SCENES = 300
HEARD = "How many musical instruments were heard throughout the video?"
LOUDEST = "Where is the <LL> instrument?"
COMES_IN = "What is the <TH> instrument that comes in?"
FIRST = "Where is the <FL> sounding instrument?"
SILENT = "How many instruments in the video did not sound from beginning to end?"
VOICE = "Is there a voiceover?"
LOUDER = "Is the <Object> louder than the <Object>?"
EXACT = [name for name, probe in PROBES.items() if probe.from_scene]
QUALITY = [n for n, p in PROBES.items() if p.family == "quality" and n != "missing-modality"]
SHIFTS = {"shift+1": 1, "shift-1": -1, "shift+3": 3, "shift-3": -3}


def small_clip(name: str, seconds: float = 10.0) -> Clip:
    """A clip that costs nothing to change: the truth does not look at it."""
    return Clip(
        path=name,
        sha256=name,
        duration_s=seconds,
        frames_THWC=np.full((2, 2, 2, 3), 9, np.uint8),
        frame_times_s=np.array([0.5, 0.7]),
        sound_CS=np.full((2, round(10 * seconds)), 0.1, np.float32),
        sound_rate_hz=10,
        sound_span_s=(0.0, seconds),
        picture_span_s=(0.0, seconds),
    )


def question_of(scene: Scene, template: str, number: int, rng: np.random.Generator) -> Question:
    """A question about a scene: half of them reworded, some in words that training never sees."""
    found = candidates(scene)[template]
    one = found[int(rng.integers(len(found)))]
    text = fill(template, one.slots)
    if rng.random() < 0.5:
        text = fill_wording(str(rng.choice(WORDINGS[template])), list(map(spoken, one.slots)))
    return Question(
        number=number,
        video_id=scene.video_id,
        question_id=number,
        type=" ".join(TEMPLATES[template].type),
        question=text,
        gold=one.answer,
        template=template,
        slots=one.slots,
    )


def chunk_of(*scenes: Scene, first: int = 1) -> Chunk:
    rng = np.random.default_rng(first)
    rows: list[tuple[Question, ...]] = []
    for scene in scenes:
        asked = [
            question_of(scene, template, first + n, rng)
            for n, template in enumerate(candidates(scene))
        ]
        first += len(asked)
        rows.append(tuple(asked))
    clips = tuple(small_clip(scene.video_id, scene.seconds) for scene in scenes)
    return Chunk(clips=clips, questions=tuple(rows), scenes=scenes)


@pytest.fixture(scope="module")
def chunks() -> list[Chunk]:
    scenes = [sample_scene(23, index) for index in range(SCENES)]
    return [
        chunk_of(*scenes[start : start + CHUNK], first=1 + 100 * start)
        for start in range(0, SCENES, CHUNK)
    ]


Row = tuple[Question, Scene, Scene, Case]


@pytest.fixture(scope="module")
def changed(chunks: list[Chunk]) -> dict[str, list[Changed]]:
    names = [name for name in PROBES if name not in QUALITY]
    return {name: [PROBES[name].change(chunk) for chunk in chunks] for name in names}


def rows(chunks: list[Chunk], changed: list[Changed]) -> Iterator[Row]:
    """Each question that was asked, the scene of its clip, that of the next one, and its case."""
    for chunk, after in zip(chunks, changed, strict=True):
        cases = {case.row: case for case in after.cases}
        for n, questions in enumerate(chunk.questions):
            other = chunk.scenes[(n + 1) % len(chunk.scenes)]
            for question in questions:
                scene = chunk.scenes[n]
                if question.number in cases:
                    assert scene is not None and other is not None
                    yield question, scene, other, cases[question.number]


# -- scenes: what has to hold ----------------------------------------------------------------


def augmented(question: Question, name: str) -> Turn:
    turn = Turn(
        question=question.question,
        answer=spoken(question.gold),
        label=question.gold,
        template=question.template,
        slots=question.slots,
    )
    record = Record(
        id=str(question.number),
        kind="question",
        clip=RecordClip(video=question.video_id),
        turns=(turn,),
        source="bandstand",
        split="test",
        licence="none",
        provenance=("a test",),
    )
    return AUGMENTATIONS[name](record).turns[0]


def test_mirrored_scenes_answer_what_augmentation_says(
    chunks: list[Chunk], changed: dict[str, list[Changed]]
) -> None:
    asked = 0
    for question, _, _, case in rows(chunks, changed["mirror"]):
        after = augmented(question, "mirror")
        assert (case.expected, case.question) == (after.label, after.question)
        asked += 1
    assert asked == sum(len(row) for chunk in chunks for row in chunk.questions)
    assert not any(after.left_out for after in changed["mirror"])


def test_swapped_comparisons_flip(chunks: list[Chunk], changed: dict[str, list[Changed]]) -> None:
    asked: Counter[str] = Counter()
    for question, _, _, case in rows(chunks, changed["swap"]):
        after = augmented(question, "swap")
        assert (case.expected, case.question) == (after.label, after.question)
        assert {case.expected, question.gold} == {"yes", "no"}
        asked[question.template or ""] += 1
    assert set(asked) == {t for t, shape in TEMPLATES.items() if shape.kind == "Comparative"}


def test_backwards_everything_stays_but_order(
    chunks: list[Chunk], changed: dict[str, list[Changed]]
) -> None:
    kept: Counter[str] = Counter()
    turned: Counter[str] = Counter()
    for question, _, _, case in rows(chunks, changed["reverse"]):
        try:
            after = augmented(question, "reverse")
        except UnsafeAugmentation:
            turned[question.template or ""] += 1
            continue
        assert (case.expected, case.question) == (after.label, after.question)
        kept[question.template or ""] += 1
    total = Counter(q.template or "" for chunk in chunks for row in chunk.questions for q in row)
    assert all(kept[template] == total[template] for template in kept)
    # The six about order are asked only where the stops lie well apart.
    assert len(kept) == 27 and len(turned) == 6
    assert all(0 < turned[template] < total[template] for template in turned)


def test_what_rests_on_what_is_left_stays(
    chunks: list[Chunk], changed: dict[str, list[Changed]]
) -> None:
    stays = {
        "mute": {"Visual"},
        "blank": {"Audio"},
        "question-only": set(),
        "missing-modality": {"Visual", "Audio"},
        "sound-swapped": {"Visual"},
        "picture-swapped": {"Audio"},
        **dict.fromkeys(SHIFTS, {"Visual"}),
    }
    for name, kept in stays.items():
        seen: Counter[tuple[str, bool]] = Counter()
        for question, _, _, case in rows(chunks, changed[name]):
            if question.scene in kept:
                assert case.expected == question.gold, name
            elif not PROBES[name].from_scene:
                assert case.expected is None
            if PROBES[name].from_scene:
                assert case.expected is not None
            assert case.question == question.question
            seen[question.scene, case.expected is None] += 1
        assert seen, name
    assert changed["missing-modality"][0].left_out == Counter(
        {"it needs both sound and picture": _count(chunks[0], "Audio-Visual")}
    )


def _count(chunk: Chunk, scene: str) -> int:
    return sum(question.scene == scene for row in chunk.questions for question in row)


def test_bad_quality_changes_no_answer(chunks: list[Chunk]) -> None:
    assert len(QUALITY) == 9
    whole = chunks[0]
    few = Chunk(clips=whole.clips[:1], questions=whole.questions[:1], scenes=whole.scenes[:1])
    for name in QUALITY:
        asked = list(rows([few], [PROBES[name].change(few)]))
        assert len(asked) == len(few.questions[0])
        for question, _, _, case in asked:
            assert (case.expected, case.question) == (question.gold, question.question)


def test_small_shifts_leave_nearly_everything(
    chunks: list[Chunk], changed: dict[str, list[Changed]]
) -> None:
    """Order, loudness and rhythm live through a shift; only what is cut off makes a difference."""
    for name, by in SHIFTS.items():
        outcome: Counter[bool] = Counter()
        for question, scene, _, case in rows(chunks, changed[name]):
            uncut = all(
                0 <= p.start_s + by and p.end_s + by <= scene.seconds
                for p in scene.heard
                if p.start_s is not None and p.end_s is not None
            )
            if uncut and question.template != VOICE:
                assert case.expected == question.gold
            outcome[case.expected == question.gold] += 1
        assert outcome[True] > 1000
        assert (outcome[False] > 10) == (abs(by) == 3)


# -- scenes: the answers by other ways -------------------------------------------------------


def spans(scene: Scene, by: float) -> dict[int, tuple[float, float]]:
    """Of each sounding player, what is left of its time after a shift."""
    found = {}
    for n, player in enumerate(scene.players):
        if player.start_s is not None and player.end_s is not None:
            found[n] = (max(0.0, player.start_s + by), min(scene.seconds, player.end_s + by))
    return found


def test_how_many_are_heard_by_counting(
    chunks: list[Chunk], changed: dict[str, list[Changed]]
) -> None:
    checked: Counter[str] = Counter()
    for name in EXACT:
        for question, scene, other, case in rows(chunks, changed[name]):
            if question.template != HEARD:
                continue
            heard = [p for p in scene.players if p.start_s is not None]
            count = len(heard)
            if name in SHIFTS:
                count = sum(end - start > 1.0 for start, end in spans(scene, SHIFTS[name]).values())
            if name == "sound-swapped":
                count = len([p for p in other.players if p.start_s is not None])
            assert case.expected == NUMBERS[count], name
            checked[name] += 1
    assert set(checked) == set(EXACT) - {"swap"} and min(checked.values()) > 100


def test_where_the_loudest_stands_by_looking_for_it(
    chunks: list[Chunk], changed: dict[str, list[Changed]]
) -> None:
    checked: Counter[str] = Counter()
    for name in EXACT:
        for question, scene, _, case in rows(chunks, changed[name]):
            if question.template != LOUDEST:
                continue
            heard = [p for p in scene.players if p.level_db is not None]
            if name in SHIFTS:
                left = spans(scene, SHIFTS[name])
                heard = [scene.players[n] for n, (start, end) in left.items() if end - start > 1.0]
            pick = max if question.slots == ("loudest",) else min
            x = pick(heard, key=lambda player: player.level_db or 0.0).x
            assert x is not None
            x = 1 - x if name == "mirror" else x
            assert case.expected == ("left" if x < 0.42 else "right" if x > 0.58 else "middle")
            checked[name] += 1
    # Another clip's sound comes from nobody on the picture: nobody there is the loudest.
    assert set(checked) == {"mirror", "reverse", *SHIFTS} and min(checked.values()) > 50


def test_who_comes_first_by_sorting(chunks: list[Chunk], changed: dict[str, list[Changed]]) -> None:
    checked: Counter[str] = Counter()
    place = {word: n for n, word in enumerate(("first", "second", "third", "fourth", "fifth"))}
    for name in EXACT:
        for question, scene, other, case in rows(chunks, changed[name]):
            if question.template != COMES_IN:
                continue
            players: list[tuple[float, Player]] = []
            sounding = other if name == "sound-swapped" else scene
            by = SHIFTS.get(name, 0)
            for n, (start, end) in spans(sounding, by).items():
                if end - start > 1.0:
                    first = sounding.seconds - end if name == "reverse" else start
                    players.append((first, sounding.players[n]))
            order = sorted(players, key=lambda pair: pair[0])
            assert case.expected == order[place[question.slots[0]]][1].instrument, name
            checked[name] += 1
    assert set(checked) == {"mirror", "reverse", "sound-swapped", "picture-swapped", *SHIFTS}
    assert min(checked.values()) > 5


def test_first_and_last_by_sorting_the_stops(
    chunks: list[Chunk], changed: dict[str, list[Changed]]
) -> None:
    """Backwards, who stops last starts first, and the question has first and last exchanged."""
    checked: Counter[str] = Counter()
    for question, scene, _, case in rows(chunks, changed["reverse"]):
        if question.template != FIRST:
            continue
        (word,) = question.slots
        stops = sorted(scene.heard, key=lambda player: player.end_s or 0.0)
        player = stops[-1] if words.EXCHANGED[word] == "first" else stops[0]
        assert case.expected == player.side
        assert words.EXCHANGED[word] in case.question and word not in case.question
        checked[word] += 1
    assert set(checked) == {"first", "last"}


def test_the_silent_and_the_narrator_of_a_dubbed_clip(
    chunks: list[Chunk], changed: dict[str, list[Changed]]
) -> None:
    checked: Counter[str] = Counter()
    for name in ("sound-swapped", "picture-swapped"):
        for question, scene, other, case in rows(chunks, changed[name]):
            seen, heard = (scene, other) if name == "sound-swapped" else (other, scene)
            if question.template == VOICE:
                assert case.expected == ("no" if heard.voiceover is None else "yes")
            elif question.scene == "Audio-Visual":
                both = {p.instrument for p in seen.seen} & {p.instrument for p in heard.heard}
                assert not both
                if question.template == SILENT:
                    assert case.expected == NUMBERS[len(seen.seen)]
            checked[question.template or ""] += 1
    assert checked[VOICE] == 2 * SCENES and checked[SILENT] > 30


def test_the_scenes_are_changed_as_by_other_hands() -> None:
    for index in range(100):
        scene = sample_scene(29, index)
        assert truth.mirrored_scene(scene) == mirror_scene(scene)
        assert truth.reversed_scene(scene) == reverse_scene(scene)
        assert truth.mirrored_scene(truth.mirrored_scene(scene)) == scene
        assert truth.reversed_scene(truth.reversed_scene(scene)) == scene


# -- scenes: what could be disputed ----------------------------------------------------------


def simple(*players: tuple[str, float, float, float]) -> Scene:
    """A scene of ten seconds with (instrument, x, start, end) at different levels, no narrator."""
    made = tuple(
        Player(
            instrument=kind,
            x=x,
            pan=0.0,
            start_s=start,
            end_s=end,
            level_db=-30.0 + 5 * n,
            rate_hz=2.0,
            moves_s=(start, end),
        )
        for n, (kind, x, start, end) in enumerate(players)
    )
    return replace(sample_scene(0), players=made, voiceover=None)


def expected(scene: Scene, judge: truth.Judge, template: str, *slots: str) -> str | None:
    """The answer after a change, or None where the question is left out."""
    question = Question(
        number=1,
        video_id="v",
        question_id=1,
        type=" ".join(TEMPLATES[template].type),
        question=fill(template, slots),
        gold="yes",
        template=template,
        slots=slots,
    )
    try:
        return judge(question, scene, None).expected
    except LeftOut:
        return None


def test_a_rest_of_a_sound_counts_for_nothing_that_it_could_change() -> None:
    # The flute has 2.5, 1.5, 0.1 or no seconds left after three seconds' shift.
    for end, count in ((5.5, "two"), (4.5, None), (3.1, None), (2.95, None), (2.8, "one")):
        scene = simple(("flute", 0.3, 0.0, end), ("violin", 0.7, 3.0, 10.0))
        assert expected(scene, truth.shifted(-3), HEARD) == count, end
    for start, count in ((4.0, "two"), (5.5, None), (7.05, None), (7.2, "one")):
        scene = simple(("flute", 0.3, start, 10.0), ("violin", 0.7, 0.0, 7.0))
        assert expected(scene, truth.shifted(3), HEARD) == count, start
    scene = simple(("flute", 0.3, 0.0, 4.5), ("violin", 0.7, 3.0, 10.0))
    assert expected(scene, truth.shifted(-3), LOUDER, "violin", "flute") is None
    # Whether it counts or not, nobody hears a drum.
    assert expected(scene, truth.shifted(-3), "Is there a <Object> sound?", "drum") == "no"


def test_a_start_that_was_cut_off_is_first_only_where_it_is_so_with_its_next_note_too() -> None:
    scene = simple(("flute", 0.3, 0.0, 8.0), ("violin", 0.7, 4.5, 10.0))
    assert expected(scene, truth.shifted(-3), COMES_IN, "first") is None
    scene = simple(("flute", 0.3, 0.0, 8.0), ("violin", 0.7, 5.0, 10.0))
    assert expected(scene, truth.shifted(-3), COMES_IN, "first") == "flute"


def test_a_player_who_is_seen_to_play_on_without_sound_is_not_asked_about() -> None:
    always = "Is the <Object> in the video always playing?"
    full = simple(("flute", 0.3, 0.0, 10.0), ("violin", 0.7, 3.0, 7.0))
    assert expected(full, truth.shifted(3), always, "flute") is None
    part = Question(
        number=1,
        video_id="v",
        question_id=1,
        type="Audio-Visual Existential",
        question=fill(always, ["violin"]),
        gold="no",
        template=always,
        slots=("violin",),
    )
    assert truth.shifted(3)(part, full, None).expected == "no"


def test_players_are_heard_until_a_note_before_their_end_at_least() -> None:
    """What the readings of a scene played backwards rest on, measured in rendered sound."""
    rate_hz, checked = 16000, 0
    for index in range(40):
        scene = replace(sample_scene(31, index), noise_db=-120.0, voiceover=None)
        if len(scene.heard) != 1:
            continue
        (player,) = scene.heard
        assert player.end_s is not None and player.rate_hz is not None
        sound = render_sound(scene, rate_hz=rate_hz)[:, : round(scene.seconds * rate_hz)]
        power = np.square(sound).sum(axis=0).reshape(-1, rate_hz // 50).mean(axis=1)
        last_s = (np.nonzero(power > power.max() / 100)[0][-1] + 1) / 50
        assert player.end_s - truth.NOTE / player.rate_hz < last_s < player.end_s + truth.TAIL_S
        checked += 1
    assert checked >= 5
