"""The report: a page that fetches nothing and runs nothing but its own, and Markdown beside it."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.labels import NO_ANSWER
from eval.report import browser, run, write_report
from eval.report.svg import around_zero
from eval.report.words import verdict
from eval.samples import PROBES, RESULTS, SAMPLES, RunError, write_json
from tests.report_world import (
    HOSTILE,
    Page,
    answered,
    assert_tables_fit,
    browser_field,
    finished,
    mostly_right,
    muted,
    questions,
)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    asked = questions(6)
    samples = mostly_right(asked)
    return finished(tmp_path / "run", samples, asked, probes=muted(samples))


# --- the page -------------------------------------------------------------------------------


def test_the_page_says_what_the_files_say(whole: Path) -> None:
    html, markdown = write_report([whole])
    page = Page(html)
    assert (html, markdown) == (whole / "report.html", whole / "report.md")
    assert "Valid, with 1 check unproven: 66.67 % of 12 questions right" in page.text
    assert "train overlap unproven: no training file was named." in page.text
    titles = [found["id"] for tag, found in page.elements if tag == "h2" and "id" in found]
    assert titles == [
        *("types", "groups", "modalities", "scorers", "probes"),
        *("calibration", "bias", "confusion", "provenance", "answers"),
    ]
    assert "66.67 %" in markdown.read_text()
    assert list(whole.glob("*.part")) == []


def test_every_place_that_the_page_links_to_is_there(whole: Path) -> None:
    page = Page(write_report([whole])[0])
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    links = {found["href"] for found in page.named("a")}
    assert links <= {f"#{name}" for name in ids}


def test_nothing_is_fetched(whole: Path) -> None:
    page = Page(write_report([whole])[0])
    for tag, found in page.elements:
        assert not {"src", "srcset", "action", "style", "onclick"} & found.keys(), (tag, found)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", page.html)
    assert "http://" not in page.html and "https://" not in page.html


def test_no_script_may_run_but_the_pages_own(whole: Path) -> None:
    page = Page(write_report([whole])[0])
    (policy,) = page.named("meta", **{"http-equiv": "Content-Security-Policy"})
    data, script = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in str(policy["content"])
    assert str(policy["content"]).startswith("default-src 'none';")


def test_what_a_model_says_is_never_markup(tmp_path: Path) -> None:
    asked = questions(3)
    folder = finished(tmp_path / "run", [answered(one, "yes") for one in asked], asked)
    said = {"answer": HOSTILE, "warnings": (HOSTILE,), "engine_label": None}
    samples = [replace(answered(one, HOSTILE, **said), question=HOSTILE) for one in asked]
    probes = [replace(one, answer=HOSTILE, label=HOSTILE) for one in muted(samples)]
    (folder / SAMPLES).write_text("".join(one.to_line() for one in samples))
    (folder / PROBES).write_text("".join(one.to_line() for one in probes))
    results = json.loads((folder / RESULTS).read_text())
    tame = HOSTILE.replace("\ud800", "")
    results["types"] = {tame: results["overall"]}
    results["templates"] = {tame: results["overall"] | {"floor": None}}
    results["confusion"] = [[tame, "yes", 3]]
    results["provenance"]["missing_clips"] = {tame: tame}
    results["integrity"]["checks"] = {tame: {"state": "fail", "says": tame}}
    write_json(folder / RESULTS, results)
    html, markdown = write_report([folder])
    page = Page(html)
    assert len(page.scripts) == 2
    assert page.named("img") == []
    shown = page.data["samples"][0]
    assert shown[browser_field("question")] == HOSTILE
    assert HOSTILE in page.data["strings"]
    text = markdown.read_text(encoding="utf-8")
    assert "<script" not in text and "<img" not in text
    assert_tables_fit(text)


def test_a_row_of_the_browser_has_all_that_is_known(whole: Path) -> None:
    data = Page(write_report([whole])[0]).data
    strings, row = data["strings"], data["samples"][2]

    def found(name: str) -> Any:
        return row[browser_field(name)]

    assert found("row") == 3
    assert [strings[found(name)] for name in ("video", "type", "gold", "label")] == [
        *("00000001", "Audio Counting", "no", "violin")
    ]
    assert (found("answer"), found("outcome"), found("probability")) == (0, 0, 0.75)
    assert [[strings[label], share] for label, share in found("alternatives")] == [["piano", 0.1]]
    assert found("consumed") == [3, 2]
    assert found("evidence") == [[0, 1, 2, 0.5], [1, 0, 1, 0.5, 0, 0, 0.5, 0.5]]
    assert [strings[one[0]] for one in found("probes")] == ["mute", "noise-20", "noise-0"]
    assert data["says"] == "All 12 answers are here."
    assert data["runs"] == [{"name": "run", "media": "../clips/"}]


# --- what may be missing --------------------------------------------------------------------


def test_one_clip_without_floor_probabilities_or_checks(tmp_path: Path) -> None:
    asked = questions(1)
    bare = {"probability": None, "consumed": None, "evidence": (), "alternatives": ()}
    samples = [answered(one, NO_ANSWER, answer="", **bare) for one in asked]
    folder = finished(tmp_path / "run", samples, asked, floor=False, integrity=None)
    html, markdown = write_report([folder])
    text = Page(html).text
    assert "Unproven, no integrity check is on record: 0.00 % of 2 questions right" in text
    assert "no blind floor to compare with; what it listens to was not tested." in text
    assert "calibration" not in text.lower()
    assert assert_tables_fit(markdown.read_text()) > 3


def test_an_invalid_run_is_not_to_be_overlooked(whole: Path) -> None:
    results = json.loads((whole / RESULTS).read_text())
    leak = {"state": "fail", "says": "GOLD LEAK: 9 of 9 planted answers came back"}
    results["integrity"] = {"valid": False, "checks": {"no gold leak": leak}}
    results["provenance"] |= {"missing_clips": {"c": "no such file"}, "missing_questions": 33}
    write_json(whole / RESULTS, results)
    page = Page(write_report([whole])[0])
    said = "INVALID, do not quote the 66.67 % of 12 questions: GOLD LEAK: 9 of 9 planted answers"
    assert said in page.text
    assert page.named("h1", **{"class": "invalid"})
    assert "1 clip missing or broken: 33 questions could not be asked" in page.text
    assert said in (whole / "report.md").read_text()


def test_probes_show_what_should_stay_and_what_cannot_be_known(whole: Path) -> None:
    text = Page(write_report([whole])[0]).text
    # Performances are indoor or outdoor: "yes" is neither what was said nor what is right.
    assert "100.00 % flighty, n 6" in text
    # The sound is gone. Two of six questions about it were answered with yes before, too.
    assert "33.33 % same answer, n 6" in text
    assert "signal to noise, dB" in text
    assert "the clip has no sound" in text


@pytest.mark.parametrize(
    ("gain", "bounds", "said"),
    [
        (0.1, [0.05, 0.15], "10.00 points [5.00, 15.00] above the blind floor"),
        (0.01, [-0.02, 0.04], "not measurably above the blind floor [-2.00, +4.00]"),
        (-0.1, [-0.15, -0.05], "10.00 points below the blind floor [-15.00, -5.00]"),
        (0.1, None, "10.00 points above the blind floor, no interval"),
        (None, None, "no blind floor to compare with"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(
    gain: float | None, bounds: list[float] | None, said: str
) -> None:
    overall = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 9, "videos": 3}
    results = {"overall": overall, "gain_over_floor": gain, "gain_interval": bounds}
    assert said in verdict(results)


@pytest.mark.parametrize(
    ("sound", "picture", "said"),
    [
        ((0.1, 0.05), (0.2, 0.1), "it uses the sound (adds 10.00) and the picture (adds 20.00)"),
        ((0.1, -0.1), (0.2, 0.1), "the picture (adds 20.00) but not measurably the sound"),
        ((0.0, -0.1), (0.0, -0.1), "neither sound nor picture adds anything measurable"),
        ((0.1, None), (0.2, None), "cannot be told from so few clips"),
        ((0.0, -0.1), None, "the sound adds nothing measurable; the picture was not tested"),
        ((0.1, 0.05), None, "it uses the sound (adds 10.00); the picture was not tested"),
    ],
)
def test_the_verdict_says_what_it_listens_to(
    sound: tuple[float, float | None], picture: tuple[float, float | None] | None, said: str
) -> None:
    overall = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 9, "videos": 3}
    adds = {
        f"{name} adds": {"value": one[0], "low": one[1], "high": one[1] and one[0] + 0.1}
        for name, one in (("sound", sound), ("picture", picture))
        if one is not None
    }
    assert said in verdict({"overall": overall, "modalities": adds})


def test_a_scale_for_differences_holds_them_around_zero() -> None:
    for reach in (0.0, 0.004, 0.07, 0.31, 0.99):
        scale = around_zero([reach, -reach / 2])
        assert scale.high == -scale.low >= reach
        assert scale.at(0.0) == "50.00%"


# --- more runs ------------------------------------------------------------------------------


def test_two_runs_are_compared_question_by_question(tmp_path: Path) -> None:
    asked = questions(6)
    first = finished(tmp_path / "good", [answered(one, one.gold) for one in asked], asked)
    second = finished(tmp_path / "bad", [answered(one, "violin") for one in asked], asked)
    html, markdown = write_report([first, second], out=tmp_path / "both")
    page = Page(html)
    assert html.parent == tmp_path / "both"
    assert "good is better by 100.00 points" in page.text
    assert "good is better by 100.00 points" in markdown.read_text()
    assert [one["name"] for one in page.data["runs"]] == ["good", "bad"]
    strings, row = page.data["strings"], page.data["samples"][0]
    ((label, outcome, text, _),) = row[browser_field("others")]
    assert (strings[label], outcome, text) == ("violin", 0, 0)
    assert assert_tables_fit(markdown.read_text()) > 3


def test_runs_on_other_questions_are_not_compared(tmp_path: Path) -> None:
    asked = questions(2)
    other = [replace(one, question="Another?") for one in asked]
    runs = [
        finished(tmp_path / name / "run", [answered(one, one.gold) for one in rows], rows)
        for name, rows in (("a", asked), ("b", other))
    ]
    page = Page(write_report(runs)[0])
    assert "b/run is not compared with a/run: row 1 is" in page.text
    assert page.data["samples"][0][browser_field("others")] == [None]


def test_a_run_among_published_results(whole: Path) -> None:
    results = json.loads((whole / RESULTS).read_text()) | {"benchmark": "music-avqa"}
    write_json(whole / RESULTS, results)
    page = Page(write_report([whole])[0])
    assert "this run: tiny" in page.text
    links = [str(found["href"]) for found in page.named("a")]
    assert all(link.startswith(("#", "https://")) for link in links)


# --- size and errors ------------------------------------------------------------------------


def test_a_large_run_is_cut_and_says_so(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "WHOLE", 8)
    monkeypatch.setattr(browser, "WRONG", 3)
    data = Page(write_report([whole])[0]).data
    assert len(data["samples"]) == 8
    assert [row[0] for row in data["samples"]] == sorted(row[0] for row in data["samples"])
    assert "3 of 4 wrong or missing and 5 of 8 right answers" in data["says"]
    assert "4 answers left out here are in samples.jsonl" in data["says"]
    assert data == Page(write_report([whole])[0]).data


def test_the_page_stays_small_whatever_models_say(tmp_path: Path) -> None:
    asked = questions(1500)
    folder = finished(tmp_path / "run", [answered(one, "yes") for one in asked], asked)
    samples = [answered(one, NO_ANSWER, answer=f"<{one.number}" * 1000) for one in asked]
    (folder / SAMPLES).write_text("".join(one.to_line() for one in samples))
    html, _ = write_report([folder])
    assert html.stat().st_size < 6_000_000
    assert "answers left out here are in samples.jsonl" in Page(html).data["says"]


def test_errors_name_the_folder(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot read .*nothing"):
        write_report([tmp_path / "nothing"])
    with pytest.raises(RunError, match="named twice"):
        write_report([whole, whole])
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the report to .*file"):
        write_report([whole], out=tmp_path / "file")
    kept = (whole / SAMPLES).read_text()
    (whole / SAMPLES).write_text("".join(kept.splitlines(keepends=True)[:5]))
    with pytest.raises(RunError, match="5 answers but results of 12: finish it"):
        write_report([whole])
    faulty: tuple[dict[str, Any], ...] = (
        {},
        json.loads((whole / RESULTS).read_text()) | {"overall": {"n": 12}},
    )
    for broken in faulty:
        write_json(whole / RESULTS, broken)
        with pytest.raises(RunError, match=r"has no .*'overall"):
            write_report([whole])
    write_json(whole / RESULTS, {"overall": {}})
    with pytest.raises(RunError, match="has no 'benchmark', 'types', 'groups', 'provenance'"):
        write_report([whole])


def test_the_command_prints_where_the_report_is(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(argparse.Namespace(runs=[whole], out=None))
    assert capsys.readouterr().out.split() == [
        str(whole / "report.html"),
        str(whole / "report.md"),
    ]
