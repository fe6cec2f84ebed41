"""Exports: what other trainers read, what comes back of it, and what they cannot say."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from avqa_llm.errors import AnnotationError
from instruct_data.exports import (
    FORMATS,
    ExportError,
    add_commands,
    export,
    hf_datasets,
    read_pairs_of,
    read_records_of,
)
from instruct_data.exports.media import media_path, video_of
from instruct_data.pairs import Pair, write_pairs
from instruct_data.records import Clip, Record, Turn, write_records
from instruct_data.templates import TEMPLATES

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))

LOUD = "Is the <Object> louder than the <Object>?"
FIRST = Turn(
    question="Is the flute louder than the cello?",
    answer="Yes, the flute is louder — \u201cby far\u201d.\nIt leads.",
    label="yes",
    template=LOUD,
    slots=("flute", "cello"),
    type="Audio Comparative",
)
SECOND = Turn(
    question="Where is it?", answer="indoor", label="indoor", choices=("indoor", "outdoor")
)
BASE = Record(
    id="music-avqa/train/12",
    kind="question",
    clip=Clip(video="00000093"),
    turns=(FIRST,),
    source="music-avqa",
    split="train",
    licence="MIT",
    provenance=("avqa-train.json",),
)
RECORDS = (
    BASE,
    replace(BASE, id="r2", kind="dialogue", turns=(FIRST, SECOND)),
    replace(BASE, id="r3", clip=Clip(video="sa00007", sound=False)),
    replace(BASE, id="r4", clip=Clip(video="00000094", picture=False), split="val"),
    replace(BASE, id="r5", clip=Clip(video="recordings/my concert.mov")),
    replace(BASE, id="r6", clip=Clip(video="concert.mov")),
    replace(BASE, id="r7", clip=Clip(video="take.2")),
)
MIRRORED = replace(BASE, id="m", clip=Clip(video="00000093", mirrored=True))
BACKWARDS = replace(BASE, id="b", clip=Clip(video="00000093", reversed=True))
CUT = replace(BASE, id="c", clip=Clip(video="00000093", start_s=1.5, end_s=4.0))
PAIR = Pair(
    record="r1",
    turn=0,
    clip=Clip(video="00000093"),
    question="How many?",
    chosen="There are two.",
    rejected="A few.",
    tag="wrong",
    label="two",
    source="music-avqa",
    split="train",
    licence="MIT",
    provenance=("a", "b"),
)
PAIRS = (
    PAIR,
    replace(PAIR, record="dialogue/7", turn=1, history=(FIRST,), tag="ambiguous"),
    replace(PAIR, record="r3", clip=Clip(video="x", sound=False), tag="mined"),
    replace(PAIR, record="r4", clip=Clip(video="x", picture=False), tag="swapped"),
)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "00000093.mp4").touch()
    return folder


def source(tmp_path: Path, items: Sequence[Record] | Sequence[Pair]) -> Path:
    path = tmp_path / "source.jsonl"
    if isinstance(items[0], Pair):
        write_pairs(path, items)  # type: ignore[arg-type]
    else:
        write_records(path, items)  # type: ignore[arg-type]
    return path


def exported(tmp_path: Path, items: Any, to: str, media: Path | None = None) -> list[Any]:
    """The rows of a file, in plain JSON."""
    out = tmp_path / f"out{FORMATS[to].suffix}"
    export(source(tmp_path, items), to, out, media=media)
    text = out.read_text(encoding="utf-8")
    return json.loads(text) if out.suffix == ".json" else [json.loads(s) for s in text.splitlines()]


def core(record: Record) -> tuple[Any, ...]:
    """What every format has to carry."""
    return record.id, record.clip, [(turn.question, turn.answer) for turn in record.turns]


# -- there and back ------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "with_media"), list(itertools.product(FORMATS, (False, True))))
def test_records_come_back(tmp_path: Path, media: Path, to: str, with_media: bool) -> None:
    folder = media if with_media else None
    out = tmp_path / f"out{FORMATS[to].suffix}"
    summary = export(source(tmp_path, RECORDS), to, out, media=folder)
    back = list(read_records_of(out, to, folder))
    assert [core(record) for record in back] == [core(record) for record in RECORDS]
    assert [record.kind for record in back] == [record.kind for record in RECORDS]
    assert summary.rows == len(RECORDS)
    assert summary.lost["label"] == summary.lost["provenance"] == len(RECORDS)
    assert summary.lost["choices"] == 1
    assert summary.absent == (
        {"sa00007", "00000094", "recordings/my concert.mov", "concert.mov", "take.2"}
        if with_media
        else set()
    )


@pytest.mark.parametrize("to", FORMATS)
def test_pairs_come_back(tmp_path: Path, media: Path, to: str) -> None:
    out = tmp_path / f"out{FORMATS[to].suffix}"
    summary = export(source(tmp_path, PAIRS), to, out, media=media)
    assert summary.pairs and summary.rows == len(PAIRS)
    for before, after in zip(PAIRS, read_pairs_of(out, to, media), strict=True):
        told = tuple(Turn(question=t.question, answer=t.answer) for t in before.history)
        assert after.history == told
        for name in ("record", "turn", "clip", "question", "chosen", "rejected", "tag"):
            assert getattr(after, name) == getattr(before, name), name


def test_the_datasets_layout_carries_everything(tmp_path: Path) -> None:
    items = (*RECORDS, MIRRORED, BACKWARDS, CUT)
    summary = export(source(tmp_path, items), "hf", tmp_path / "set")
    assert summary.rows == len(items) and not summary.lost
    back = sorted(hf_datasets.read_folder(tmp_path / "set", Record), key=lambda r: r.id)
    assert back == sorted(items, key=lambda record: record.id)
    export(source(tmp_path, PAIRS), "hf", tmp_path / "pairs")
    assert list(hf_datasets.read_folder(tmp_path / "pairs", Pair)) == list(PAIRS)


# -- what the trainers read ----------------------------------------------------------------------


def test_avinstruct_rows_are_the_authors_own(tmp_path: Path, media: Path) -> None:
    row, *_, ear = exported(tmp_path, (BASE, RECORDS[1], RECORDS[3]), "avinstruct", media)
    path = f"{media.as_posix()}/00000093.mp4"
    assert row == {
        "video_id": "00000093",
        "multi_choice": "",
        "correct_answer": "",
        "video": path,
        "audio": path,
        "id": "music-avqa/train/12",
        "conversations": [
            {
                "from": "human",
                "value": "Summarize the video to help answer:\n"
                "<Q>Is the flute louder than the cello?<Q>\n<video>",
            },
            {"from": "gpt", "value": FIRST.answer},
        ],
    }
    assert "video" not in ear and ear["audio"].endswith("00000094.mp4")


def test_adpo_rows_have_the_chosen_conversation_first(tmp_path: Path) -> None:
    row, follow_up, *_ = exported(tmp_path, PAIRS, "avinstruct")
    assert (row["chosen"], row["rejected"]) == ("There are two.", "A few.")
    assert [part["value"] for part in row["conversations1"]][1] == "There are two."
    assert row["conversations2"][0] == row["conversations1"][0]
    assert row["conversations2"][1] == {"from": "gpt", "value": "A few."}
    assert [part["value"] for part in follow_up["conversations1"]][2:] == [
        "How many?",
        "There are two.",
    ]


def test_adpo_rows_in_the_other_order_and_without_an_id_are_read_by_their_fields(
    tmp_path: Path,
) -> None:
    (row, *_) = exported(tmp_path, PAIRS, "avinstruct")
    row["conversations1"], row["conversations2"] = row["conversations2"], row["conversations1"]
    del row["id"], row["tag"]
    path = tmp_path / "foreign.json"
    path.write_text(json.dumps([row]))
    (pair,) = read_pairs_of(path, "avinstruct")
    assert (pair.chosen, pair.rejected, pair.tag) == ("There are two.", "A few.", "ambiguous")
    path.write_text(json.dumps([row | {"chosen": "Five."}]))
    with pytest.raises(AnnotationError, match="row 1: chosen and rejected are not the answers"):
        list(read_pairs_of(path, "avinstruct"))


def test_llama_factory_has_as_many_places_as_paths(tmp_path: Path, media: Path) -> None:
    rows = exported(tmp_path, RECORDS, "llama-factory", media)
    assert rows[0]["messages"][0]["content"].startswith("<video><audio>Is the flute")
    for row in rows:
        text = "".join(message["content"] for message in row["messages"])
        assert text.count("<video>") == len(row.get("videos", []))
        assert text.count("<audio>") == len(row.get("audios", []))
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert "audios" not in rows[2] and "videos" not in rows[3]


def test_llama_factory_s_list_of_data_sets_keeps_its_other_entries(tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    info.write_text('{"theirs": {"file_name": "theirs.json"}}')
    export(source(tmp_path, RECORDS), "llama-factory", tmp_path / "ours.jsonl")
    export(source(tmp_path, PAIRS), "llama-factory", tmp_path / "ours_dpo.jsonl")
    entries = json.loads(info.read_text())
    assert set(entries) == {"theirs", "ours", "ours_dpo"}
    assert entries["ours"]["formatting"] == "sharegpt" and "ranking" not in entries["ours"]
    assert entries["ours"]["tags"]["user_tag"] == "user"
    assert entries["ours_dpo"]["ranking"] is True
    row = json.loads((tmp_path / "ours_dpo.jsonl").read_text().splitlines()[0])
    for column in entries["ours_dpo"]["columns"].values():
        assert column in row
    assert row["messages"][-1]["role"] == "user"
    assert row["chosen"] == {"role": "assistant", "content": "There are two."}
    info.write_text("[]")
    with pytest.raises(ExportError, match="not LLaMA-Factory's list"):
        export(source(tmp_path, RECORDS), "llama-factory", tmp_path / "ours.jsonl")


def test_ms_swift_pairs_end_with_the_chosen_answer(
    tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row, *_ = exported(tmp_path, PAIRS, "ms-swift", Path(media.name))
    assert row["messages"][-1] == {"role": "assistant", "content": "There are two."}
    assert row["rejected_response"] == "A few." and "chosen" not in row
    assert row["videos"] == row["audios"] == [f"{media.resolve().as_posix()}/00000093.mp4"]


def test_trl_contents_are_parts_that_transformers_finds(tmp_path: Path) -> None:
    row, eye, ear, *_ = exported(tmp_path, (BASE, *RECORDS[2:4]), "trl")
    assert row["messages"][0]["content"] == [
        {"type": "video", "video": "00000093.mp4"},
        {"type": "audio", "audio": "00000093.mp4"},
        {"type": "text", "text": FIRST.question},
    ]
    assert [part["type"] for part in eye["messages"][0]["content"]] == ["video", "text"]
    assert [part["type"] for part in ear["messages"][0]["content"]] == ["audio", "text"]
    (pair, *_) = exported(tmp_path, PAIRS, "trl")
    assert [message["role"] for message in pair["prompt"]] == ["user"]
    assert pair["rejected"] == [
        {"role": "assistant", "content": [{"type": "text", "text": "A few."}]}
    ]


def test_the_dataset_card_names_files_features_and_licences(
    tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_datasets, "SHARD", 4)
    other = replace(BASE, id="z", source="avqa", licence="CC BY-NC 4.0", split="test head")
    export(source(tmp_path, (*RECORDS, other)), "hf", tmp_path / "set", media=media)
    names = sorted(path.name for path in (tmp_path / "set/data").iterdir())
    assert names == [
        "test_head-00000-of-00001.jsonl",
        "train-00000-of-00002.jsonl",
        "train-00001-of-00002.jsonl",
        "val-00000-of-00001.jsonl",
    ]
    _, front, body = (tmp_path / "set/README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["license"] == "other" and card["size_categories"] == ["n<1K"]
    splits = {each["split"]: each["path"] for each in card["configs"][0]["data_files"]}
    for split, pattern in splits.items():
        assert list((tmp_path / "set").glob(pattern)), split
    row = json.loads((tmp_path / "set/data" / names[0]).read_text())
    features = {each["name"]: each for each in card["dataset_info"]["features"]}
    assert set(features) == set(row) and row["media"].endswith("/00000093.mp4")
    assert {each["name"] for each in features["clip"]["struct"]} == set(row["clip"])
    turn = {each["name"]: each for each in features["turns"]["list"]}
    assert set(turn) == set(row["turns"][0])
    assert turn["slots"] == {"name": "slots", "list": "string"}
    assert {"name": "start_s", "dtype": "float64"} in features["clip"]["struct"]
    assert "| avqa | CC BY-NC 4.0 | 1 |" in body and "| music-avqa | MIT | 7 |" in body


@pytest.mark.parametrize(
    ("rows", "size"), [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (250_000, "100K<n<1M")]
)
def test_sizes_are_the_hub_s_own(rows: int, size: str) -> None:
    assert hf_datasets._size(rows) == size


# -- what cannot be said -------------------------------------------------------------------------


@pytest.mark.parametrize("to", FORMATS)
def test_transformed_clips_are_refused_with_their_number_or_skipped(
    tmp_path: Path, to: str
) -> None:
    out = tmp_path / f"out{FORMATS[to].suffix}"
    path = source(tmp_path, (BASE, MIRRORED, BACKWARDS, CUT))
    with pytest.raises(ExportError, match=r"3 of 4 clips .*2 mirrored or reversed, 1 part of"):
        export(path, to, out)
    assert list(tmp_path.iterdir()) == [path]
    summary = export(path, to, out, skip_transformed=True)
    assert [record.id for record in read_records_of(out, to)] == [BASE.id]
    assert "2 skipped: the clip is mirrored or reversed" in "\n".join(summary.lines())


@pytest.mark.parametrize(("to", "mark"), [("messages", "<audio>"), ("avinstruct", "<Q>")])
def test_a_text_that_would_be_read_as_media_is_refused(tmp_path: Path, to: str, mark: str) -> None:
    bad = replace(BASE, id="bad", turns=(replace(FIRST, answer=f"It says {mark}."),))
    with pytest.raises(ExportError, match=f"'bad' has {mark}"):
        export(source(tmp_path, (BASE, bad)), to, tmp_path / f"out{FORMATS[to].suffix}")


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = source(tmp_path, RECORDS)
    with pytest.raises(ExportError, match="name a .json file"):
        export(path, "avinstruct", tmp_path / "out.jsonl")
    with pytest.raises(ExportError, match="file to export itself"):
        export(path, "messages", path)
    with pytest.raises(ExportError, match="is no folder"):
        export(path, "messages", tmp_path / "out.jsonl", media=tmp_path / "nowhere")
    with pytest.raises(AnnotationError, match="cannot read"):
        export(tmp_path / "absent.jsonl", "messages", tmp_path / "out.jsonl")
    with pytest.raises(ExportError, match="is there already"):
        export(path, "hf", tmp_path)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(AnnotationError, match="line 1 is neither"):
        export(tmp_path / "empty.jsonl", "messages", tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "system"),
        ({"messages": [{"role": "user", "content": "<video>Hm?"}]}, "assistant's"),
        ({"messages": "Hm?"}, "'messages' should be a list"),
        (
            {
                "messages": [
                    {"role": "user", "content": "Hm?"},
                    {"role": "assistant", "content": "Yes."},
                ]
            },
            "neither a video nor an audio",
        ),
    ],
)
def test_foreign_rows_that_are_no_records_are_named(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    path = tmp_path / "foreign.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(AnnotationError, match=f"foreign.jsonl, row 1: .*{said}"):
        list(read_records_of(path, "messages"))


@pytest.mark.parametrize(
    ("video", "path"),
    [
        ("00000093", "videos/00000093.mp4"),
        ("clip.v2", "videos/clip.v2.mp4"),
        ("own.MP4", "videos/./own.MP4"),
        ("there/own.mkv", "videos/./there/own.mkv"),
        ("/elsewhere/own.mkv", "/elsewhere/own.mkv"),
    ],
)
def test_names_and_paths_of_clips(video: str, path: str) -> None:
    assert media_path(Clip(video=video), Path("videos")) == path
    assert video_of(path, Path("videos")) == video


# -- the command, and real questions -------------------------------------------------------------


def test_the_command_prints_what_became_of_the_records(
    tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    path, out = source(tmp_path, (*RECORDS, MIRRORED)), tmp_path / "out.jsonl"
    options = ["--to", "trl", "--out", str(out), "--media", str(media), "--skip-transformed"]
    args = parser.parse_args(["export", str(path), *options])
    assert args.run(args) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("7 records written\n")
    assert "1 skipped: the clip is mirrored" in printed
    assert "label (7 rows)" in printed and "5 clips have no file" in printed


def test_real_questions_come_back_from_every_format(tmp_path: Path) -> None:
    path = DATA / "music-avqa/avqa-val.json"
    if not path.exists():
        pytest.skip(f"{path} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    records = []
    for row in json.loads(path.read_text(encoding="utf-8"))[:500]:
        template = TEMPLATES[row["question_content"].strip()]
        slots = tuple(json.loads(row["templ_values"]))
        turn = Turn(question=row["question_content"], answer=row["anser"], slots=slots)
        clip = Clip(video=row["video_id"])
        turn = replace(turn, template=template.text, label=row["anser"])
        records.append(replace(BASE, id=f"val/{row['question_id']}", clip=clip, turns=(turn,)))
    for to in FORMATS:
        out = tmp_path / f"{to}{FORMATS[to].suffix}"
        export(source(tmp_path, records), to, out)
        assert [core(r) for r in read_records_of(out, to)] == [core(r) for r in records]
