"""The benchmarks that others publish: their files as they are, and what is odd or wrong in them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from eval.benchmarks import BENCHMARKS, overlap, read_benchmark, seen_videos
from eval.benchmarks.family import is_synthetic
from instruct_data.places import CATALOGUE
from instruct_data.templates import SLOT
from tests.question_files import AVQA, EXAMPLES, FORTIS, V1, R, data, refused, said, write

BAND_R = "bandstand-r"

# -- the files of the authors ----------------------------------------------------------------


def test_the_nine_benchmarks_and_their_groups() -> None:
    assert list(BENCHMARKS) == [
        *("music-avqa", "music-avqa-v2", "music-avqa-r", "fortisavqa", "avqa"),
        *("bandstand", "bandstand-r", "bandstand-biased", "bandstand-hard"),
    ]
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name and set(benchmark.data_sets) <= set(CATALOGUE)
        assert {"video-disjoint", "prior-agreeing", "prior-disagreeing"} <= set(benchmark.groups)
        assert ("head" in benchmark.groups) == (name in {"music-avqa-r", "fortisavqa", BAND_R})
        assert ("Audio" in benchmark.groups) == (name != "avqa")
        assert ("real" in benchmark.groups) == (name != "avqa" and "bandstand" not in name)
        assert ("held-out wordings" in benchmark.groups) == (name == BAND_R)


@pytest.mark.parametrize(
    ("name", "file", "count", "version"),
    [
        ("music-avqa", "music-avqa/avqa-test.json", 9129, "corrected test"),
        ("music-avqa", "music-avqa/avqa-val.json", 4568, "corrected validation"),
        ("music-avqa", "music-avqa/avqa-test.2022.json", 9185, "2022 test"),
        ("music-avqa", "music-avqa/avqa-train.synthetic-only.2022.json", 6233, "2022 training"),
        ("music-avqa-v2", "music-avqa-v2/test_balance.json", 10819, "balanced test"),
        ("music-avqa-v2", "music-avqa-v2/balance_valid.json", 5346, "balanced validation"),
    ],
)
def test_real_files_are_read_whole_and_filled(
    name: str, file: str, count: int, version: str
) -> None:
    path = data(file)
    asked = read_benchmark(name, path)
    assert len(asked.questions) == count and version in asked.version
    assert asked.sha256 == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    raw = json.loads(path.read_bytes())
    for number, (row, one) in enumerate(zip(raw, asked.questions, strict=True), 1):
        values = row["templ_values"]
        values = json.loads(values) if isinstance(values, str) else values
        filled = row["question_content"].strip()
        for value in values:
            filled = SLOT.sub(value.strip(), filled, count=1)
        assert one.question == filled and one.number == number
        assert (one.video_id, one.gold) == (row["video_id"], row["anser"])


def test_the_2022_file_is_warned_about_with_its_55_contradictions() -> None:
    asked = read_benchmark("music-avqa", data("music-avqa/avqa-test.2022.json"))
    assert asked.oddities[0].startswith("this is music-avqa: the 2022 test file")
    assert "json_update" in asked.oddities[0]
    pairs = [line.split() for line in said(asked, "contradicts")]
    assert len(pairs) == 55 and len(asked.oddities) == 56
    ids = {asked.questions[int(words[1]) - 1].question_id for words in pairs}
    assert len(ids) == 55
    assert read_benchmark("music-avqa", data("music-avqa/avqa-test.json")).oddities == ()


def test_v2_keeps_other_sounds_and_mirrored_clips() -> None:
    path = data("music-avqa-v2/test_balance.json")
    asked = read_benchmark("music-avqa-v2", path)
    raw = json.loads(path.read_bytes())
    assert sum(isinstance(row["templ_values"], list) for row in raw) == 226
    swapped = [one for one in asked.questions if one.sound_of is not None]
    assert len(swapped) == 226 and swapped[0].sound_of != swapped[0].video_id
    assert sum(one.video_id.endswith("_flip") for one in asked.questions) == 69
    assert sum(one.question_id is None for one in asked.questions) == 1724
    assert said(asked, "1724 of 10819 rows have no question_id")
    assert said(asked, "226 rows are asked with the sound of another clip")
    # 14 questions are there twice about one clip; 11 of them once with another clip's sound.
    twice = len(asked.questions) - len({(one.video_id, one.question) for one in asked.questions})
    assert twice == 14 and len(said(asked, " repeats row ")) == 3
    assert said(asked, "11 of them also with the clip's own")


def test_overlap_of_the_real_files() -> None:
    """The figures that are known of the official splits."""
    v1 = {
        name: read_benchmark("music-avqa", data(f"music-avqa/avqa-{name}.json"))
        for name in ("test", "val", "train.synthetic-only.2022")
    }
    figures = overlap(v1["test"], v1["val"])
    assert (figures["videos"], figures["shared_videos"]) == (6399, 2296)
    assert figures["questions"] == 9129 and figures["shared_questions"] == 0
    made = overlap(v1["test"], v1["train.synthetic-only.2022"])["synthetic"]
    assert (made["videos"], made["shared_videos"], made["questions"]) == (1273, 1269, 1764)
    v2 = read_benchmark("music-avqa-v2", data("music-avqa-v2/test_balance.json"))
    assert overlap(v2, v1["test"])["shared_questions"] == 5533
    assert seen_videos(v1["val"]) == {one.video_id for one in v1["val"].questions}


# -- no character is lost --------------------------------------------------------------------

ODD = st.text(
    st.one_of(
        st.sampled_from(" \t\u00a0\u3000\u2009\u200b\ufeff\uff1f?<>_\"'\\{}"),
        st.characters(exclude_categories=["Cs"]),
    ),
    min_size=1,
)


@pytest.mark.parametrize("name", ["music-avqa-r", "fortisavqa", "avqa"])
@given(text=ODD)
@example(text="  Does  the \u3000 acoustic_guitar\u00a0sound louder\uff1f ")
@example(text="How many sounding <Object in the video\uff1f")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_character_of_a_question_is_lost(tmp_path: Path, name: str, text: str) -> None:
    """Only white space before the first and after the last character goes."""
    assume(text.strip() and not SLOT.search(text))
    field = "question_text" if name == "avqa" else "question_content"
    path = write(tmp_path / "avqa-test-head.json", EXAMPLES[name] | {field: text})
    (one,) = read_benchmark(name, path).questions
    assert one.question == text.strip()


def test_rows_of_r_go_through_unchanged(tmp_path: Path) -> None:
    path = write(tmp_path / "avqa-test-tail.json", R, R | {"templ_values": "[]"})
    asked = read_benchmark("music-avqa-r", path)
    for one in asked.questions:
        assert one.question == R["question_content"] and one.gold == "yes"
        assert (one.video_id, one.question_id, one.type) == ("00000823", 2945, "Audio Comparative")
        assert one.subset == "tail" and one.template is None and one.held_out is None
    assert said(asked, "2 of 2 questions have no template")
    assert asked.questions[0].original == asked.questions[1].original


def test_rows_of_fortis_go_through_unchanged(tmp_path: Path) -> None:
    commented = FORTIS | {
        "_comment_split": "head or tail split",
        "question_content": "Is the clarinet louder than the acoustic_guitar",
    }
    path = write(tmp_path / "test.json", FORTIS, commented, FORTIS | {"split": "head"})
    asked = read_benchmark("fortisavqa", path)
    assert [one.subset for one in asked.questions] == ["tail", "tail", "head"]
    assert [one.question for one in asked.questions[:2]] == [
        FORTIS["question_content"],
        commented["question_content"],
    ]
    assert said(asked, "row 3 repeats row 1") and not said(asked, "not read")


def test_choices_of_avqa(tmp_path: Path) -> None:
    twice = AVQA | {"id": 184, "answer": 0, "multi_choice": ["car", "car", "train", "bus"]}
    path = write(tmp_path / "val_qa.json", AVQA, twice, AVQA | {"id": 185, "question_type": "Why"})
    asked = read_benchmark("avqa", path)
    one, _, last = asked.questions
    assert one.gold == "Yacht consignment" and one.choices == tuple(AVQA["multi_choice"])
    assert one.video_id == "-HG3Omg_89c_000030" and one.question_id == 183
    assert one.type == "View Happening" and last.type == "View Why"
    assert said(asked, "row 2 has the same choice twice")
    assert said(asked, "row 2 contradicts row 1") and said(asked, "row 3 repeats row 1")


# -- files that are wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("music-avqa-r", "type", "Audio"),
        ("music-avqa-r", "anser", "maybe"),
        ("music-avqa-r", "question_content", "  "),
        ("music-avqa-r", "wording", "unseen"),
        ("fortisavqa", "split", None),
        ("fortisavqa", "split", "middle"),
        ("fortisavqa", "video_id", "../up"),
        ("avqa", "answer", 4),
        ("avqa", "id", 1.5),
        ("avqa", "multi_choice", "motorboat"),
        ("music-avqa", "templ_values", '["flute"]'),
    ],
)
def test_a_malformed_row_is_named_with_its_field(
    tmp_path: Path, name: str, field: str, value: Any
) -> None:
    good = EXAMPLES[name]
    path = write(tmp_path / "avqa-test-head.json", good, good | {field: value})
    message = refused(name, path)
    assert message.startswith(f"{path}, row 2, field '{field}': ") and len(message) < 700


@pytest.mark.parametrize(
    ("name", "row", "field", "other"),
    [
        ("music-avqa", R, "question_content", "music-avqa-r"),
        ("music-avqa-v2", R, "question_content", "music-avqa-r"),
        ("music-avqa", FORTIS, "split", "fortisavqa"),
        ("music-avqa-r", FORTIS, "split", "fortisavqa"),
        ("music-avqa-r", V1, "templ_values", "music-avqa"),
        ("fortisavqa", V1, "templ_values", "music-avqa"),
        ("fortisavqa", R, "split", "music-avqa-r"),
        ("music-avqa", V1 | {"unmatch_audio": "00000001"}, "unmatch_audio", "music-avqa-v2"),
        ("music-avqa", V1 | {"video_id": "00000823_flip"}, "video_id", "music-avqa-v2"),
        ("music-avqa", V1 | {"video_id": "test0_000001"}, "video_id", "bandstand"),
    ],
)
def test_another_benchmarks_rows_are_refused_with_a_way_out(
    tmp_path: Path, name: str, row: dict[str, Any], field: str, other: str
) -> None:
    path = write(tmp_path / "avqa-test-head.json", row)
    message = refused(name, path)
    assert f"row 1, field '{field}'" in message and f"--benchmark {other}" in message
    assert f"python -m instruct_data get {name}" in message


def test_a_known_file_is_refused_under_another_name(tmp_path: Path) -> None:
    path = data("music-avqa-v2/test_balance.json")
    message = refused("music-avqa", path)
    assert "10,819 questions" in message and "--benchmark music-avqa-v2" in message
    copy = shutil.copy(data("music-avqa/avqa-val.json"), tmp_path / "avqa-test-head.json")
    assert "--benchmark music-avqa," in refused("music-avqa-r", copy)
    assert "--benchmark music-avqa," in refused("avqa", copy)


def test_names_and_folders_that_do_not_exist(tmp_path: Path) -> None:
    assert "choose one of music-avqa, music-avqa-v2" in refused("music", tmp_path)
    for name in ("music-avqa", "music-avqa-v2", "fortisavqa", "avqa"):
        assert f"{tmp_path} is a folder" in refused(name, tmp_path)
        assert "cannot read" in refused(name, tmp_path / "absent.json")
    assert "cannot read" in refused("music-avqa-r", tmp_path / "head.json")


def test_fields_that_are_not_read_are_told(tmp_path: Path) -> None:
    asked = read_benchmark("music-avqa", write(tmp_path / "a.json", V1, V1 | {"colour": "red"}))
    assert said(asked, "'colour' that is not read")


# -- overlap ---------------------------------------------------------------------------------


def test_overlap_goes_by_clip_sound_and_words(tmp_path: Path) -> None:
    swapped = {"unmatch_audio": "00000009"}
    tested = [
        V1,
        V1 | {"video_id": "00000823_flip"},
        V1 | {"video_id": "00000824"} | swapped,
        V1 | {"video_id": "va00000001"},
        V1 | {"video_id": "va00000002"},
    ]
    seen = [
        V1 | {"question_content": "Is the <Object> louder than the <Object>? "},
        V1 | {"video_id": "00000009"},
        V1 | {"video_id": "va00000002", "templ_values": '["flute", "cello"]'},
    ]
    figures = overlap(
        read_benchmark("music-avqa-v2", write(tmp_path / "t.json", *tested)),
        read_benchmark("music-avqa-v2", write(tmp_path / "s.json", *seen)),
    )
    # Clips: 823 and its mirrored copy, 824, the sound 9, two synthetic ones.
    assert figures == {
        "videos": 5,
        "shared_videos": 3,
        "questions": 5,
        "shared_questions": 2,
        "synthetic": {"videos": 2, "shared_videos": 1, "questions": 2, "shared_questions": 0},
    }
    real = read_benchmark("music-avqa", write(tmp_path / "r.json", V1))
    assert overlap(real, real)["synthetic"] is None
    assert seen_videos(real) == {"00000823"}


@pytest.mark.parametrize(
    ("video_id", "made"),
    [
        *((f"{prefix}00000001", True) for prefix in ("va", "sa", "vv", "esa", "eva", "evv")),
        ("va00000001_flip", True),
        ("00000001", False),
        ("vaTIYmaxllx", False),
        ("test0_000001", False),
    ],
)
def test_synthetic_clips_are_told_by_their_names(video_id: str, made: bool) -> None:
    assert is_synthetic(video_id) == made
