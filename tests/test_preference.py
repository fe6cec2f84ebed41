"""Preference pairs: which answers are rejected, what is never rejected, and going on mining."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avqa_llm.answer import Alternative, Answer, Consumed
from avqa_llm.errors import AnnotationError, AVQAError
from avqa_llm.labels import NO_ANSWER, to_label
from avqa_llm.media import Clip as Media
from avqa_llm.media import Uniform, read_clip
from instruct_data.hedges import DEAF, DEAF_LABELS, HEDGES, fill_hedge
from instruct_data.known_answers import Answers
from instruct_data.mine import MineConfig, mine
from instruct_data.pairs import Pair, read_pairs, write_pairs
from instruct_data.preference import (
    PreferenceError,
    Tally,
    add_commands,
    make_pairs,
    parse_tags,
    say,
)
from instruct_data.records import Clip, Record, Turn, write_records
from instruct_data.sentences import ANSWERS
from instruct_data.templates import SLOT_VALUES, TEMPLATES, fill
from tests.media_files import Picture, Sound, at_rate, make_media

LOUDER = "Is the <Object> louder than the <Object>?"
HEARD = "How many musical instruments were heard throughout the video?"
KIND = "What kind of musical instrument is it?"
PLACE = "Where is the performance?"


def turn(template: str, slots: Sequence[str], label: str, answer: str | None = None) -> Turn:
    return Turn(
        question=fill(template, slots),
        answer=label.replace("_", " ") if answer is None else answer,
        label=label,
        template=template,
        slots=tuple(slots),
        type=" ".join(TEMPLATES[template].type),
    )


def record(name: str, *turns: Turn, kind: str = "question", **clip: Any) -> Record:
    return Record(
        id=f"set/{name}",
        kind=kind,  # type: ignore[arg-type]
        clip=Clip(**{"video": name, **clip}),
        turns=turns,
        source="music-avqa",
        split="train",
        licence="MIT",
        provenance=("rows.json",),
    )


def made(records: Sequence[Record], tag: str, seed: int = 1) -> tuple[list[Pair], Tally]:
    tally = Tally()
    shares = parse_tags(tag)
    pairs = make_pairs(records, Answers.of(records), shares, seed=seed, tally=tally)
    return list(pairs), tally


# -- hedges --------------------------------------------------------------------------------------


def test_there_are_hedges_for_every_kind_of_answers() -> None:
    assert set(HEDGES) == {"any", *(template.answers for template in TEMPLATES.values())}
    texts = {text for bank in HEDGES.values() for text in bank}
    assert len(texts) >= 40
    assert len(DEAF) >= 10


@pytest.mark.parametrize("family", [*ANSWERS, "any"])
def test_no_hedge_is_taken_for_an_answer(family: str) -> None:
    rng = np.random.default_rng(0)
    labels = ANSWERS.get(family, ("yes", "no"))
    for text, (right, other) in itertools.product(
        HEDGES[family], itertools.permutations(labels, 2)
    ):
        said = fill_hedge(text, family, right, other, rng)
        assert "{" not in said and said[0].isupper()
        assert to_label(said) == NO_ANSWER, said


def test_what_is_said_without_hearing_names_no_label_and_fits_the_templates() -> None:
    assert {to_label(text) for text in DEAF} == {NO_ANSWER}
    for template, label in DEAF_LABELS.items():
        assert label in ANSWERS[TEMPLATES[template].answers]


# -- pairs ---------------------------------------------------------------------------------------


@st.composite
def asked(draw: st.DrawFn) -> Turn:
    """Any template with any slots and any of its labels, answered in a word or a sentence."""
    template = draw(st.sampled_from(sorted(TEMPLATES)))
    slots = [draw(st.sampled_from(SLOT_VALUES[name])) for name in TEMPLATES[template].slots]
    label = draw(st.sampled_from(ANSWERS[TEMPLATES[template].answers]))
    plain = turn(template, slots, label)
    if draw(st.booleans()):
        return plain
    return replace(plain, answer=say(plain, label, np.random.default_rng(0)))


@settings(max_examples=100, deadline=None)
@given(st.lists(asked(), min_size=2, max_size=6), st.integers(0, 99))
def test_a_rejected_answer_never_passes_for_the_right_one(turns: list[Turn], seed: int) -> None:
    records = [record(f"v{number}", each) for number, each in enumerate(turns)]
    for tag in ("ambiguous", "wrong", "swapped", "muted"):
        tally = Tally()
        answers = Answers.of(records)
        try:
            pairs = list(make_pairs(records, answers, parse_tags(tag), seed=seed, tally=tally))
        except PreferenceError:
            pairs = []
        assert len(pairs) + sum(tally.none.values()) == len(turns)
        for pair in pairs:
            assert pair.label is not None
            assert to_label(pair.chosen) in (pair.label, NO_ANSWER)
            assert to_label(pair.rejected) != pair.label
            assert pair.chosen.lower() != pair.rejected.lower()
            if tag == "ambiguous":
                assert to_label(pair.rejected) == NO_ANSWER


def test_a_bare_label_is_chosen_as_a_sentence_and_a_sentence_as_it_is() -> None:
    sentence = "I can hear exactly two instruments here."
    pairs, _ = made(
        [record("a", turn(HEARD, (), "two")), record("b", turn(HEARD, (), "two", sentence))],
        "wrong",
    )
    assert len(pairs[0].chosen.split()) > 2 and to_label(pairs[0].chosen) == "two"
    assert pairs[1].chosen == sentence
    for pair in pairs:
        assert len(pair.rejected.split()) > 2, "a wrong answer is as fluent as the right one"
        assert pair.provenance[0] == "rows.json" and "instead of two" in pair.provenance[-1]


def test_wrong_answers_follow_the_set_s_own_distribution() -> None:
    labels = ["two"] * 60 + ["three"] * 30 + ["nine"] * 10
    records = [record(f"v{n}", turn(HEARD, (), label)) for n, label in enumerate(labels)]
    pairs, _ = made(records, "wrong")
    said = [to_label(pair.rejected) for pair in pairs if pair.label == "two"]
    assert set(said) == {"three", "nine"}
    assert said.count("three") > said.count("nine")


def test_a_label_that_cannot_answer_the_template_is_not_drawn() -> None:
    records = [record("a", turn(PLACE, (), "indoor")), record("b", turn(PLACE, (), "piano"))]
    pairs, tally = made(records, "wrong")
    assert [to_label(pair.rejected) for pair in pairs] == ["outdoor"]
    assert tally.none == {("wrong", "the label cannot answer the template"): 1}


def test_swapped_takes_the_answer_of_another_clip_to_the_same_question_only() -> None:
    slots = ("cello", "flute")
    records = [
        record("a", turn(LOUDER, slots, "yes")),
        record("b", turn(LOUDER, slots, "no")),
        record("c", turn(LOUDER, ("flute", "cello"), "no")),
        record("d", turn(HEARD, (), "two")),
        record("d", turn(HEARD, (), "three")),
    ]
    pairs, tally = made(records, "swapped")
    assert [(pair.clip.video, to_label(pair.rejected)) for pair in pairs] == [
        ("a", "no"),
        ("b", "yes"),
    ]
    assert pairs[0].provenance[-1] == "preference, swapped: no holds for b"
    assert tally.turns == 5 and sum(tally.none.values()) == 3
    assert "3 without: the same question has no other answer about another clip" in "\n".join(
        tally.lines()
    )


def test_a_description_is_swapped_with_that_of_another_clip() -> None:
    first, second = (
        record(name, Turn(question="Describe it.", answer=text), kind="caption")
        for name, text in (("a", "A cello plays."), ("b", "Two drums play."))
    )
    pairs, _ = made([first, second], "swapped")
    assert [pair.rejected for pair in pairs] == ["Two drums play.", "A cello plays."]


def test_muted_is_about_sound_that_is_there() -> None:
    records = [
        record("a", turn(HEARD, (), "two")),
        record("b", turn(HEARD, (), "two"), sound=False),
        record("c", turn(KIND, (), "piano")),
    ]
    pairs, tally = made(records, "muted")
    assert [pair.clip.video for pair in pairs] == ["a"]
    assert pairs[0].clip.sound
    assert {why for _, why in tally.none} == {
        "the clip is asked about without its sound",
        "the question is not known to be about sound",
    }


def test_open_answers_can_only_be_hedged() -> None:
    talk = record("a", Turn(question="What do you see?", answer="Two people on a stage."))
    pairs, _ = made([talk], "ambiguous")
    assert pairs[0].chosen == "Two people on a stage."
    assert pairs[0].rejected in HEDGES["any"]
    with pytest.raises(PreferenceError, match="nothing is known to be wrong"):
        made([talk], "wrong")


def test_filled_questions_without_slots_and_choices_of_their_own() -> None:
    """MUSIC-AVQA-R gives no slots, AVQA four choices: the label is exchanged in the answer."""
    choices = ("train", "a dog", "rain", "bell")
    filled = replace(turn(LOUDER, ("cello", "flute"), "yes"), slots=(), template=None)
    picked = Turn(question="What sounds?", answer="It is a bell.", label="bell", choices=choices)
    pairs, _ = made([record("a", filled), record("b", picked)], "wrong")
    assert (pairs[0].chosen, pairs[0].rejected) == ("yes", "no")
    assert pairs[1].rejected in {"It is a train.", "It is a a dog.", "It is a rain."}


def test_a_contradiction_is_counted_and_gives_no_pair() -> None:
    bad = turn(HEARD, (), "two", "There are three of them.")
    _, tally = made([record("a", bad), record("b", turn(HEARD, (), "two"))], "wrong")
    assert tally.none == {("wrong", "the answer says another label than the turn names"): 1}


def test_history_is_what_was_said_before() -> None:
    first, second = turn(HEARD, (), "two"), turn(PLACE, (), "indoor")
    pairs, _ = made([record("a", first, second, kind="dialogue")], "ambiguous")
    assert [(pair.turn, pair.history) for pair in pairs] == [(0, ()), (1, (first,))]


def test_a_pair_does_not_depend_on_the_rest_of_the_set_and_the_seed_changes_it() -> None:
    records = [record(f"v{n}", turn(KIND, (), "piano")) for n in range(20)]
    pairs, _ = made(records, "ambiguous:2,muted:1,wrong:1")
    assert made(records, "ambiguous:2,muted:1,wrong:1")[0] == pairs
    backwards, _ = made(records[::-1], "ambiguous:2,muted:1,wrong:1")
    assert backwards == pairs[::-1]
    assert made(records, "ambiguous:2,muted:1,wrong:1", seed=2)[0] != pairs


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("", "names no tag"),
        ("vague:1", "'vague' is none of ambiguous, wrong, swapped, muted"),
        ("mined:1", "made by the command mine"),
        ("wrong:0", "share above 0"),
        ("wrong:much", "share above 0"),
        ("wrong:inf", "share above 0"),
        ("wrong:1,wrong:2", "once"),
    ],
)
def test_shares_that_make_no_sense_are_named(tags: str, said: str) -> None:
    with pytest.raises(PreferenceError, match=said):
        parse_tags(tags)


# -- commands ------------------------------------------------------------------------------------


def run(*argv: Any) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args([str(arg) for arg in argv])
    return int(args.run(args))


def test_prefer_writes_pairs_that_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "records.jsonl", tmp_path / "pairs.jsonl"
    labels = ("one", "two", "two", "three")
    records = [record(f"v{n}", turn(HEARD, (), label)) for n, label in enumerate(labels)]
    write_records(source, records)
    assert run("prefer", source, "--out", out, "--tags", "wrong,swapped:0.5") == 0
    pairs = list(read_pairs(out))
    assert 0 < len(pairs) <= 4
    assert capsys.readouterr().out.startswith(f"{len(pairs)} pairs of 4 turns")
    again = tmp_path / "again.jsonl"
    assert write_pairs(again, pairs) == len(pairs)
    assert again.read_bytes() == out.read_bytes()
    with pytest.raises(PreferenceError, match="records itself"):
        run("prefer", source, "--out", source)


def test_a_failed_run_leaves_the_old_pairs_and_nothing_else(tmp_path: Path) -> None:
    source, out = tmp_path / "records.jsonl", tmp_path / "pairs.jsonl"
    write_records(source, [record("a", Turn(question="What is it?", answer="A stage."))])
    out.write_text("old")
    with pytest.raises(PreferenceError, match="no pair could be made"):
        run("prefer", source, "--out", out, "--tags", "wrong")
    assert out.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [out, source]


def test_a_line_that_is_no_pair_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"record": "a", "tag": "guess"}) + "\n")
    with pytest.raises(AnnotationError, match=r"pairs.jsonl, line 1: field"):
        list(read_pairs(path))


# -- mining --------------------------------------------------------------------------------------


class Scripted:
    """Reads real files; says "three" with runners-up "two" and "four", or hears nothing."""

    def __init__(self, dies_at: str = "") -> None:
        self.read_: list[str] = []
        self.dies_at = dies_at

    def read(self, path: Path) -> Media:
        if path.stem == self.dies_at:
            raise KeyboardInterrupt
        self.read_.append(path.stem)
        return read_clip(path, sampling=Uniform(frames=1))

    def answer(self, clip: Media, questions: Sequence[str]) -> list[Answer]:
        used = Consumed(
            sound=clip.has_sound, picture=clip.has_picture, sound_tokens=1, picture_tokens=1
        )
        others = tuple(
            Alternative(label=label, probability=p)
            for label, p in (("two", 0.3), ("four", 0.2), ("five", 0.01))
        )
        return [
            Answer(
                answer="three", label="three", probability=0.4, alternatives=others, consumed=used
            )
            for _ in questions
        ]


def load(engine: Scripted) -> Callable[[str], Any]:
    return lambda model: engine


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    picture = Picture(times_s=at_rate(4, 1.0))
    for name in "abc":
        make_media(folder / f"{name}.mp4", picture, Sound(seconds=1.0))
    make_media(folder / "silent.mp4", picture, None)
    (folder / "broken.mp4").write_bytes(b"no film")
    return folder


def mining(tmp_path: Path, media: Path, records: Sequence[Record], **options: Any) -> MineConfig:
    source = tmp_path / "records.jsonl"
    write_records(source, records)
    return MineConfig(records=source, media=media, out=tmp_path / "mined.jsonl", **options)


def test_the_models_wrong_answers_become_pairs(tmp_path: Path, media: Path) -> None:
    records = [
        record("a", turn(HEARD, (), "two")),
        record("b", turn(HEARD, (), "three"), turn(PLACE, (), "indoor")),
        record("c", Turn(question="What is it?", answer="A stage.")),
        record("c", turn(HEARD, (), "two"), mirrored=True),
        record("silent", turn(HEARD, (), "two")),
        record("broken", turn(HEARD, (), "two")),
        record("absent", turn(HEARD, (), "two")),
    ]
    config = mining(tmp_path, media, records, samples=2, threshold=0.1)
    counts = mine(config, load(Scripted()))
    found = [(p.clip.video, p.turn, p.chosen, p.rejected) for p in read_pairs(config.out)]
    assert found == [
        ("a", 0, "two", "three"),
        ("a", 0, "two", "four"),
        ("b", 0, "three", "two"),
        ("b", 0, "three", "four"),
        ("b", 1, "indoor", "three"),
        ("b", 1, "indoor", "two"),
    ]
    assert {p.tag for p in read_pairs(config.out)} == {"mined"}
    assert (counts["asked"], counts["answered right"], counts["pairs"]) == (3, 1, 6)
    assert counts["have no label to judge an answer by"] == 1
    assert counts["are about a clip that is mirrored or reversed"] == 1
    assert counts["did not reach the model with sound and picture"] == 1
    assert counts["have a file that cannot be read"] == 1
    assert counts["have no file"] == 1


def test_a_killed_run_goes_on_and_gives_the_same_file(tmp_path: Path, media: Path) -> None:
    records = [record(name, turn(HEARD, (), "two")) for name in "abc"]
    (tmp_path / "whole").mkdir()
    whole = mining(tmp_path / "whole", media, records)
    mine(whole, load(Scripted()))
    config = mining(tmp_path, media, records)
    with pytest.raises(KeyboardInterrupt):
        mine(config, load(Scripted(dies_at="b")))
    with config.out.open("ab") as file:  # killed between a pair and its state, in mid-line
        file.write(config.out.read_bytes() + b'{"record": "set')
    engine = Scripted()
    counts = mine(config, load(engine))
    assert engine.read_ == ["b", "c"]
    assert config.out.read_bytes() == whole.out.read_bytes()
    assert counts["asked"] == 3

    def never(model: str) -> Any:
        raise AssertionError("nothing is left to ask")

    assert mine(config, never) == counts


def test_neighbouring_records_of_a_clip_read_it_once(tmp_path: Path, media: Path) -> None:
    records = [record("a", turn(HEARD, (), "two")) for _ in range(3)]
    engine = Scripted()
    mine(mining(tmp_path, media, records), load(engine))
    assert engine.read_ == ["a"]


def test_a_mute_record_is_asked_without_sound(tmp_path: Path, media: Path) -> None:
    config = mining(tmp_path, media, [record("a", turn(HEARD, (), "two"), sound=False)])
    assert mine(config, load(Scripted()))["asked"] == 1


def test_mistakes_of_a_mining_run_are_named(tmp_path: Path, media: Path) -> None:
    records = [record("a", turn(HEARD, (), "two"))]
    config = mining(tmp_path, media, records)
    config.out.write_text("something")
    with pytest.raises(PreferenceError, match="holds something else"):
        mine(config, load(Scripted()))
    config.out.unlink()
    mine(config, load(Scripted()))
    with pytest.raises(PreferenceError, match="samples 1, and this run has 2"):
        mine(replace(config, samples=2), load(Scripted()))
    config.out.write_text("")
    with pytest.raises(PreferenceError, match="has lost pairs"):
        mine(config, load(Scripted()))
    with pytest.raises(PreferenceError, match="no folder"):
        mining(tmp_path, tmp_path / "nowhere", records)
    with pytest.raises(PreferenceError, match="probability from 0 to 1"):
        mining(tmp_path, media, records, threshold=2.0)
    (tmp_path / "other").mkdir()
    with pytest.raises(PreferenceError, match="1 have no file"):
        mine(mining(tmp_path / "other", media, [record("x", *records[0].turns)]), load(Scripted()))


def test_an_unknown_model_is_named(tmp_path: Path, media: Path) -> None:
    config = mining(tmp_path, media, [record("a", turn(HEARD, (), "two"))])
    with pytest.raises(AVQAError, match="no-such-model"):
        run("mine", config.records, "--media", media, "--model", "no-such-model", "--out",
            config.out)  # fmt: skip


@pytest.mark.slow
def test_a_real_engine_can_be_mined(tmp_path: Path, media: Path) -> None:
    from avqa_llm.engine import LocalEngine
    from tests.model_parts import small_model

    engine = LocalEngine(small_model())  # random weights: wrong at least once of two labels
    asked = [record("a", turn(HEARD, (), label)) for label in ("nine", "ten")]
    config = mining(tmp_path, media, asked, samples=4, threshold=0.0)
    counts = mine(config, lambda model: engine)
    pairs = list(read_pairs(config.out))
    assert counts["asked"] == 2 and len(pairs) == counts["pairs"] >= 6
    assert all(pair.label != to_label(pair.rejected) != NO_ANSWER for pair in pairs)
    assert {pair.chosen for pair in pairs} == {"nine", "ten"}
