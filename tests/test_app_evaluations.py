"""The evaluation tab: runs listed and read, reports in a frame, a run started and stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import gradio as gr
import pytest

from app import jobs, runs
from app.evaluations import (
    compare,
    evaluation_tab,
    open_report,
    progress_bar,
    show_run,
    stop,
    watched,
)
from app.jobs import Runner, SmallRun
from app.runs import EvaluationError, finished, folder_of, read_run, report_frame
from tests import report_world

ESCAPES = ["..", "../up", "a/b", "/etc", "", ".hidden", "-rf", "a\n", "a b", "x" * 65, "é"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, the second with every answer right, and what is none."""
    folder = tmp_path_factory.mktemp("work") / "runs"
    asked = report_world.questions(6)
    report_world.finished(folder / "first", report_world.mostly_right(asked), asked)
    right = [report_world.answered(one, one.gold) for one in asked]
    report_world.finished(folder / "second", right, asked)
    (folder / "unfinished").mkdir()
    (folder / "notes.txt").write_text("none")
    os.utime(folder / "first" / "results.json", (1, 1))
    return folder


def test_finished_runs_are_listed_latest_first(folder: Path, tmp_path: Path) -> None:
    assert finished(folder) == ["second", "first"]
    assert finished(tmp_path / "absent") == []
    (tmp_path / "link").symlink_to(folder / "first")
    assert finished(tmp_path) == []


def test_a_run_is_read_and_said(folder: Path) -> None:
    run = read_run(folder, "first")
    assert (run.benchmark, run.model, run.questions, run.clips) == ("bandstand", "tiny", 12, 6)
    assert run.interval is not None and run.interval[0] <= run.accuracy <= run.interval[1]
    assert run.accuracy == pytest.approx(8 / 12)
    assert run.valid and run.says == "not proven: train overlap"
    html = show_run(folder, "first")
    assert "66.7 %" in html and "12 questions" in html and "Valid" in html
    assert "No finished run yet" in show_run(folder, None)


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_leads_out_of_the_folder(folder: Path, name: str) -> None:
    with pytest.raises(EvaluationError, match="is no name of a run"):
        folder_of(folder, name)
    assert "<iframe" not in open_report(folder, name)
    assert 'role="alert"' in compare(folder, "first", name)


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "sly").mkdir(parents=True)
    secret = tmp_path / "secret.html"
    secret.write_text("secret")
    (tmp_path / "runs" / "sly" / "report.html").symlink_to(secret)
    with pytest.raises(EvaluationError, match=r"sly has no report\.html"):
        report_frame(tmp_path / "runs", "sly")
    (tmp_path / "runs" / "link").symlink_to(folder / "first")
    with pytest.raises(EvaluationError, match="link to elsewhere"):
        report_frame(tmp_path / "runs", "link")


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "holds no results"),
        ("{}", "lack what is needed .*overall"),
        ('{"overall": 3, "provenance": 1, "integrity": 2, "floor": null}', "lack what is needed"),
        ("\x00\xff", "is no JSON"),
    ],
    ids=["cut", "deep", "list", "empty", "numbers", "bytes"],
)
def test_broken_results_are_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.json").write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_run(tmp_path, "bad")
    assert 'role="alert"' in show_run(tmp_path, "bad")


def test_figures_that_are_none_are_not_shown(folder: Path, tmp_path: Path) -> None:
    results = json.loads((folder / "first" / "results.json").read_text())
    results["overall"]["accuracy"] = float("nan")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "results.json").write_text(json.dumps(results))
    with pytest.raises(EvaluationError, match="nan is no share"):
        read_run(tmp_path, "odd")


def test_what_a_run_says_stays_text(folder: Path, tmp_path: Path) -> None:
    results = json.loads((folder / "first" / "results.json").read_text())
    results["provenance"]["model"] = results["benchmark"] = "<script>alert(1)</script>"
    results["integrity"]["checks"] = {"<b>x": {"state": "fail"}}
    results["integrity"]["valid"] = False
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "results.json").write_text(json.dumps(results))
    html = show_run(tmp_path, "evil")
    assert "<script" not in html and "<b>" not in html
    assert "INVALID" in html and "failed: &lt;b&gt;x" in html


