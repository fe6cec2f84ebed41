"""All sets from one seed, their hashes, and the table of a model's figures on them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from eval import headline, sets
from eval.__main__ import main
from eval.benchmarks import bandstand
from eval.benchmarks.bandstand import KINDS, configs, write
from eval.engines.oracle import Oracle
from eval.samples import read_json
from instruct_data.bandstand import write as writing

HARD = "bandstand-hard"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, value in (("FIT_CLIPS", 30), ("HEIGHT", 36), ("FPS", 1.0)):
        monkeypatch.setattr(bandstand, setting, value)
    monkeypatch.setitem(bandstand.KINDS, HARD, replace(KINDS[HARD], seconds=10.0))


def rows(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_the_kept_hashes_are_those_of_the_generator(tmp_path: Path) -> None:
    kept = read_json(sets.KEPT)["sets"]
    assert list(kept) == list(KINDS)
    for name, kind in KINDS.items():
        tested, _ = configs(name, clips=kind.clips, seed=sets.SEED, media="none")
        write(name, tmp_path / name, tested, None)
        known = {k: v for k, v in kept[name]["files"].items() if not k.startswith("fit/")}
        assert sets.hashes(tmp_path / name) == known
        assert (kept[name]["clips"], kept[name]["seed"]) == (kind.clips, sets.SEED)
        assert {"fit/avqa.json", "fit/truth.json"} < set(kept[name]["files"])


def test_all_sets_come_from_one_seed(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ["sets", str(tmp_path / "a"), "--seed", "5", "--clips", "6"]
    assert main(order) == 0
    assert "bandstand-r: 6 clips" in capsys.readouterr().out
    manifest = read_json(tmp_path / "a" / sets.MANIFEST)
    assert list(manifest["sets"]) == list(KINDS) and manifest["written_by"]["av"]
    assert not any(one["media"] for one in manifest["sets"].values())
    plain, reworded, biased, hard = (tmp_path / "a" / name for name in KINDS)
    assert rows(plain / "truth.json") == rows(biased / "truth.json")
    assert rows(plain / "avqa.json") == rows(reworded / "avqa.json") != rows(biased / "avqa.json")
    assert rows(plain / "fit/avqa.json") != rows(biased / "fit/avqa.json")
    assert all(
        row["video_id"] == f"test5h_{n:06d}" for n, row in enumerate(rows(hard / "truth.json"))
    )
    assert "train6h_" in (hard / "fit/avqa.json").read_text()

    assert main([*order[:1], str(tmp_path / "b"), *order[2:], "--only", HARD]) == 0
    again = read_json(tmp_path / "b" / sets.MANIFEST)["sets"]
    assert list(again) == [HARD] and again[HARD] == manifest["sets"][HARD]
    assert main([*order, "--only", "bandstand-easy"]) == 2
    assert "choose from bandstand, bandstand-r" in capsys.readouterr().err


def test_a_check_says_in_one_sentence_what_differs(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sets, "KEPT", tmp_path / "kept.json")
    out = tmp_path / "a"
    names = ["bandstand", "bandstand-r"]
    sets.keep(sets.make_sets(out, names, clips=dict.fromkeys(names, 2), media=True))
    order = ["sets", str(out), "--clips", "2", "--check", "--media"]
    order += ["--only", "bandstand", "--only", "bandstand-r"]
    assert main(order) == 0
    said = capsys.readouterr().out
    assert "19 files are as kept; the oracle gives the gold answer to all" in said
    video = out / "bandstand/videos/test61_000000.mp4"
    assert video.samefile(out / "bandstand-r/videos/test61_000000.mp4")

    video.unlink()
    assert main(order) == 2
    assert "in bandstand/videos/test61_000000.mp4: the files" in capsys.readouterr().err
    questions = out / "bandstand/avqa.json"
    questions.write_text(questions.read_text() + " ")
    before = questions.stat().st_mtime_ns
    assert main(order) == 2
    error = capsys.readouterr().err
    assert "differs from what is kept of it in bandstand/avqa.json, bandstand/videos" in error
    assert questions.stat().st_mtime_ns == before  # what is there stays
    monkeypatch.setattr(sets, "NAMED", 1)
    assert main(order) == 2
    assert "in bandstand/avqa.json and 1 more: the files" in capsys.readouterr().err
    # Of another seed the repository keeps nothing: what is there is held against its manifest.
    order = ["sets", str(tmp_path / "b"), "--clips", "2", "--seed", "3", "--only", HARD]
    assert main(order) == 0
    assert main([*order[:2], "--only", HARD, "--check"]) == 0
    assert "6 files are as kept; the oracle" in capsys.readouterr().out
    (tmp_path / "b" / sets.MANIFEST).unlink()
    assert main([*order[:2], "--only", HARD, "--check"]) == 0
    assert "no hashes are kept of these sets; the oracle" in capsys.readouterr().out
    assert not (tmp_path / "b" / "bandstand").exists()


def test_sets_that_are_kept_are_those_of_this_generator(small: None, tmp_path: Path) -> None:
    make = partial(sets.make_sets, tmp_path, ["bandstand"], clips={"bandstand": 2}, keep=True)
    make()
    questions = tmp_path / "bandstand/avqa.json"
    written, made_at = questions.read_text(), questions.stat().st_mtime_ns
    make()
    assert questions.stat().st_mtime_ns == made_at
    questions.write_text(written.replace("?", "??"))  # as an older generator would have asked
    make()
    assert questions.read_text() == written


def test_the_headline_is_one_table_and_goes_on_where_it_was(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ["headline", "--model", "oracle", "--clips", "3", "--workers", "1", "--out"]
    order.append(str(tmp_path))
    answer, asked = Oracle.answer, list[int]()

    def stopped(self: Oracle, *args: object, **how: object) -> object:
        asked.append(1)
        if len(asked) == 4:  # a chunk and its controls are two calls: in the second run
            raise KeyboardInterrupt
        return answer(self, *args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Oracle, "answer", stopped)
    assert main(order) == 130
    assert "[3/7] muted: bandstand, mute" in capsys.readouterr().out
    assert (tmp_path / "full/results.json").exists()
    assert not (tmp_path / headline.PAGE).exists()

    def drawn(*_: object, **__: object) -> None:
        raise AssertionError("a clip is drawn again")

    monkeypatch.setattr(writing, "write_video", drawn)
    assert main(order) == 0
    printed = capsys.readouterr().out
    found = read_json(tmp_path / headline.DATA)
    table = (tmp_path / headline.PAGE).read_text()
    assert table in printed and table == headline.page(found)
    by_name = {row["what"]: row for row in found["rows"]}
    assert by_name["overall"]["value"] == by_name["hard: 60 s, crowded, noisy"]["value"] == 1.0
    assert by_name["all wordings: tail"]["value"] == by_name["right in 25 of 25"]["value"] == 1.0
    assert by_name["overall"]["videos"] == 3 and by_name["all wordings: overall"]["videos"] == 1
    results = read_json(tmp_path / "muted/results.json")
    assert results["provenance"]["mute"]
    for field in ("low", "high", "n"):
        assert by_name["picture only"][field] == results["overall"][field]
    assert by_name["picture only"]["value"] == results["overall"]["accuracy"] < 1
    assert by_name["sound only"]["run"] == "blanked" and by_name["sound only"]["value"] < 1
    full = read_json(tmp_path / "full/results.json")
    assert set(full["types"]) < set(by_name)
    assert by_name["blind floor"]["value"] == by_name["overall"]["floor"] < 1
    assert by_name["calibration error (ECE, 15 bins)"]["value"] == full["calibration"]["ece"]
    assert all(one["valid"] for one in found["runs"].values())

    asked.clear()
    assert main(order) == 0 and not asked


def test_another_model_needs_another_folder(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ["headline", "--clips", "1", "--workers", "1", "--out", str(tmp_path)]
    assert main([*order, "--model", "no-such-model"]) == 2
    assert "neither a preset" in capsys.readouterr().err
    assert not (tmp_path / headline.SETS).exists()
