"""A run over clips: what is asked, what is written down, how it goes on, what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.answer import Answer, Consumed
from avqa_llm.media import Clip, Uniform, read_clip
from eval.__main__ import main
from eval.report import run_table, side_by_side
from eval.runner import Engine, Job, evaluate
from eval.samples import RESULTS, SAMPLES, RunError, read_samples
from instruct_data.sources.music_avqa import read_annotations
from tests.media_files import Picture, Sound, at_rate, make_media

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = (
    ('["Audio", "Counting"]', "How many musical instruments were heard throughout the video?"),
    ('["Visual", "Location"]', "Where is the performance?"),
    ('["Audio-Visual", "Existential"]', "Is there a voiceover?"),
)
GOLD = {
    "a": ("two", "indoor", "yes"),
    "b": ("two", "outdoor", "no"),
    "c": ("one", "indoor", "no"),
}


class Scripted:
    """Reads real files, and answers from a script: sound for what needs it, else a shrug."""

    def __init__(self, dies_at: str = "") -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.dies_at = dies_at

    def read(self, path: Path) -> Clip:
        return read_clip(path, sampling=Uniform(frames=2))

    def answer(
        self, clip: Clip, questions: Sequence[str], *, evidence: bool = False
    ) -> list[Answer]:
        name = Path(clip.path).stem
        if name == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append((name, tuple(questions)))
        return [self._answer(clip, GOLD[name][n], question) for n, question in enumerate(questions)]

    def _answer(self, clip: Clip, gold: str, question: str) -> Answer:
        needs_picture = question.startswith("Where")
        knows = clip.has_picture if needs_picture else clip.has_sound
        return Answer(
            answer=f"The answer is {gold}." if knows else "I do not know \ud800",
            label=gold,
            probability=1.00001 if knows else 0.25,
            consumed=Consumed(
                sound=clip.has_sound, picture=clip.has_picture, sound_tokens=3, picture_tokens=2
            ),
            warnings=("unlike the training world",),
        )


def never(model: str) -> Engine:
    raise AssertionError(f"{model} was loaded although nothing was left to answer")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three clips and a question file of nine rows."""
    folder = tmp_path_factory.mktemp("world")
    rows = []
    for question, (kind, content) in enumerate(QUESTIONS):  # clips interleaved, as in the benchmark
        for number, (name, golds) in enumerate(GOLD.items()):
            row = {"video_id": name, "type": kind, "question_content": content}
            row |= {"templ_values": "[]", "anser": golds[question]}
            rows.append(row | ({} if name == "c" else {"question_id": 10 * question + number}))
    (folder / "test.json").write_text(json.dumps(rows))
    for name in GOLD:
        make_media(folder / f"{name}.mp4", Picture(times_s=at_rate(5, 1)), Sound(seconds=1))
    return folder


def job(world: Path, out: Path, **changes: Any) -> Job:
    questions = world / "test.json"
    settings = {"annotations": questions, "fit": questions, "media": world, "out": out}
    return Job(**(settings | changes))


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / SAMPLES).read_text().splitlines()]


def test_a_run_asks_each_clip_once_and_writes_down_every_answer(
    world: Path, tmp_path: Path
) -> None:
    engine = Scripted()
    results = evaluate(job(world, tmp_path), lambda model: engine)
    assert [name for name, _ in engine.asked] == ["a", "b", "c"]
    assert all(asked == tuple(text for _, text in QUESTIONS) for _, asked in engine.asked)
    first = lines(tmp_path)[0]
    assert first.pop("seconds") > 0
    assert first == {
        "row": 1,
        "video_id": "a",
        "question_id": 0,
        "template": QUESTIONS[0][1],
        "type": "Audio Counting",
        "question": QUESTIONS[0][1],
        "gold": "two",
        "answer": "The answer is two.",
        "label": "two",
        "engine_label": "two",
        "probability": 1.0,
        "consumed": {"sound": True, "picture": True, "sound_tokens": 3, "picture_tokens": 2},
        "warnings": ["unlike the training world"],
    }
    assert results == json.loads((tmp_path / RESULTS).read_text())
    assert results["overall"] == {"accuracy": 1.0, "low": 1.0, "high": 1.0, "n": 9}
    assert list(results["types"]) == [
        "Audio Counting",
        "Visual Location",
        "Audio-Visual Existential",
    ]
    assert results["floor"]["overall"] == pytest.approx(6 / 9)
    assert results["gain_over_floor"] == pytest.approx(3 / 9)
    assert results["ece"] == 0 and results["no_answer"] == 0
    assert results["consumed"] == {"sound": 1.0, "picture": 1.0}
    made = results["provenance"]
    assert made["annotations"] == {
        "file": "test.json",
        "sha256": read_annotations(world / "test.json").sha256,
    }
    assert (made["clips"], made["questions"], made["missing_clips"]) == (3, 9, {})
    assert made["versions"]["numpy"] and made["date"] and made["seconds"] > 0
    assert not list(tmp_path.glob("*.part"))


