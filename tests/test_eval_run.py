"""A run over clips: what is asked, what is written down, how it goes on, what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.answer import Answer
from avqa_llm.errors import AnnotationError
from avqa_llm.media import Clip
from eval import job as jobs
from eval.__main__ import main
from eval.engines import Asked, Engine
from eval.merge import merge
from eval.runner import evaluate
from eval.samples import RESULTS, SAMPLES, RunError, read_probes, read_samples
from eval.tables import run_table, side_by_side
from tests.eval_world import QUESTIONS, Scripted, gold, job, make_world, name

ROOT = Path(__file__).resolve().parent.parent
CLIPS = 7


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), CLIPS)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "CHUNK_CLIPS", 2)


def never() -> Engine:
    raise AssertionError("the engine was loaded although nothing was left to answer")


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / SAMPLES).read_text().splitlines()]


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    made = {k: v for k, v in results["provenance"].items() if k not in ("date", "seconds")}
    return results | {"provenance": made}


def test_a_run_asks_every_question_once_and_writes_down_every_answer(
    world: Path, tmp_path: Path
) -> None:
    engine = Scripted()
    results = evaluate(job(world, tmp_path), lambda: engine)
    written = lines(tmp_path)
    assert sorted(row["row"] for row in written) == list(range(1, 3 * CLIPS + 1))
    assert [row["video_id"] for row in written[:6]] == [name(0)] * 3 + [name(1)] * 3
    first = written[0]
    assert first.pop("seconds") > 0
    assert first == {
        "row": 1,
        "video_id": name(0),
        "question_id": 0,
        "template": QUESTIONS[0][1],
        "type": "Audio Counting",
        "question": QUESTIONS[0][1],
        "gold": "one",
        "sound_of": None,
        "answer": "The answer is one.",
        "label": "one",
        "engine_label": "one",
        "probability": 1.0,
        "alternatives": [],
        "consumed": {"sound": True, "picture": True, "sound_tokens": 3, "picture_tokens": 2},
        "evidence": [],
        "warnings": ["unlike the training world"],
    }
    assert results == json.loads((tmp_path / RESULTS).read_text())
    assert results["overall"]["accuracy"] == 1.0 and results["overall"]["n"] == 3 * CLIPS
    assert results["no_answer"] == 0 and results["integrity"]["valid"]
    made = results["provenance"]
    assert list(made["files"]) == ["test.json"] and len(made["files"]["test.json"]) == 64
    assert (made["clips"], made["questions"], made["missing_clips"]) == (CLIPS, 3 * CLIPS, {})
    assert made["versions"]["numpy"] and made["date"] and made["seconds"] > 0
    assert not list(tmp_path.glob("*.part"))


def test_without_sound_or_picture_a_shrug_is_wrong_and_counted(world: Path, tmp_path: Path) -> None:
    muted = evaluate(job(world, tmp_path / "mute", mute=True), Scripted)
    assert muted["overall"]["accuracy"] == pytest.approx(1 / 3)
    assert muted["types"]["Visual Location"]["accuracy"] == 1
    assert muted["types"]["Audio Counting"]["accuracy"] == 0
    assert muted["no_answer"] == 2 * CLIPS
    assert muted["provenance"]["mute"] and not muted["provenance"]["blank"]
    blank = evaluate(job(world, tmp_path / "blank", blank=True), Scripted)
    assert blank["types"]["Visual Location"]["accuracy"] == 0


def test_an_engine_that_hears_a_muted_clip_is_stopped(world: Path, tmp_path: Path) -> None:
    class Cheat(Scripted):
        def answer(self, clips: Sequence[Clip], asked: Sequence[Asked], **_: Any) -> list[Answer]:
            return super().answer([self.read(Path(clip.path)) for clip in clips], asked)

    with pytest.raises(RuntimeError, match="consumed what"):
        evaluate(job(world, tmp_path, mute=True), Cheat)


# --- going on -------------------------------------------------------------------------------


def test_an_interrupted_run_asks_only_what_is_left(world: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(job(world, tmp_path), lambda: Scripted(dies_at=name(3)))
    kept = len(lines(tmp_path))
    assert 0 < kept < 3 * CLIPS and not (tmp_path / RESULTS).exists()
    with pytest.raises(RunError, match="finish it"):
        side_by_side([tmp_path])
    # As if the kill had come while the next chunk was being written.
    with (tmp_path / SAMPLES).open("ab") as file:
        file.write(file.name.encode() + b'\n{"row": 4')
    engine = Scripted()
    results = evaluate(job(world, tmp_path), lambda: engine)
    assert name(0) not in {clip for clip, _ in engine.asked}
    assert results["overall"]["n"] == 3 * CLIPS
    again = evaluate(job(world, tmp_path), never)
    assert timeless(again) == timeless(results)


_KILLED = """
import sys, time
from pathlib import Path
from eval import job as jobs
from eval.runner import evaluate
from tests.eval_world import Scripted, job
jobs.CHUNK_CLIPS = 2
world, out = map(Path, sys.argv[1:])
evaluate(job(world, out, probes=("mute", "mirror")), lambda: Scripted(seconds=0.02))
"""


def _start(world: Path, out: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-c", _KILLED, str(world), str(out)]
    return subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL)


def _answers(out: Path) -> int:
    path = out / SAMPLES
    return path.stat().st_size if path.exists() else 0


def test_killed_ten_times_a_run_ends_as_if_it_had_not_been(world: Path, tmp_path: Path) -> None:
    assert _start(world, tmp_path / "whole").wait() == 0
    out, kills = tmp_path / "killed", 0
    for n in range(10):
        written = _answers(out)
        running = _start(world, out)
        # The first kills come at any moment, later ones after answers were written.
        while n < 2 or _answers(out) == written:
            time.sleep(0.3 * (n + 1) if n < 2 else 0.01)
            if n < 2 or running.poll() is not None:
                break
        kills += running.poll() is None
        running.kill()
        running.wait()
    assert kills >= 4, "the run was over before it could be killed"
    assert _start(world, out).wait() == 0
    whole, killed = (
        timeless(json.loads((folder / RESULTS).read_text())) for folder in (tmp_path / "whole", out)
    )
    assert killed == whole
    for file in (SAMPLES, "probes.jsonl", "control.jsonl"):
        one, other = (
            [json.loads(line) | {"seconds": 0} for line in (folder / file).open()]
            for folder in (tmp_path / "whole", out)
        )
        assert one == other and one


def test_shards_merge_to_the_whole_run(world: Path, tmp_path: Path) -> None:
    whole = evaluate(job(world, tmp_path / "whole", probes=("blank",)), Scripted)
    parts = [tmp_path / "1", tmp_path / "2"]
    for n, part in enumerate(parts, 1):
        evaluate(job(world, part, shard=(n, 2), probes=("blank",)), Scripted)
    merged = merge(parts, tmp_path / "merged")
    one, other = timeless(merged), timeless(whole)
    assert one == other
    assert [row["row"] for row in lines(tmp_path / "merged")] == [
        row["row"] for row in lines(tmp_path / "whole")
    ]
    with pytest.raises(RunError, match="name each of them once"):
        merge(parts[:1], tmp_path / "half")
    with pytest.raises(RunError, match="fewer than 9 shards"):
        evaluate(job(world, tmp_path / "9", shard=(1, 9)), never)
    evaluate(job(world, tmp_path / "other", shard=(2, 2)), Scripted)
    with pytest.raises(RunError, match=r"probes \[\], and this one has \['blank'\]"):
        merge([parts[0], tmp_path / "other"], tmp_path / "mixed")
    with pytest.raises(AnnotationError, match="cannot read"):
        merge(parts, tmp_path / "moved", annotations=tmp_path / "absent.json")
    reworded = tmp_path / "test.json"
    reworded.write_text((world / "test.json").read_text().replace('"yes"', '"no"', 1))
    with pytest.raises(RunError, match="files"):
        merge(parts, tmp_path / "reworded", annotations=reworded)
    text = (parts[1] / SAMPLES).read_bytes()
    (parts[1] / SAMPLES).write_bytes(text[: len(text) // 2])
    with pytest.raises(RunError, match="copy it again"):
        merge(parts, tmp_path / "damaged")


def test_two_workers_write_what_one_writes(world: Path, tmp_path: Path) -> None:
    evaluate(job(world, tmp_path / "one"), Scripted)
    evaluate(job(world, tmp_path / "two"), Scripted, workers=2)
    one, two = (
        [row | {"seconds": 0} for row in lines(tmp_path / folder)] for folder in ("one", "two")
    )
    assert one == two


# --- what is asked --------------------------------------------------------------------------


def test_a_folder_holds_one_setting(world: Path, tmp_path: Path) -> None:
    evaluate(job(world, tmp_path, limit=1), Scripted)
    with pytest.raises(RunError, match="mute False, and this one has True; choose another"):
        evaluate(job(world, tmp_path, limit=1, mute=True), never)
    with pytest.raises(RunError, match="limit 1, and this one has None"):
        evaluate(job(world, tmp_path), never)
    other = tmp_path / "test.json"
    other.write_text((world / "test.json").read_text() + "\n")
    with pytest.raises(RunError, match="files"):
        evaluate(job(world, tmp_path, limit=1, annotations=other), never)


def test_a_subset_keeps_the_share_of_each_type(world: Path, tmp_path: Path) -> None:
    results = evaluate(job(world, tmp_path, subset=7), Scripted)
    assert results["overall"]["n"] == 7
    assert sorted(one["n"] for one in results["types"].values()) == [2, 2, 3]
    rows = [row["row"] for row in lines(tmp_path)]
    evaluate(job(world, tmp_path / "again", subset=7), Scripted)
    assert [row["row"] for row in lines(tmp_path / "again")] == rows


def test_missing_and_broken_clips_are_listed_and_counted(world: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    (media / "below").mkdir(parents=True)
    for clip in range(2, CLIPS):
        source = world / f"{name(clip)}.mp4"
        (media / "below" / source.name).write_bytes(source.read_bytes())
    (media / f"{name(1)}.mp4").write_bytes(b"not a video")
    results = evaluate(job(world, tmp_path / "out", media=media), Scripted)
    made = results["provenance"]
    assert list(made["missing_clips"]) == [name(0), name(1)]
    assert made["missing_questions"] == 6 and made["questions"] == 3 * CLIPS - 6
    table = run_table(results)
    assert table.index("MISSING: 2 clips with 6 questions") < table.index("\nOverall")
    assert f"{name(0)}: there is no such file" in table
    (media / f"{name(1)}.mp4").write_bytes((world / f"{name(1)}.mp4").read_bytes())
    again = evaluate(job(world, tmp_path / "out", media=media), Scripted)
    assert list(again["provenance"]["missing_clips"]) == [name(0)]


def test_without_any_clip_there_is_no_result(world: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="there is no such file"):
        evaluate(job(world, tmp_path / "out", media=tmp_path / "empty"), Scripted)
    with pytest.raises(RunError, match="not a folder"):
        evaluate(job(world, tmp_path / "out", media=tmp_path / "absent"), never)


def test_probes_are_asked_about_each_question(world: Path, tmp_path: Path) -> None:
    results = evaluate(job(world, tmp_path, probes=("mute", "mirror")), Scripted)
    probes = read_probes(tmp_path)
    assert {probe.probe for probe in probes} == {"mute", "mirror"}
    muted = results["probes"]["mute"]
    assert muted["should_stay"] == {
        "n": CLIPS,
        "steady": CLIPS,
        "flighty": 0,
        "silent": 0,
    }
    assert muted["unknown"]["n"] == 2 * CLIPS


def test_a_folder_is_used_by_one_process_and_never_taken_over(world: Path, tmp_path: Path) -> None:
    class Second(Scripted):
        """Starts another run on the same folder while this one answers."""

        def answer(self, *args: Any, **options: Any) -> list[Answer]:
            with pytest.raises(RunError, match="another process is writing"):
                evaluate(job(world, tmp_path / "run"), never)
            return super().answer(*args, **options)

    assert evaluate(job(world, tmp_path / "run"), Second)["overall"]["n"] == 3 * CLIPS
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / SAMPLES).write_text("my own notes\n")
    with pytest.raises(RunError, match="of no run"):
        evaluate(job(world, tmp_path / "own"), never)
    assert (tmp_path / "own" / SAMPLES).read_text() == "my own notes\n"


def test_old_results_do_not_outlive_their_answers(world: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for clip in range(1, CLIPS):
        (media / f"{name(clip)}.mp4").write_bytes((world / f"{name(clip)}.mp4").read_bytes())
    evaluate(job(world, tmp_path / "out", media=media), Scripted)
    (media / f"{name(0)}.mp4").write_bytes((world / f"{name(0)}.mp4").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        evaluate(job(world, tmp_path / "out", media=media), lambda: Scripted(dies_at=name(4)))
    assert not (tmp_path / "out" / RESULTS).exists()


def test_files_beside_are_read_before_anything_is_answered(world: Path, tmp_path: Path) -> None:
    for option in ("fit", "train"):
        with pytest.raises(AnnotationError, match="absent"):
            evaluate(job(world, tmp_path / "out", **{option: tmp_path / "absent.json"}), never)


def test_a_broken_sound_is_charged_to_its_own_file(world: Path, tmp_path: Path) -> None:
    rows = json.loads((world / "test.json").read_text())[:2]
    rows[1] |= {"unmatch_audio": name(5)}
    questions = tmp_path / "v2.json"
    questions.write_text(json.dumps(rows))
    media = tmp_path / "media"
    media.mkdir()
    for clip in (0, 1):
        (media / f"{name(clip)}.mp4").write_bytes((world / f"{name(clip)}.mp4").read_bytes())
    (media / f"{name(5)}.mp4").write_text("no clip")
    mine = job(
        world,
        tmp_path / "out",
        benchmark="music-avqa-v2",
        annotations=questions,
        fit=questions,
        media=media,
    )
    assert list(evaluate(mine, Scripted)["provenance"]["missing_clips"]) == [name(5)]
    (media / f"{name(5)}.mp4").write_bytes((world / f"{name(5)}.mp4").read_bytes())
    again = evaluate(mine, Scripted)
    assert again["provenance"]["missing_clips"] == {} and again["overall"]["n"] == 2


def test_damaged_answers_are_named(world: Path, tmp_path: Path) -> None:
    evaluate(job(world, tmp_path), Scripted)
    good = (tmp_path / SAMPLES).read_text()
    (tmp_path / SAMPLES).write_text(good.replace('"row": 2,', '"rwo": 2,'))
    with pytest.raises(RunError, match="is not an answer"):
        evaluate(job(world, tmp_path), never)
    (tmp_path / SAMPLES).write_text(good[:100])
    with pytest.raises(RunError, match="shorter"):
        evaluate(job(world, tmp_path), never)


def test_runs_on_different_files_are_not_paired(world: Path, tmp_path: Path) -> None:
    other = tmp_path / "test.json"
    other.write_text((world / "test.json").read_text() + "\n")
    evaluate(job(world, tmp_path / "x"), Scripted)
    evaluate(job(world, tmp_path / "y", annotations=other), Scripted)
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
    run = ["run", "--benchmark", "music-avqa", "--out", str(tmp_path / "x")]
    assert main(run) == 2
    assert "needs --annotations and --media" in capsys.readouterr().err
    files = ["--annotations", absent, "--media", str(tmp_path)]
    assert main([*run, *files, "--probes", "mute,moot"]) == 2
    assert "no probe 'moot'" in capsys.readouterr().err
    assert main([*run, *files, "--model", "openai:x"]) == 2


@pytest.mark.parametrize(
    "option", ["--limit=0", "--limit=-1", "--subset=x", "--shard=3/2", "--shard=2", "--workers=0"]
)
def test_numbers_are_checked(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "--benchmark", "bandstand", "--out", "o", option])
    assert stop.value.code == 2 and option.partition("=")[2] in capsys.readouterr().err


def test_the_shipped_model_runs(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--annotations", str(world / "test.json"), "--fit", str(world / "test.json")]
    line = ["run", "--benchmark", "music-avqa", *files, "--media", str(world), "--limit", "9"]
    for folder, flags in (("full", []), ("mute", ["--mute"])):
        out = str(tmp_path / folder)
        assert main([*line, "--out", out, "--workers", "1", *flags]) == 0
        assert "\nOverall " in capsys.readouterr().out
    full, muted = (read_samples(tmp_path / folder) for folder in ("full", "mute"))
    assert len(full) == len(muted) == 9
    assert all(one.consumed and one.consumed.sound and one.consumed.picture for one in full)
    assert not any(one.consumed and one.consumed.sound for one in muted)
    assert all(one.label == one.engine_label for one in full)
    assert all(one.gold == gold(int(one.video_id), 0) for one in full if "heard" in one.question)
    assert main(["table", str(tmp_path / "full"), str(tmp_path / "mute")]) == 0