def test_a_report_is_written_and_framed(folder: Path) -> None:
    assert not (folder / "second" / "report.html").exists()
    html = open_report(folder, "second")
    report = (folder / "second" / "report.html").read_text()
    assert html.startswith("<iframe") and ' sandbox="allow-scripts"' in html
    inside = unescape(html.partition('srcdoc="')[2].partition('" sandbox')[0])
    assert inside == runs.REACHES_NOTHING + report
    assert "allow-same-origin" not in html


def test_a_report_that_is_too_large_is_not_sent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_report(folder, "second")
    monkeypatch.setattr(runs, "LARGEST_REPORT", 1000)
    assert "open the file itself" in open_report(folder, "second")


def test_two_runs_are_compared(folder: Path) -> None:
    html = compare(folder, "first", "second")
    assert "<pre" in html and "66.67" in html and "100.00" in html
    assert str(folder) not in html
    assert "choose two different runs" in compare(folder, "first", "first")
    assert "no run is chosen" in compare(folder, "first", None)
    assert "not finished or not there" in compare(folder, "first", "unfinished")


# -- starting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ({"benchmark": "music-avqa"}, "cannot be started here"),
        ({"clips": 41}, "41 clips: from 1 to 40"),
        ({"questions": 0}, "0 questions: from 1 to 2000"),
    ],
)
def test_only_small_runs_are_started(change: dict, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        SmallRun(**{"name": "small", **change})


def test_what_cannot_be_started_is_said(folder: Path) -> None:
    runner = Runner(folder, ["tiny"])
    for name, model, message in (
        ("../up", "tiny", "is no name of a run"),
        ("first", "tiny", "is finished: give another name"),
        ("new", "openai:gpt --base-url http://elsewhere", "is not offered here"),
    ):
        (html,) = watched(runner, name, "bandstand", model, 1, 10)
        assert 'role="alert"' in html and message in unescape(html)
    assert runner.state() is None and not runner.stop()
    assert progress_bar(None) == stop(runner)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path / "runs", ["tiny"])
    yield made
    made.stop()


@pytest.mark.slow
def test_a_real_run_is_started_watched_stopped_and_goes_on(runner: Runner) -> None:
    wanted = ("small", "bandstand", "tiny", 1, 10)
    watching = watched(runner, *wanted)
    assert "small" in next(watching)
    assert "still runs" in next(watched(runner, "other", "bandstand", "tiny", 1, 10))
    until = time.monotonic() + 60
    while time.monotonic() < until and not (runner.runs / "small").exists():
        time.sleep(0.2)
    assert "was stopped" in stop(runner)
    assert "was stopped" in list(watching)[-1]
    assert finished(runner.runs) == []
    seen = list(watched(runner, *wanted))
    assert "is finished" in seen[-1]
    assert any("aria-valuenow" in html for html in seen)
    assert finished(runner.runs) == ["small"]
    run = read_run(runner.runs, "small")
    assert (run.model, run.clips, run.interval) == ("tiny", 1, None)
    assert "one clip: no interval" in show_run(runner.runs, "small")


def test_a_run_that_fails_says_why(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "taken").write_text("a file where the folder should be")
    *_, last = watched(runner, "taken", "bandstand", "tiny", 1, 10)
    state = runner.state()
    assert state is not None and state.status not in (0, None)
    assert 'role="alert"' in last and "taken" in last


def test_a_run_that_does_not_listen_is_killed(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = "import signal, time; signal.signal(2, signal.SIG_IGN); print('deaf'); time.sleep(600)"
    monkeypatch.setattr(jobs, "_command", lambda _: [jobs.sys.executable, "-u", "-c", deaf])
    monkeypatch.setattr(jobs, "LEAVING_S", 0.5)
    runner.start(SmallRun(name="deaf"))
    until = time.monotonic() + 30
    while time.monotonic() < until and "deaf" not in runner.state().line:  # type: ignore[union-attr]
        time.sleep(0.05)
    assert runner.stop()
    state = runner.state()
    assert state is not None and state.status == -9 and "was stopped" in progress_bar(state)


def test_the_tab_builds_and_keeps_its_buttons_private(folder: Path) -> None:
    with gr.Blocks() as page, gr.Tab("Evaluations"):
        evaluation_tab(folder)
    assert all(fn.api_visibility == "private" for fn in page.fns.values() if fn.fn)
    labels = {getattr(block, "label", None) for block in page.blocks.values()}
    assert {"Finished run", "Compare with", "Benchmark", "Name of the run"} <= labels
