"""The list of benchmarks: what is on disk, found by its bytes, and how the rest is got."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import pytest

from avqa_llm.errors import AnnotationError
from eval import options
from eval.benchmarks import BENCHMARKS
from eval.benchmarks.known import git_blob
from eval.listing import listing, run
from instruct_data.places import CATALOGUE
from tests.question_files import AVQA, data, write

BAND_R = "bandstand-r"


def block(text: str, name: str) -> str:
    return next(part for part in text.split("\n\n") if re.match(rf"{name} ", part))


def test_the_list_names_all_and_says_how_to_get_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVQA_CACHE", str(tmp_path / "cache"))
    run(argparse.Namespace(data=None))
    text = capsys.readouterr().out
    for name in BENCHMARKS:
        assert BENCHMARKS[name].source in block(text, name)
    assert "9,129 in test" in block(text, "music-avqa")
    assert "python -m instruct_data get avqa --out downloads/avqa" in block(text, "avqa")
    assert "made on first use" in block(text, "bandstand") and "on disk" not in text
    made = tmp_path / "cache/benchmarks/bandstand-r-40-seed0"
    made.mkdir(parents=True)
    assert str(made) not in listing(None)  # it is not ready
    (made / "ready.json").write_text("{}")
    assert str(made) in block(listing(None), BAND_R)
    assert str(made) not in block(listing(None), "bandstand")


def test_the_list_finds_files_by_their_bytes(tmp_path: Path) -> None:
    shutil.copy(data("music-avqa/avqa-test.json"), tmp_path / "deep-renamed.json")
    (tmp_path / "sub/.hidden").mkdir(parents=True)
    shutil.copy(data("music-avqa/avqa-test.2022.json"), tmp_path / "sub/avqa-test.json")
    write(tmp_path / "sub/train_qa.json", AVQA)
    text = listing(tmp_path)
    v1 = block(text, "music-avqa")
    assert f"on disk    {tmp_path / 'deep-renamed.json'}\n" in v1
    assert f"{tmp_path / 'sub/avqa-test.json'}, of the contradictory files of 2022" in v1
    assert "missing    avqa-train.json, avqa-val.json" in v1
    assert f"python -m instruct_data get music-avqa --out {tmp_path / 'music-avqa'}" in v1
    assert "train_qa.json: has the name, but other bytes" in block(text, "avqa")
    assert "missing    train_qa.json, val_qa.json" in block(text, "avqa")
    assert f"none of its files in {tmp_path}" in block(text, "music-avqa-r")
    assert "on disk    not known" in block(text, "fortisavqa")
    with pytest.raises(AnnotationError, match="is no folder"):
        listing(tmp_path / "absent")


def test_git_names_bytes_as_the_catalogue_does() -> None:
    place = next(one for one in CATALOGUE["music-avqa"].places if one.name == "avqa-val.json")
    assert git_blob(data("music-avqa/avqa-val.json")) == place.git_blob


def test_the_names_that_options_know_are_the_benchmarks() -> None:
    assert tuple(options.NAMES) == tuple(BENCHMARKS)