def test_without_sound_or_picture_a_shrug_is_wrong_and_counted(world: Path, tmp_path: Path) -> None:
    muted = evaluate(job(world, tmp_path / "mute", mute=True), lambda model: Scripted())
    assert muted["overall"]["accuracy"] == pytest.approx(3 / 9)
    assert muted["types"]["Visual Location"]["accuracy"] == 1
    assert muted["types"]["Audio Counting"]["accuracy"] == 0
    assert muted["no_answer"] == muted["relabelled"] == 6
    assert muted["consumed"] == {"sound": 0.0, "picture": 1.0}
    assert muted["ece"] == pytest.approx(6 / 9 * 0.25)
    assert muted["provenance"]["mute"] and not muted["provenance"]["blank"]
    blank = evaluate(job(world, tmp_path / "blank", blank=True), lambda model: Scripted())
    assert blank["types"]["Visual Location"]["accuracy"] == 0
    assert blank["consumed"] == {"sound": 1.0, "picture": 0.0}


def test_an_engine_that_hears_a_muted_clip_is_stopped(world: Path, tmp_path: Path) -> None:
    class Cheat(Scripted):
        def answer(self, clip: Clip, questions: Sequence[str], **_: Any) -> list[Answer]:
            return super().answer(self.read(Path(clip.path)), questions)

    with pytest.raises(RuntimeError, match="taken away"):
        evaluate(job(world, tmp_path, mute=True), lambda model: Cheat())


