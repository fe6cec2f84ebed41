"""Rewording: records keep their meaning, test sets have the shape of MUSIC-AVQA-R."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avqa_llm.errors import AnnotationError, AVQAError
from instruct_data import rephrase
from instruct_data.records import Clip, Record, Turn
from instruct_data.rephrase import add_commands, check_bank, rephrased
from instruct_data.sentences import spoken
from instruct_data.templates import SLOT_VALUES, TEMPLATES, fill
from instruct_data.wordings import WORDINGS, fill_wording, split

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AVQA_TEST_DATA", ROOT / "../shared/data"))
LOUDER = "Is the <Object> louder than the <Object>?"
PLACED = "Is the <Object> on the <LR> louder than the <Object> on the <LR>?"
OUTERMOST = "What kind of instrument is the <LRer> instrument?"
HEARD = "How many musical instruments were heard throughout the video?"


def command(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(word) for word in argv])
    return int(args.run(args))


def row_of(template: str, slots: list[str], answer: str, number: int = 12) -> dict[str, Any]:
    return {
        "video_id": "00000093",
        "question_id": number,
        "type": json.dumps(list(TEMPLATES[template].type)),
        "question_content": template,
        "templ_values": json.dumps(slots),
        "question_deleted": 0,
        "anser": answer,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def read(folder: Path, part: str) -> list[dict[str, Any]]:
    rows = json.loads((folder / f"avqa-test-{part}.json").read_text(encoding="utf-8"))
    assert isinstance(rows, list)
    return rows


def turn_of(template: str, slots: tuple[str, ...], label: str) -> Turn:
    question = fill(template, slots)
    return Turn(question=question, answer=label, label=label, template=template, slots=slots)


def record_of(*turns: Turn) -> Record:
    return Record(
        id="a-1",
        kind="dialogue",
        clip=Clip(video="00000093"),
        turns=turns,
        source="music-avqa",
        split="train",
        licence="MIT",
        provenance=("a.json",),
    )


# -- records -------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
def test_every_template_is_reworded_from_its_part_of_the_bank(held_out: bool) -> None:
    rng = np.random.default_rng(3)
    for template in TEMPLATES.values():
        slots = tuple(SLOT_VALUES[slot][at % 2] for at, slot in enumerate(template.slots))
        if "LRer" in template.slots:
            slots = ("leftest",)
        turn = Turn(question="?", answer="yes", template=template.text, slots=slots)
        allowed = {
            fill_wording(wording, values)
            for wording in split(template.text)[held_out]
            for values in ([spoken(v) for v in slots], [v.replace("_", " ") for v in slots])
        }
        drawn = {
            rephrased(record_of(turn), rng, held_out=held_out).turns[0].question for _ in range(12)
        }
        assert drawn <= allowed and len(drawn) >= 3


def test_only_the_question_changes_and_open_turns_stay() -> None:
    closed = turn_of(PLACED, ("flute", "left", "acoustic_guitar", "right"), "yes")
    opened = Turn(question="What happens?", answer="A duo plays.")
    slotless = replace(closed, slots=(), question="Is the left one louder")
    record = record_of(closed, opened, slotless)
    after = rephrased(record, np.random.default_rng(0), held_out=True)
    assert after.turns[1:] == record.turns[1:]
    assert after.turns[0] == replace(closed, question=after.turns[0].question)
    assert after.turns[0].question != closed.question
    assert "acoustic guitar" in after.turns[0].question
    assert after.provenance == ("a.json", "rephrased (held-out wordings)")
    assert replace(after, turns=(), provenance=()) == replace(record, turns=(), provenance=())
    assert rephrased(record, np.random.default_rng(0), held_out=True) == after
    untouched = record_of(opened)
    assert rephrased(untouched, np.random.default_rng(0)) is untouched


def test_a_question_is_never_reworded_into_itself() -> None:
    record = record_of(turn_of(LOUDER, ("violin", "cello"), "yes"))
    rng = np.random.default_rng(0)
    for _ in range(60):
        after = rephrased(record, rng, held_out=True)
        assert after.turns[0].question != record.turns[0].question
        record = replace(after, provenance=())


@pytest.mark.parametrize(
    ("change", "said"),
    [({"template": "Who is it?"}, "none of the 33"), ({"slots": ("violin",)}, "needs 2")],
)
def test_a_turn_that_is_not_of_the_benchmark_is_named(change: dict[str, Any], said: str) -> None:
    turn = replace(turn_of(LOUDER, ("violin", "cello"), "yes"), **change)
    with pytest.raises(AnnotationError, match=said):
        rephrased(record_of(turn), np.random.default_rng(0))


# -- test sets -----------------------------------------------------------------------------


def test_a_small_file_becomes_a_set_of_filled_held_out_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row_of(PLACED, ["flute", "left", "acoustic_guitar", "right"], "yes"),
        row_of(OUTERMOST, ["leftest"], "violin", 13),
    ]
    file = write(tmp_path / "q.json", rows)
    assert command("rephrase", file, "--out", tmp_path / "r") == 0
    found = read(tmp_path / "r", "headtail")
    assert len(found) == 20
    keys = [*rows[0], "template", "wording"]
    for row in found:
        source = rows[row["question_id"] - 12]
        assert list(row) == keys and row["wording"] == "held-out"
        assert row["template"] == source["question_content"]
        assert row["templ_values"] == "[]" and row["type"] == source["type"]
        assert row["anser"] == source["anser"] and row["video_id"] == source["video_id"]
        slots = json.loads(source["templ_values"])
        voices = ([spoken(v) for v in slots], [v.replace("_", " ") for v in slots])
        assert row["question_content"] in {
            fill_wording(wording, values)
            for wording in split(row["template"])[1]
            for values in voices
        }
    for number in (12, 13):
        asked = [row["question_content"] for row in found if row["question_id"] == number]
        assert len(asked) == len(set(asked)) == 10
    out = capsys.readouterr().out
    assert "2 questions in 20 rows: 20 in held-out wordings, 0 in training wordings" in out
    assert "30 rows fewer than --times 25 wants" in out
    assert not list((tmp_path / "r").glob("*.writing"))


def test_training_wordings_come_after_the_held_out_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "q.json", [row_of(LOUDER, ["violin", "cello"], "yes")])
    flags = ("rephrase", file, "--out", tmp_path, "--training-wordings", "--times")
    assert command(*flags, 25) == 0
    assert "10 in held-out wordings, 15 in training wordings" in capsys.readouterr().out
    held = {fill_wording(wording, ["violin", "cello"]) for wording in split(LOUDER)[1]}
    found = read(tmp_path, "headtail")
    asked = [row["question_content"] for row in found]
    assert len(set(asked)) == 25 and set(asked[:10]) == held
    assert [row["wording"] for row in found] == ["held-out"] * 10 + ["training"] * 15
    assert command(*flags, 7) == 0
    assert "7 in held-out wordings, 0 in training" in capsys.readouterr().out
    assert command(*flags, 200) == 0
    assert len(read(tmp_path, "headtail")) == len(WORDINGS[LOUDER])


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = [row_of(OUTERMOST, ["leftest"], "violin", n) for n in range(4)]
    file = write(tmp_path / "q.json", rows)
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert command("rephrase", file, "--out", tmp_path / name, "--seed", seed) == 0
    bytes_of = {
        name: (tmp_path / name / "avqa-test-headtail.json").read_bytes() for name in ("a", "b", "c")
    }
    assert bytes_of["a"] == bytes_of["b"] != bytes_of["c"]


def test_head_is_above_1_2_times_the_mean_of_type_and_family_of_answers(tmp_path: Path) -> None:
    """Audio Counting holds counts and yes/no: each family has a mean of its own."""
    present = "Is there a <Object> sound?"
    rows = [row_of(HEARD, [], "two", n) for n in range(6)]  # mean 4: head is above 4.8
    rows += [row_of(HEARD, [], "one", n) for n in range(6, 10)]
    rows += [row_of(HEARD, [], "three", n) for n in range(10, 12)]
    # Mean 5, and 6 is exactly 1.2 times that: not above it.
    rows += [row_of(present, ["violin"], "yes", n) for n in range(12, 18)]
    rows += [row_of(present, ["violin"], "no", n) for n in range(18, 22)]
    file = write(tmp_path / "q.json", rows)
    assert command("rephrase", file, "--out", tmp_path, "--times", 1) == 0
    head, tail = read(tmp_path, "head"), read(tmp_path, "tail")
    assert Counter(row["anser"] for row in head) == {"two": 6}
    assert Counter(row["anser"] for row in tail) == {"one": 4, "three": 2, "yes": 6, "no": 4}
    assert len(read(tmp_path, "headtail")) == len(head) + len(tail) == 22


def test_a_part_without_rows_is_an_empty_list(tmp_path: Path) -> None:
    file = write(tmp_path / "q.json", [row_of(HEARD, [], "two")])
    assert command("rephrase", file, "--out", tmp_path) == 0
    assert read(tmp_path, "head") == [] and len(read(tmp_path, "tail")) == 10


def test_the_sound_of_another_clip_is_kept(tmp_path: Path) -> None:
    """v2 has rows whose "no" is right only with the sound that the row names."""
    row = row_of("Is this sound from the instrument in the video?", [], "no")
    del row["question_id"]
    row |= {"templ_values": [], "question_deleted": None, "unmatch_audio": "00008531"}
    file = write(tmp_path / "q.json", [row])
    assert command("rephrase", file, "--out", tmp_path) == 0
    for row in read(tmp_path, "headtail"):
        assert row["unmatch_audio"] == "00008531"
        assert row["question_id"] is None and row["question_deleted"] == 0


def test_mistakes_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "q.json", [row_of(HEARD, [], "two")])
    filled = write(
        tmp_path / "r.json",
        [row_of(HEARD, [], "two") | {"question_content": "How many do you hear"}],
    )
    out = tmp_path / "out"
    with pytest.raises(AnnotationError, match="r.json, row 1.*filled in already"):
        command("rephrase", filled, "--out", out)
    with pytest.raises(AnnotationError, match="absent.json"):
        command("rephrase", tmp_path / "absent.json", "--out", out)
    with pytest.raises(AVQAError, match="--times 0 is too small: give 1"):
        command("rephrase", good, "--out", out, "--times", 0)
    with pytest.raises(AVQAError, match="--seed -1 is too small"):
        command("rephrase", good, "--out", out, "--seed", -1)
    with pytest.raises(AVQAError, match="cannot write to .*q.json"):
        command("rephrase", good, "--out", good)
    assert not out.exists()


def test_the_benchmarks_own_file(tmp_path: Path) -> None:
    path = DATA / "music-avqa" / "avqa-val.json"
    if not path.is_file():
        pytest.skip(f"no annotation file {path}; set AVQA_TEST_DATA to the folder of the data")
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert command("rephrase", path, "--out", tmp_path, "--times", 2) == 0
    found = read(tmp_path, "headtail")
    assert len(found) == 2 * len(rows)
    asked = Counter((row["video_id"], row["question_id"]) for row in found)
    assert asked == Counter({(r["video_id"], r["question_id"]): 2 for r in rows})
    assert len(read(tmp_path, "head")) + len(read(tmp_path, "tail")) == len(found)


# -- the bank ------------------------------------------------------------------------------


def test_check_wordings_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check-wordings") == 0
    out = capsys.readouterr().out
    total = sum(map(len, WORDINGS.values()))
    assert f"{total:8}  {330:8}  in all" in out
    assert "465 in MUSIC-AVQA-R (published)" in out and "0 faults" in out
    assert "7 wordings read like another one where the side is the middle" in out
    assert all(template in out for template in TEMPLATES)


@pytest.mark.parametrize(
    ("template", "wording", "complaint"),
    [
        (LOUDER, "Which is louder, the {0} or the {1}?", "asks for no yes-no answer"),
        (HEARD, "Are there any instruments heard?", "asks for no count answer"),
        (OUTERMOST, "Is there an instrument at the {0}?", "asks for no instrument answer"),
        (
            PLACED,
            "Is the {0} louder than the {2}, one being on the {1} and one on the {3}?",
            "player and side are parted",
        ),
        (LOUDER, "Is the {0} the louder one?", "lost slots"),
    ],
)
def test_check_bank_finds_a_planted_fault(template: str, wording: str, complaint: str) -> None:
    bank = {**WORDINGS, template: (wording, *WORDINGS[template][1:])}
    assert any(complaint in problem for problem in check_bank(bank))


def test_check_wordings_says_so_with_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rephrase, "check_bank", lambda: ["a planted fault"])
    assert command("check-wordings") == 1
    assert "fault: a planted fault\n1 faults" in capsys.readouterr().out
