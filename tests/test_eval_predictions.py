"""Anybody's predictions: how rows are matched, what is refused, what is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main
from eval.benchmarks import read_benchmark
from eval.benchmarks.base import Question
from eval.matching import match
from eval.prediction_rows import read_predictions
from eval.predictions import file_only_checks, score
from eval.samples import PROBES, RESULTS, SAMPLES, SETTING, RunError, read_json, read_samples

DATA = Path(os.environ.get("AVQA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
LOUDER = "Is the <Object> louder than the <Object>?"


def data(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is absent: set AVQA_TEST_DATA to the folder of annotation files")
    return path


# --- files of our own -----------------------------------------------------------------------

V1 = (
    ("00000001", 1, "Audio", "Counting", "Is there a <Object> sound?", ["violin"], "yes"),
    ("00000001", 2, "Visual", "Location", "Where is the performance?", [], "indoor"),
    ("00000002", 3, "Audio", "Comparative", LOUDER, ["piano", "cello"], "no"),
    ("00000002", 4, "Audio-Visual", "Existential", "Is there a voiceover?", [], "no"),
)


def row(video: str, number: Any, scene: str, kind: str, text: str, slots: list[str], gold: str):
    raw = {"video_id": video, "question_id": number, "type": json.dumps([scene, kind])}
    return raw | {"question_content": text, "templ_values": json.dumps(slots), "anser": gold}


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    path = tmp_path / "test.json"
    path.write_text(json.dumps([row(*one) for one in V1]))
    return path


WORDINGS = ("Is there a {} sound", "can you hear a {}?", "Does a {}  sound?")


@pytest.fixture
def r(tmp_path: Path) -> Path:
    """A folder in the shape of R: two questions, each in three wordings."""
    folder = tmp_path / "r"
    folder.mkdir()
    for name, video, thing, gold in (("head", "1", "violin", "yes"), ("tail", "2", "drum", "no")):
        rows = [
            row(f"0000000{video}", int(video), "Audio", "Counting", text.format(thing), [], gold)
            for text in WORDINGS
        ]
        for one in rows:
            del one["templ_values"]
        (folder / f"avqa-test-{name}.json").write_text(json.dumps(rows))
    return folder


def write(path: Path, rows: Iterable[Any], *, listed: bool = False) -> Path:
    rows = list(rows)
    lines = "".join(json.dumps(one) + "\n" for one in rows)
    path.write_text(json.dumps(rows) if listed else lines)
    return path


def oracle(questions: Iterable[Question], **more: Callable[[Question], Any]) -> list[dict]:
    return [
        {"video_id": one.video_id, "question_id": one.question_id, "answer": one.gold}
        | {name: of(one) for name, of in more.items()}
        for one in questions
    ]


def of_v1(path: Path) -> tuple[Question, ...]:
    return read_benchmark("music-avqa", path).questions


# --- the way through ------------------------------------------------------------------------


def test_predictions_become_the_results_of_a_run(v1: Path, tmp_path: Path) -> None:
    rows = oracle(of_v1(v1), probability=lambda one: 0.25 * one.number)
    rows[1]["answer"] = "I do not know"
    rows[3]["answer"] = " Yes, there is one.\n"
    out = tmp_path / "out"
    results = score(
        benchmark="music-avqa",
        annotations=v1,
        predictions=write(tmp_path / "system.jsonl", rows),
        out=out,
        fit=v1,
        train=v1,
    )
    assert results["benchmark"] == "music-avqa"
    assert (results["overall"]["accuracy"], results["overall"]["n"]) == (0.5, 4)
    assert results["types"]["Visual Location"]["accuracy"] == 0
    assert results["no_answer"] == 1
    assert results["floor"]["overall"] == 1 and results["gain_over_floor"] == -0.5
    assert results["scorers"]["argmax"]["accuracy"] is None
    assert json.loads((out / RESULTS).read_text()) == results
    samples = read_samples(out)
    assert [one.row for one in samples] == [1, 2, 3, 4]
    assert samples[3].answer == " Yes, there is one.\n" and samples[3].label == "yes"
    assert samples[2].question == "Is the piano louder than the cello?"
    assert [one.probability for one in samples] == [0.25, 0.5, 0.75, 1.0]
    assert {one.engine_label for one in samples} == {one.consumed for one in samples} == {None}
    made = results["provenance"]
    assert (made["engine"], made["model"], made["mode"]) == ("file", "system", None)
    assert list(made["predictions"]) == ["system.jsonl"] and list(made["fit"]) == ["test.json"]
    assert (made["asked"], made["questions"], made["clips"]) == (4, 4, 2)
    assert (made["missing_questions"], made["missing_rows"], made["missing_clips"]) == (0, [], {})
    assert made["overlap"]["shared_videos"] == 2
    assert read_json(out / SETTING)["predictions"] == made["predictions"]
    assert not (out / PROBES).exists() and not list(out.glob("*.part"))


def test_the_integrity_of_predictions_is_unproven_but_for_what_a_file_shows(
    v1: Path, tmp_path: Path
) -> None:
    predictions = write(tmp_path / "p.jsonl", oracle(of_v1(v1)))
    results = score(
        benchmark="music-avqa", annotations=v1, predictions=predictions, out=tmp_path / "o"
    )
    states = {name: one["state"] for name, one in results["integrity"]["checks"].items()}
    assert [states.pop(name) for name in ("scorer", "files")] == ["pass", "pass"]
    assert len(states) == 7 and set(states.values()) == {"unproven"}
    assert results["integrity"]["valid"] is True
    assert results["floor"] is None


def test_answers_that_are_all_the_gold_answer_are_told(v1: Path, tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.jsonl", oracle(of_v1(v1)))
    score(benchmark="music-avqa", annotations=v1, predictions=predictions, out=tmp_path / "o")
    samples = read_samples(tmp_path / "o")
    assert file_only_checks(samples)["no gold leak"]["state"] == "unproven"  # four may be right
    assert file_only_checks(samples * 25)["no gold leak"]["state"] == "warn"


@pytest.mark.parametrize(
    ("benchmark", "name", "n"),
    [
        ("music-avqa", "music-avqa/avqa-test.json", 9129),
        ("music-avqa", "music-avqa/avqa-test.2022.json", 9185),
        ("music-avqa-v2", "music-avqa-v2/test_balance.json", 10819),
    ],
)
def test_the_gold_answers_of_the_real_files_score_100(
    benchmark: str, name: str, n: int, tmp_path: Path
) -> None:
    annotations = data(name)
    rows = oracle(read_benchmark(benchmark, annotations).questions)
    predictions = write(tmp_path / "gold.jsonl", rows)
    results = score(
        benchmark=benchmark, annotations=annotations, predictions=predictions, out=tmp_path / "o"
    )
    assert (f"{100 * results['overall']['accuracy']:.2f}", results["overall"]["n"]) == ("100.00", n)
    assert results["integrity"]["checks"]["no gold leak"]["state"] == "warn"


def test_real_rows_in_another_order_are_matched_by_id(tmp_path: Path) -> None:
    questions = of_v1(data("music-avqa/avqa-test.json"))
    rows = oracle(questions)
    rows.sort(key=lambda one: (one["answer"], one["question_id"]))
    predictions, _ = read_predictions(write(tmp_path / "p.json", rows, listed=True))
    found = match(predictions, questions)
    assert [one.answer for one in found if one] == [question.gold for question in questions]


def test_r_by_place_by_wording_and_in_part(r: Path, tmp_path: Path) -> None:
    questions = read_benchmark("music-avqa-r", r).questions
    assert len(questions) == 6
    rows = oracle(questions)
    rows[0]["answer"] = "no"
    wordings = oracle(questions, question=lambda one: one.question.upper())
    for name, predicted in (("place", rows), ("wording", wordings[::-1])):
        results = score(
            benchmark="music-avqa-r",
            annotations=r,
            predictions=write(tmp_path / f"{name}.jsonl", predicted),
            out=tmp_path / name,
        )
        assert results["overall"]["accuracy"] == (5 / 6 if name == "place" else 1)
        assert results["groups"]["tail"]["accuracy"] == 1
    results = score(
        benchmark="music-avqa-r",
        annotations=r,
        predictions=write(tmp_path / "part.jsonl", wordings[3:5]),
        out=tmp_path / "part",
        partial=True,
    )
    made = results["provenance"]
    assert (made["asked"], made["questions"], made["missing_questions"]) == (6, 2, 4)
    assert made["missing_rows"] == ["1-3", "6"]
    assert made["missing_clips"] == {
        "00000001": "no prediction for 3 of its 3 questions",
        "00000002": "no prediction for 1 of its 3 questions",
    }


# --- the command ---------------------------------------------------------------------------


def test_the_command_prints_percent_and_mistakes_in_one_line(
    v1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = oracle(of_v1(v1))
    command = ["score", "--benchmark", "music-avqa", "--annotations", str(v1)]
    command += ["--fit", str(v1), "--out", str(tmp_path / "out"), "--predictions"]
    assert main([*command, str(write(tmp_path / "p.jsonl", rows[1:]))]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "1 of 4 questions have no prediction (--partial scores the rest): row 1" in said.err
    assert main([*command, str(write(tmp_path / "p.jsonl", rows[1:])), "--partial"]) == 0
    said = capsys.readouterr()
    assert "100.00" in said.out and "no prediction for 1 of its 2 questions" in said.out
    assert "results.json" in said.out


# --- the folder -----------------------------------------------------------------------------


def test_a_folder_takes_one_file_of_predictions_and_no_run(v1: Path, tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.jsonl", oracle(of_v1(v1)))
    others = write(tmp_path / "q.jsonl", oracle(of_v1(v1), probability=lambda one: 0.5))
    out = tmp_path / "out"

    def again(given: Path, **more: Any) -> dict[str, Any]:
        return score(benchmark="music-avqa", annotations=v1, predictions=given, out=out, **more)

    first = again(predictions)
    assert again(predictions, fit=v1)["floor"] is not None and first["floor"] is None
    with pytest.raises(RunError, match="holds other predictions: choose another --out"):
        again(others)
    assert read_json(out / RESULTS)["floor"] is not None
    (out / SETTING).write_text('{"model": "tiny"}')
    with pytest.raises(RunError, match="holds a run"):
        again(predictions)
    (out / SETTING).unlink()
    with pytest.raises(RunError, match="unknown origin"):
        again(predictions)
    assert (out / SAMPLES).exists()


def test_nothing_is_written_for_predictions_that_do_not_fit(v1: Path, tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.jsonl", oracle(of_v1(v1))[:2])
    with pytest.raises(RunError, match="2 of 4 questions have no prediction"):
        score(benchmark="music-avqa", annotations=v1, predictions=predictions, out=tmp_path / "o")
    assert not (tmp_path / "o").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        score(
            benchmark="music-avqa",
            annotations=v1,
            predictions=predictions,
            out=tmp_path / "file",
            partial=True,
        )