def test_a_killed_run_goes_on_where_it_was(world: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(job(world, tmp_path), lambda model: Scripted(dies_at="b"))
    assert len(lines(tmp_path)) == 3 and not (tmp_path / RESULTS).exists()
    with pytest.raises(RunError, match="finish it"):
        side_by_side([tmp_path])
    # As if the kill had come while the second clip was being written.
    half = (tmp_path / SAMPLES).read_bytes()
    whole_b = half.splitlines(keepends=True)[0].replace(b'"row": 1', b'"row": 2')
    (tmp_path / SAMPLES).write_bytes(half + whole_b.replace(b'"a"', b'"b"') + whole_b[:40])
    engine = Scripted()
    results = evaluate(job(world, tmp_path), lambda model: engine)
    assert engine.asked[0] == ("b", tuple(text for _, text in QUESTIONS[1:]))
    assert engine.asked[1][0] == "c" and len(engine.asked) == 2
    assert [sample.row for sample in read_samples(tmp_path)] == list(range(1, 10))
    assert results["overall"]["n"] == 9
    again = evaluate(job(world, tmp_path), never)
    assert again["overall"] == results["overall"]


def test_a_folder_holds_one_setting(world: Path, tmp_path: Path) -> None:
    evaluate(job(world, tmp_path, limit=1), lambda model: Scripted())
    with pytest.raises(RunError, match="mute False, and this one has True; choose another"):
        evaluate(job(world, tmp_path, mute=True), never)
    with pytest.raises(RunError, match="model 'tiny'"):
        evaluate(job(world, tmp_path, model="other"), never)
    other = tmp_path / "other.json"
    other.write_text((world / "test.json").read_text() + "\n")
    with pytest.raises(RunError, match="annotations_sha256"):
        evaluate(job(world, tmp_path, annotations=other), never)


def test_a_limit_takes_the_first_questions_and_can_be_raised(world: Path, tmp_path: Path) -> None:
    assert evaluate(job(world, tmp_path, limit=4), lambda model: Scripted())["overall"]["n"] == 4
    engine = Scripted()
    assert evaluate(job(world, tmp_path), lambda model: engine)["overall"]["n"] == 9
    assert sum(len(asked) for _, asked in engine.asked) == 5
    assert evaluate(job(world, tmp_path, limit=4), never)["overall"]["n"] == 4
    assert "Questions                 4" in side_by_side([tmp_path])


def test_missing_and_broken_clips_are_listed_and_counted(world: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "a.mp4").write_bytes((world / "a.mp4").read_bytes())
    (media / "b.mp4").write_bytes(b"not a video")
    results = evaluate(job(world, tmp_path / "out", media=media), lambda model: Scripted())
    made = results["provenance"]
    assert list(made["missing_clips"]) == ["b", "c"]
    assert made["missing_questions"] == 6 and made["questions"] == 3
    assert results["floor"]["overall"] == pytest.approx(2 / 3)  # on the same three questions
    table = run_table(results)
    assert "MISSING: 2 clips with 6 questions are not in these figures:" in table
    assert "\n  c: there is no c.mp4" in table
    assert "[one video]" in table
    (media / "b.mp4").write_bytes((world / "b.mp4").read_bytes())
    again = evaluate(job(world, tmp_path / "out", media=media), lambda model: Scripted())
    assert list(again["provenance"]["missing_clips"]) == ["c"]


def test_without_any_clip_there_is_no_result(world: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="empty; a: there is no a.mp4"):
        evaluate(job(world, tmp_path / "out", media=tmp_path / "empty"), never)
    # Nothing was answered, so nothing is in the way of another setting.
    assert evaluate(job(world, tmp_path / "out", mute=True), lambda model: Scripted())
    with pytest.raises(RunError, match="not a folder"):
        evaluate(job(world, tmp_path / "out", media=tmp_path / "absent"), never)


def test_damaged_answers_are_named(world: Path, tmp_path: Path) -> None:
    evaluate(job(world, tmp_path), lambda model: Scripted())
    good = (tmp_path / SAMPLES).read_text()
    (tmp_path / SAMPLES).write_text(good + '{"row": 99}\n')
    with pytest.raises(RunError, match="line 10 is not an answer"):
        evaluate(job(world, tmp_path), never)
    (tmp_path / SAMPLES).write_text(good + good.splitlines()[0] + "\n")
    with pytest.raises(RunError, match="line 10 answers row 1 a second time"):
        evaluate(job(world, tmp_path), never)


def test_the_tables(world: Path, tmp_path: Path) -> None:
    full = evaluate(job(world, tmp_path / "full"), lambda model: Scripted())
    evaluate(job(world, tmp_path / "mute", mute=True), lambda model: Scripted())
    one = run_table(full)
    assert "model tiny on test.json (sha256 " in one
    assert (
        "\nOverall                       100.00   [100.00, 100.00]          9   66.67  +33.33\n"
        in one
    )
    assert "Sound reached the model for 100.00 % of the questions, picture for 100.00 %." in one
    both = side_by_side([tmp_path / "full", tmp_path / "mute"]).splitlines()
    assert both[2].split() == ["full", "mute"]
    assert both[3].split() == [
        "Overall",
        "100.00",
        "[100.00,",
        "100.00]",
        "33.33",
        "[33.33,",
        "33.33]",
    ]
    at = both.index(
        "Difference to full, paired on the same questions, with video-clustered intervals"
    )
    assert both[at + 3].split() == ["Overall", "-66.67", "[-66.67,", "-66.67]"]
    assert "Visual Location" in both[at + 5] and "+0.00" in both[at + 5]
    assert both[-1].split() == ["Questions", "in", "common", "9"]


def test_runs_on_different_files_are_not_paired(world: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text((world / "test.json").read_text() + "\n")
    evaluate(job(world, tmp_path / "x"), lambda model: Scripted())
    evaluate(job(world, tmp_path / "y", annotations=other), lambda model: Scripted())
    with pytest.raises(RunError, match="another question file"):
        side_by_side([tmp_path / "x", tmp_path / "y"])


# --- the command line -----------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, eval.__main__ as m; m.build_parser(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "av", "cv2", "tqdm"} & set(done.stdout.split())


def test_faults_of_the_input_are_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "absent.json")
    assert main(["floor", "--annotations", absent, "--fit", absent]) == 2
    said = capsys.readouterr().err
    assert said == f"python -m eval: cannot read {absent}: No such file or directory\n"
    assert main(["table", str(tmp_path)]) == 2
    assert "results.json" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5"])
def test_a_limit_is_a_positive_number(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["run", "--annotations", "a", "--fit", "a", "--media", "m", "--out", "o"]
    with pytest.raises(SystemExit) as stop:
        main([*line, f"--limit={limit}"])
    assert stop.value.code == 2 and "whole number" in capsys.readouterr().err


def test_eval_run_real(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--annotations", str(world / "test.json"), "--fit", str(world / "test.json")]
    for name, flags in (("full", []), ("mute", ["--mute"])):
        out = str(tmp_path / name)
        assert main(["run", *files, "--media", str(world), "--out", out, *flags]) == 0
        assert "\nOverall " in capsys.readouterr().out
    full, muted = (read_samples(tmp_path / name) for name in ("full", "mute"))
    assert len(full) == len(muted) == 9
    assert all(sample.consumed.sound and sample.consumed.picture for sample in full)
    assert not any(sample.consumed.sound for sample in muted)
    assert all(sample.label == sample.engine_label for sample in full)
    assert main(["table", str(tmp_path / "full"), str(tmp_path / "mute")]) == 0
