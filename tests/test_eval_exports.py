"""Exports of benchmarks: what is written is read back, and scored by the code that was written."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from avqa_llm.labels import LABELS, to_label
from eval.benchmarks.base import Question, QuestionSet
from eval.engines import Asked
from eval.engines.openai import prompt
from eval.exports import rows, run
from eval.exports.hf import export_hf
from eval.exports.lmms_eval import export_lmms
from eval.samples import RunError
from eval.statistics import accuracy

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))


def question(number: int, **fields: Any) -> Question:
    defaults = {
        "video_id": f"clip{number % 3}",
        "question_id": number,
        "type": "Audio-Visual Counting" if number % 2 else "Visual Location",
        "question": f"How many sound, “{number}”?",
        "gold": "two",
    }
    return Question(number=number, **(defaults | fields))


def asked_of(questions: list[Question], benchmark: str = "music-avqa") -> QuestionSet:
    return QuestionSet(
        benchmark=benchmark,
        path=Path("avqa-test.json"),
        sha256={"avqa-test.json": "0" * 64},
        questions=tuple(questions),
        version="corrected",
        oddities=("row 7 is odd",),
    )


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Files by name only: nothing here decodes them."""
    folder = tmp_path / "media"
    (folder / "deeper").mkdir(parents=True)
    for name in ("clip0.mp4", "clip1.mp4", "deeper/clip2.mp4"):
        (folder / name).write_bytes(name.encode())
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def load(path: Path) -> ModuleType:
    """Import a file the way lmms-eval does: alone, not on the path, not in sys.modules."""
    spec = importlib.util.spec_from_file_location("utils", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def task_of(folder: Path) -> tuple[dict[str, Any], ModuleType]:
    """The YAML file with the functions that it names, and the module that they are in."""
    utils = load(folder / "utils.py")

    class Loader(yaml.SafeLoader):
        """Knows functions."""

    def function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        module, name = loader.construct_scalar(node).split(".")
        assert module == "utils"
        return getattr(utils, name)

    Loader.add_constructor("!function", function)
    (path,) = folder.glob("*.yaml")
    return Loader(path.read_text(encoding="utf-8")).get_single_data(), utils


# -- lmms-eval -----------------------------------------------------------------------------------


def test_a_task_names_its_functions_and_its_questions(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = export_lmms(asked_of([question(n) for n in range(1, 7)]), media, out)
    assert sorted(path.relative_to(out).as_posix() for path in written) == [
        *("README.md", "avqa_music_avqa.yaml", "choices.py", "clusters.py", "data/test.jsonl"),
        *("model/avqa_lmms_eval/__init__.py", "model/avqa_lmms_eval/model.py"),
        *("model/pyproject.toml", "utils.py"),
    ]
    task, _ = task_of(out)
    assert (task["task"], task["output_type"]) == ("avqa_music_avqa", "generate_until")
    docs = lines(out / task["dataset_kwargs"]["data_files"][task["test_split"]])
    assert [doc["row"] for doc in docs] == list(range(1, 7))
    assert docs[0]["question"] == "How many sound, “1”?"
    settings = task["lmms_eval_specific_kwargs"]["default"]
    assert task["doc_to_visual"](docs[1], settings) == [str(media / "deeper/clip2.mp4")]
    assert task["doc_to_target"](docs[0]) == "two"
    # What other models are asked is what ours are asked over a server.
    for doc in docs:
        same = Asked(clip=0, question=doc["question"])
        assert task["doc_to_text"](doc, settings) == prompt(same)


def test_the_written_scorer_scores_as_this_project_does(media: Path, tmp_path: Path) -> None:
    questions = [
        question(n, subset="head" if n < 5 else "tail", gold="one" if n == 3 else "two")
        for n in range(1, 9)
    ]
    export_lmms(asked_of(questions), media, tmp_path / "out")
    task, _ = task_of(tmp_path / "out")
    texts = ["two", "2.", "saxophone", "one or two", "Two instruments", "I do not know", "two", ""]
    items: dict[str, list[dict[str, Any]]] = {}
    for doc, text in zip(lines(tmp_path / "out/data/test.jsonl"), texts, strict=True):
        for name, value in task["process_results"](doc, [text]).items():
            items.setdefault(name, []).append(value)
    found = {
        metric["metric"]: metric["aggregation"](items[metric["metric"]])
        for metric in task["metric_list"]
    }
    right = [to_label(t) == q.gold for t, q in zip(texts, questions, strict=True)]
    ours = accuracy(right, [q.video_id for q in questions])
    assert right == [True, True, False, False, True, False, True, False]
    assert found == {
        "accuracy": 0.5,
        "accuracy_low": ours.low,
        "accuracy_high": ours.high,
        "no_answer": 3 / 8,
        "audio_visual_counting": 3 / 4,
        "visual_location": 1 / 4,
        "head": 1 / 2,
        "tail": 1 / 2,
    }
    assert found.keys() == items.keys()
    score, cluster = task["score_key"], task["cluster_key"]
    assert [(one[score], one[cluster]) for one in items["accuracy"]] == [
        (float(hit), q.video_id) for hit, q in zip(right, questions, strict=True)
    ]


def test_choices_are_scored_as_choices(media: Path, tmp_path: Path) -> None:
    choices = ("dog barking", "cat, meowing", "car", "two")
    kept = question(1, type="Come From", gold="dog barking", choices=choices)
    export_lmms(asked_of([kept], "avqa"), media, tmp_path / "out")
    task, _ = task_of(tmp_path / "out")
    (doc,) = lines(tmp_path / "out/data/test.jsonl")
    assert task["doc_to_text"](doc).endswith("dog barking; cat, meowing; car; two.")
    for text, score in (("A dog barking", 1.0), ("(A)", 1.0), ("two", 0.0), ("nothing", 0.0)):
        results = task["process_results"](doc, [text])
        assert results["accuracy"]["score"] == results["come_from"]["score"] == score
        assert results["no_answer"]["score"] == float(text == "nothing")


def test_clips_elsewhere_are_found_or_named(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_lmms(asked_of([question(1)]), media, tmp_path / "out")
    task, utils = task_of(tmp_path / "out")
    (doc,) = lines(tmp_path / "out/data/test.jsonl")
    media.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="clip1.mp4 is not there: set AVQA_MEDIA"):
        utils.doc_to_visual(doc, task["lmms_eval_specific_kwargs"]["default"])
    monkeypatch.setenv("AVQA_MEDIA", str(tmp_path / "moved"))
    assert utils.doc_to_visual(doc, {}) == [str(tmp_path / "moved/clip1.mp4")]


def test_the_model_is_a_package_with_an_entry_point(media: Path, tmp_path: Path) -> None:
    export_lmms(asked_of([question(1)]), media, tmp_path / "out")
    project = (tmp_path / "out/model/pyproject.toml").read_text()
    assert '[project.entry-points."lmms_eval.models"]\navqa = "avqa_lmms_eval:manifest"' in project
    package = tmp_path / "out/model/avqa_lmms_eval"
    assert callable(load(package / "__init__.py").manifest)
    compile((package / "model.py").read_text(), "model.py", "exec")


def test_the_model_is_whole_for_lmms_eval(media: Path, tmp_path: Path) -> None:
    export_lmms(asked_of([question(1)]), media, tmp_path / "out")
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: its own classes unchecked")
    model = load(tmp_path / "out/model/avqa_lmms_eval/model.py").AVQA
    assert not inspect.isabstract(model)


# -- Hugging Face --------------------------------------------------------------------------------


def card_of(out: Path) -> tuple[dict[str, Any], str]:
    _, front, text = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.parametrize("copied", [False, True])
def test_a_dataset_card_names_files_columns_and_licences(
    copied: bool, media: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    questions = [question(n, question_id=None if n == 2 else n) for n in range(1, 4)]
    export_hf(asked_of(questions), media, out, copy_media=copied)
    front, text = card_of(out)
    (config,) = front["configs"]
    (file,) = config["data_files"]
    found = lines(out / file["path"])
    assert file["split"] == "test" and front["license"] == "other"
    assert [feature["name"] for feature in front["dataset_info"]["features"]] == [*found[0]]
    assert [row["question_id"] for row in found] == ["1", None, "3"]
    assert [row["original"] for row in found] == ["clip1/1", "clip2/2", "clip0/3"]
    for row in found:
        file = (out if copied else media) / row["video"]
        assert file.read_bytes().decode().endswith(f"{row['video_id']}.mp4")
    assert (out / "videos").exists() == copied
    assert "CC BY-NC 4.0" in text and "row 7 is odd" in text and "0" * 64 in text


@pytest.mark.parametrize("benchmark", ["music-avqa-r", "fortisavqa"])
def test_questions_that_nobody_may_pass_on_are_not_exported(
    benchmark: str, media: Path, tmp_path: Path
) -> None:
    asked = asked_of([question(1)], benchmark)
    with pytest.raises(RunError, match="is not exported: .* nobody may pass them on"):
        export_hf(asked, media, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_hf(asked, media, tmp_path / "out", private=True)
    assert "**Do not pass this on:**" in card_of(tmp_path / "out")[1]
    with pytest.raises(RunError, match="is not exported: .* --private"):
        export_lmms(asked, media, tmp_path / "task")
    assert not (tmp_path / "task").exists()
    export_lmms(asked, media, tmp_path / "task", private=True)
    assert "**For your own use only:**" in (tmp_path / "task/README.md").read_text()


# -- both ----------------------------------------------------------------------------------------


def test_questions_without_their_clip_are_counted(media: Path, tmp_path: Path) -> None:
    questions = [
        *(question(1), question(2, video_id="gone"), question(3, video_id="clip1_flip")),
        question(4, sound_of="clip2"),
    ]
    export_hf(asked_of(questions, "music-avqa-v2"), media, tmp_path / "out")
    text = card_of(tmp_path / "out")[1]
    assert [row["row"] for row in lines(tmp_path / "out/data/test.jsonl")] == [1]
    assert f"- 2 questions left out: {rows.NO_FILE}" in text
    assert f"- 1 question left out: {rows.OTHER_SOUND}" in text
    with pytest.raises(RunError, match="has a file for none of the 1 questions"):
        export_hf(asked_of(questions[1:2]), media, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("export", [export_lmms, export_hf])
def test_nothing_is_overwritten_and_nothing_half_stays(
    export: Any, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(asked_of([question(1)]), media, out)  # an empty folder is taken
    before = (out / "README.md").read_bytes()
    with pytest.raises(RunError, match="out is there already; name another --out"):
        export(asked_of([question(2)]), media, out)
    assert (out / "README.md").read_bytes() == before

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(f"{export.__module__}.write_rows", full)
    with pytest.raises(RunError, match="cannot export to .*half: disk full"):
        export(asked_of([question(1)]), media, tmp_path / "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["media", "out"]


def test_a_folder_beside_is_left_alone_and_the_modes_are_those_of_any_folder(
    media: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "out.writing" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    export_hf(asked_of([question(1)]), media, tmp_path / "out")
    assert kept.read_text() == "mine"
    assert (tmp_path / "out").stat().st_mode == kept.parent.stat().st_mode
    with pytest.raises(RunError, match="cannot export to") as error:
        export_hf(asked_of([question(1)]), media, kept / "out")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["media", "out", "out.writing"]


@pytest.mark.parametrize(
    ("benchmark", "copied", "message"),
    [("music-avqa", True, "--copy-media is for"), ("fortisavqa", False, "is not exported")],
)
def test_the_command_refuses_what_a_task_cannot_hold(
    benchmark: str, copied: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "eval.exports.read_benchmark", lambda name, _: asked_of([question(1)], name)
    )
    args = argparse.Namespace(
        to="lmms-eval", benchmark=benchmark, annotations=None, media=tmp_path / "media"
    )
    vars(args).update(out=tmp_path / "out", copy_media=copied, private=False)
    with pytest.raises(RunError, match=message):
        run(args)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("to", "made"), [("lmms-eval", "utils.py"), ("huggingface", "data")])
def test_the_command_on_the_real_file(
    to: str, made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = DATA / "music-avqa/avqa-test.json"
    if not annotations.is_file():
        pytest.skip(f"{annotations} is absent: set AVQA_TEST_DATA to the folder of annotations")
    media, out = tmp_path / "media", tmp_path / "out"
    media.mkdir()
    of_one = {row["video_id"] for row in json.loads(annotations.read_text())[:40]}
    for name in of_one:
        (media / f"{name}.mp4").touch()
    args = argparse.Namespace(
        to=to,
        benchmark="music-avqa",
        annotations=annotations,
        media=media,
        out=out,
        copy_media=False,
        private=False,
    )
    assert not run(args)
    found = lines(out / "data/test.jsonl")
    assert (out / made).exists() and len(found) >= 40
    assert {row["video_id"] for row in found} == of_one
    assert all(row["answer"] in LABELS and row["question"].isprintable() for row in found)
    printed = capsys.readouterr().out
    assert f"{len(found):,} questions about {len(of_one):,} clips in {out}" in printed
    assert f"{9129 - len(found):,} questions are left out" in printed
