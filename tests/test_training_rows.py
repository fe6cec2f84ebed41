"""What training reads: files of the real builders, pairs, media, and what becomes of rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avqa_llm.errors import AnnotationError, MediaError
from avqa_llm.labels import LABELS
from avqa_llm.media.changes import Cut
from avqa_llm.prompt import Prompt, Turn
from avqa_llm.training.find import find_media
from avqa_llm.training.pairs import read_pairs
from avqa_llm.training.records import DESCRIBE
from avqa_llm.training.rows import ClipRow, Question, question_blocks, read_rows
from avqa_llm.training.summary import summary
from instruct_data.bandstand.write import SetConfig, write_set
from instruct_data.exports import export
from instruct_data.pairs import Pair, write_pairs
from instruct_data.records import Clip, Record, write_records
from instruct_data.records import Turn as Said
from tests.model_parts import small_tokenizer
from tests.row_files import OWN, refused, talk, written

LOUD = Said(
    question="Is the flute louder than the cello?",
    answer="Yes, it is.",
    label="yes",
    template="Is the <Object> louder than the <Object>?",
    slots=("flute", "cello"),
    type="Audio Comparative",
)
WHERE = Said(question="Where is it?", answer="indoor", choices=("indoor", "outdoor"))


def record(
    name: str, *turns: Said, kind: str = "question", split: str = "train", **clip: Any
) -> Record:
    return Record(
        id=f"{name}/{len(turns)}",
        kind=kind,  # type: ignore[arg-type]
        clip=Clip(**{"video": name, **clip}),
        turns=turns,
        source="music-avqa",
        split=split,
        licence="MIT",
        provenance=("rows.json",),
    )


def pair(**changes: Any) -> Pair:
    values: dict[str, Any] = {
        "record": "r1",
        "clip": Clip(video="00000093"),
        "question": "How many?",
        "chosen": "There are two.",
        "rejected": "A few.",
        "tag": "ambiguous",
        "label": "two",
        "source": "music-avqa",
        "split": "train",
        "licence": "MIT",
        "provenance": ("a",),
    }
    return Pair(**{**values, **changes})


# -- files of the builders -----------------------------------------------------------------------


def test_bandstand_s_rows_are_read_whole(tmp_path: Path) -> None:
    write_set(tmp_path, SetConfig(clips=12, seed=3))
    path = tmp_path / "instruct.jsonl"
    raw = [json.loads(line) for line in path.read_text().splitlines()]
    rows = read_rows(path)
    assert len(rows) == 12
    for row, given_ in zip(rows, raw, strict=True):
        assert (row.video_id, row.record) == (given_["video_id"], given_["record"])
        assert row.record_without_sound == given_["record_without_sound"]
        assert row.record_without_picture == given_["record_without_picture"]
        assert row.media == row.video_id and row.cut.is_whole and not row.written
        assert [e.name for e in row.events] == [e["name"] for e in given_["events"]]
        for question, asked in zip(row.questions, given_["questions"], strict=True):
            for name in ("question", "steps", "answer", "template"):
                assert getattr(question, name) == asked[name]
            assert list(question.evidence) == asked["evidence"]
            assert question.label == asked["answer"] and question.label in LABELS
    raw[4]["questions"][0]["anser"] = raw[4]["questions"][0].pop("answer")
    bad = written(tmp_path, "\n".join(map(json.dumps, raw)), "bad.jsonl")
    refused(bad, "line 5", "questions.0.anser", "did you mean 'answer'")
    refused(written(tmp_path, [raw[0], raw[0]], "twice.json"), "video_id", "line 1 too")


def test_records_of_one_clip_and_cut_become_one_row(tmp_path: Path) -> None:
    cut = {"start_s": 1.0, "end_s": 3.0, "mirrored": True, "reversed": True}
    records = [
        record("v1", LOUD),
        record("v1", WHERE, **cut),
        record("v2", LOUD, picture=False),
        record("v1", WHERE, LOUD, kind="dialogue"),
        record("v2", Said(question="", answer="A flute plays."), kind="caption"),
        record("v2", WHERE, sound=False),
    ]
    write_records(tmp_path / "records.jsonl", records)
    rows = read_rows(tmp_path / "records.jsonl")
    assert [(row.media, row.cut) for row in rows] == [
        ("v1", Cut()),
        ("v1", Cut(**cut)),
        ("v2", Cut(picture=False)),
        ("v2", Cut()),
        ("v2", Cut(sound=False)),
    ]
    assert all(
        (r.record, r.record_without_sound, r.record_without_picture) == ("",) * 3 for r in rows
    )
    first, second, third = rows[0].questions
    assert (first.question, first.answer, first.label) == (LOUD.question, LOUD.answer, "yes")
    assert (first.type, first.template) == (LOUD.type, LOUD.template) and not first.history
    assert second.choices == WHERE.choices and second.label is None and not second.history
    assert third.history == (Turn(question=WHERE.question, answer=WHERE.answer),)
    (caption,) = rows[3].questions
    assert (caption.question, caption.answer, caption.type) == (
        DESCRIBE,
        "A flute plays.",
        "caption",
    )


def test_a_test_split_is_not_trained_on_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [record("v1", LOUD), record("v2", WHERE, split="test")])
    refused(path, "'train' (1 questions)", "'test' (1 questions)")
    assert [row.media for row in read_rows(path, splits=("train",))] == ["v1"]
    assert len(read_rows(path, splits=("train", "test"))) == 2
    with pytest.raises(AnnotationError, match="no row of the split 'val'"):
        read_rows(path, splits=("val",))


def test_a_wrong_record_names_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [record("v1", LOUD), record("v2", LOUD)])
    lines = path.read_text().splitlines()
    for change, said in {
        '"kind":"guess"': "field 'kind'",
        '"clip":{"video":"v2","start":1}': "'clip.start': is not known; did you mean 'start_s'?",
        '"clip":{"video":"v2","start_s":"1"}': "field 'clip.start_s': input should be a valid",
        '"clip":{"video":"v2","start_s":3,"end_s":2}': "field 'clip': a part from 3 s to 2 s",
        '"turns":[]': "field 'turns': is empty",
        '"turns":[{"question":"Where?","answer":" "}]': "field 'turns.0.answer'",
    }.items():
        value = json.loads(lines[1]) | json.loads(f"{{{change}}}")
        refused(written(tmp_path, f"{lines[0]}\n{json.dumps(value)}"), "line 2", said)
    refused(written(tmp_path, f"{lines[0]}\n{json.dumps(OWN)}"), "line 2", "rows of one's own")


def test_exports_of_records_are_read_again(tmp_path: Path) -> None:
    """What other trainers are given says the same: AVinstruct, LLaMA-Factory, ms-swift, TRL."""
    records = [record("v1", WHERE, LOUD, kind="dialogue"), record("v2", LOUD)]
    write_records(tmp_path / "records.jsonl", records)
    wanted = read_rows(tmp_path / "records.jsonl")
    for to, suffix in (("avinstruct", "json"), ("llama-factory", "jsonl"), ("trl", "jsonl")):
        out = tmp_path / f"{to}.{suffix}"
        export(tmp_path / "records.jsonl", to, out)
        for row, other in zip(read_rows(out), wanted, strict=True):
            assert Path(row.media).stem == other.media and row.cut == other.cut
            for question, same in zip(row.questions, other.questions, strict=True):
                assert (question.question, question.answer) == (same.question, same.answer)
                assert question.history == same.history


def test_avinstruct_without_an_audio_file_is_not_heard(tmp_path: Path) -> None:
    write_records(
        tmp_path / "r.jsonl", [record("v1", LOUD, sound=False), record("v2", LOUD, picture=False)]
    )
    export(tmp_path / "r.jsonl", "avinstruct", tmp_path / "a.json")
    seen, heard = read_rows(tmp_path / "a.json")
    assert seen.cut == Cut(sound=False) and heard.cut == Cut(picture=False)
    features: dict[str, Any] = {"video_id": "v1", "video": "v1.npy", "audio": "v1_a.npy"}
    features |= {"multi_choice": "", "correct_answer": ""}
    features["conversations"] = talk("<Q>Who?<Q>\n<video>", "Nobody.")
    (row,) = read_rows(written(tmp_path, [features]))
    assert (row.media, row.cut, row.questions[0].question) == ("v1", Cut(), "Who?")


# -- media -----------------------------------------------------------------------------------------


def about(*names: str) -> list[ClipRow]:
    empty = {"record": "", "record_without_sound": "", "record_without_picture": ""}
    return [ClipRow(video_id=name, questions=(), **empty) for name in names]


def test_media_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    for name in ("a.mp4", "one/v1.mkv", "one/take.2.mp4", "two/deep/v3.WAV", "two/a.mp4", "v1.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    names = ["a.mp4", "v1", "take.2", "v3", "one/v1", "deep/v3.WAV", "two/a.mp4", "v1", "./a.mp4"]
    found = [path.relative_to(tmp_path).as_posix() for path in find_media(about(*names), tmp_path)]
    assert found == ["a.mp4", "one/v1.mkv", "one/take.2.mp4", "two/deep/v3.WAV", "one/v1.mkv",
                     "two/deep/v3.WAV", "two/a.mp4", "one/v1.mkv", "a.mp4"]  # fmt: skip
    assert find_media(about("a"), tmp_path)[0].name == "a.mp4", "both files are the same"
    named = replace(about("v1")[0], media="a.mp4")
    assert find_media([named], tmp_path) == [tmp_path / "a.mp4"]


def test_two_files_of_one_name_that_differ_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.wav").write_bytes(b"y")
    with pytest.raises(MediaError, match="which differ: write the path of the right one"):
        find_media(about("a"), tmp_path)
    assert find_media(about("a.wav"), tmp_path) == [tmp_path / "a.wav"]


def test_missing_media_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    (tmp_path / "v3.mp4").write_bytes(b"x")
    names = [f"v{n}" for n in range(8)]
    with pytest.raises(MediaError, match=r"7 of 8 media files .*: v0, v1, v2, v4, v5, \.\.\."):
        find_media(about(*names, "v1"), tmp_path)
    with pytest.raises(MediaError, match="is no folder"):
        find_media(about("a"), tmp_path / "none")
    with pytest.raises(MediaError, match="1 of 1"):
        find_media(about("long" * 200), tmp_path)


def test_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.mp4", tmp_path / "media"
    outside.write_bytes(b"x")
    folder.mkdir()
    (folder / "link.mp4").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    (folder / "real.mp4").write_bytes(b"x")
    (folder / "inner.mp4").symlink_to(folder / "real.mp4")
    for name in ("../outside.mp4", str(outside), "C:\\outside.mp4", "link.mp4", "link", "a\\b.mp4",
                 "up/outside.mp4", "x/../../outside.mp4", " ", "a\0"):  # fmt: skip
        with pytest.raises(MediaError):
            find_media(about(name), folder)
    assert find_media(about("inner"), folder) == [folder / "inner.mp4"]


# -- pairs -----------------------------------------------------------------------------------------


def test_pairs_of_the_builder_are_read(tmp_path: Path) -> None:
    clip = Clip(video="00000093", start_s=1.0, end_s=4.0, picture=False)
    write_pairs(
        tmp_path / "p.jsonl", [pair(), pair(clip=clip, history=(WHERE,), tag="wrong", turn=1)]
    )
    first, second = read_pairs(tmp_path / "p.jsonl")
    assert (first.media, first.cut, first.question) == ("00000093", Cut(), "How many?")
    assert (first.chosen, first.rejected) == ("There are two.", "A few.")
    assert (first.tag, first.label, first.history) == ("ambiguous", "two", ())
    assert second.cut == Cut(start_s=1.0, end_s=4.0, picture=False) == second.row.cut
    assert second.history == (Turn(question=WHERE.question, answer=WHERE.answer),)
    with pytest.raises(AnnotationError, match="preference pairs"):
        read_rows(tmp_path / "p.jsonl")


def test_pairs_of_avinstruct_are_read_in_either_order(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.jsonl", [pair(history=(WHERE,), clip=Clip(video="v1", sound=False))])
    export(tmp_path / "p.jsonl", "avinstruct", tmp_path / "p.json")
    (wanted,) = read_pairs(tmp_path / "p.json")
    assert (wanted.chosen, wanted.rejected, wanted.tag) == ("There are two.", "A few.", "ambiguous")
    assert wanted.question == "How many?" and wanted.cut == Cut(sound=False)
    assert wanted.history == (Turn(question=WHERE.question, answer=WHERE.answer),)
    (raw,) = json.loads((tmp_path / "p.json").read_text())
    one, other = raw["conversations1"], raw["conversations2"]
    turned = raw | {"conversations1": other, "conversations2": one}
    assert read_pairs(written(tmp_path, [turned])) == [wanted]
    for change, said in (
        ({"rejected": "Something else."}, "are not the last answers"),
        ({"conversations2": [*talk("a", "b"), *other[2:]]}, "asks something else"),
    ):
        with pytest.raises(AnnotationError, match=said):
            read_pairs(written(tmp_path, [raw | change]))


def test_pairs_of_one_s_own_are_read_and_checked(tmp_path: Path) -> None:
    own = {"video": "a.mp4", "question": "How many?", "chosen": "two", "rejected": "some"}
    (row,) = read_pairs(written(tmp_path, [own | {"start": 2, "tag": "ambiguous"}]))
    assert (row.media, row.cut, row.tag) == ("a.mp4", Cut(start_s=2.0), "ambiguous")
    assert read_pairs(
        written(tmp_path, "video,question,chosen,rejected\na.mp4,How many?,two,some\n")
    )
    for change, said in (
        ({"rejected": "Two"}, "line 1, field 'rejected': is what was chosen"),
        ({"rejected": ""}, "field 'rejected': is missing or empty"),
        ({"choosen": "x"}, "did you mean 'chosen'"),
    ):
        with pytest.raises(AnnotationError, match=said):
            read_pairs(written(tmp_path, [own | change]))
    with pytest.raises(AnnotationError, match="this is no file of pairs"):
        read_pairs(written(tmp_path, [OWN]))
    write_records(tmp_path / "r.jsonl", [record("v1", LOUD)])
    with pytest.raises(AnnotationError, match="python -m instruct_data prefer"):
        read_pairs(tmp_path / "r.jsonl")


# -- the rows in use -------------------------------------------------------------------------------


def test_a_real_history_stands_in_front_and_no_random_one() -> None:
    prompt, rng = Prompt(small_tokenizer()), np.random.default_rng(0)
    turns = (Turn(question="Where is it?", answer="indoor"), Turn(question="Who?", answer="piano"))
    talked = Question(question="How many?", steps="", answer="two", history=turns)
    plain = [Question(question=f"Is it {n}?", steps="", answer="no") for n in range(4)]
    for _ in range(20):
        blocks, last = question_blocks(
            prompt, [*plain, talked], n_clues=1, pair=1.0, drop=0.0, rng=rng
        )
        block = blocks[last.index(talked)]
        given_ = prompt.history(turns) + prompt.question("How many?", 1, again=True)
        assert block.ids == given_ + prompt.answer("", "two")
        assert block.learn == [False] * len(given_) + [True] * len(prompt.answer("", "two"))
        assert len(blocks) == 3, "the others are paired among themselves"
    blocks, last = question_blocks(
        prompt, [talked, plain[0]], n_clues=1, pair=1.0, drop=0.0, rng=rng
    )
    assert len(blocks) == 2 and blocks[0].ids[: len(prompt.clues)] == prompt.clues


def test_questions_without_history_are_drawn_as_they_always_were() -> None:
    prompt = Prompt(small_tokenizer())
    plain = [Question(question=f"Is it {n}?", steps="", answer="no") for n in range(6)]
    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    _, last = question_blocks(prompt, plain, n_clues=0, pair=0.5, drop=0.0, rng=rng)
    waiting, wanted = list(plain), []
    while waiting:
        wanted.append(waiting.pop())
        if waiting and same.random() < 0.5:
            waiting.pop()
        same.random(3)
    assert last == wanted


def test_a_summary_counts_what_there_is(tmp_path: Path) -> None:
    def own(video: str, question: str, answer: str, **more: object) -> dict[str, object]:
        return {"video": video, "question": question, "answer": answer, **more}

    rows = read_rows(
        written(
            tmp_path,
            [
                own("a.mp4", "How many?", "two", type="Counting"),
                own("b.mp4", "how  many", "Two", type="Counting"),
                own("c.mp4", "How many?", "three", type="Counting", start=1),
                own("a.mp4", "How many?", "three", type="Counting"),
                own("a.mp4", "How many?", "two.", type="Counting"),
                own("d.mp4", "Where is the piano now?", "on the far left"),
                {"audio": "d.mp4", "conversations": talk("Who?", "Ann", "Why?", "No idea")},
            ],
        )
    )
    found = summary(rows)
    both = "a.mp4: 'How many?' is answered 'two' and 'three'"
    assert found == {
        "clips": 5,
        "files": 4,
        "with_record": 0,
        "questions": 8,
        "with_history": 1,
        "by_type": {"Counting": 5, "without type": 3},
        "by_modality": {"both": 6, "sound-only": 2},
        "longest_question": 5,
        "longest_answer": 4,
        "blind_floor": 60.0,
        "blind_floor_of": 5,
        "repeated": 1,
        "contradictions": {"count": 1, "first": [both]},
    }
    assert json.loads(json.dumps(found)) == found


def test_a_summary_knows_templates_captions_and_nothing(tmp_path: Path) -> None:
    assert summary([])["blind_floor"] is None and summary([])["questions"] == 0
    louder = replace(LOUD, question="Is the tuba louder than the harp?")
    captions = [
        record("v1", Said(question="", answer=text), kind="caption") for text in ("A.", "B.")
    ]
    write_records(
        tmp_path / "r.jsonl", [record("v1", LOUD), record("v2", louder, sound=False), *captions]
    )
    found = summary(read_rows(tmp_path / "r.jsonl"))
    assert (found["blind_floor"], found["blind_floor_of"]) == (100.0, 2)
    assert found["by_modality"] == {"both": 3, "video-only": 1}
    assert found["contradictions"]["count"] == 0 and found["repeated"] == 1
