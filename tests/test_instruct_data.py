"""The door of the instruction data: every command is there, mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instruct_data import __main__ as door
from instruct_data.records import RECORD, Clip, Record, Turn, read_records, schema, write_records

COMMANDS = (
    *("bandstand", "contact-sheet", "schema", "sources", "records", "faults", "rephrase"),
    *("check-wordings", "build", "prefer", "mine", "export", "get", "verify"),
)


def record(**changes: object) -> Record:
    turn = Turn(question="Is there a violin sound?", answer="Yes, there is.", label="yes")
    given = {
        "id": "a:1",
        "kind": "question",
        "clip": Clip(video="00000093", sound=False),
        "turns": (turn,),
        "source": "a",
        "split": "train",
        "licence": "CC0-1.0",
        "provenance": ("a.json row 1",),
    }
    return Record(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        door.main([command, "--help"])
    assert ended.value.code == 0
    assert f"python -m instruct_data {command}" in capsys.readouterr().out


def test_the_readme_names_every_command() -> None:
    readme = (Path(door.__file__).parent / "README.md").read_text()
    assert [command for command in COMMANDS if f"`{command}`" not in readme] == []


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["build", str(tmp_path / "none.yaml")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("instruct_data: ") and err.count("\n") == 1 and "none.yaml" in err


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["bandstand", "{file}/x", "--clips", "1", "--seed", "1"], id="folder"),
        pytest.param(["contact-sheet", "{file}"], id="no picture suffix"),
        pytest.param(["records", "conversations", "{own}", "--out", "{file}/x.jsonl"], id="file"),
        pytest.param(["records", "conversations", "{own}", "--out", "{own}"], id="its own input"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    own, file = tmp_path / "own.json", tmp_path / "file"
    file.touch()
    own.write_text(json.dumps([{"video": "x.mp4", "q": "What sounds?", "a": "A tuba."}]))
    before = own.read_bytes()
    assert door.main([a.format(own=own, file=file) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("instruct_data: ") and err.count("\n") == 1 and str(tmp_path) in err
    assert own.read_bytes() == before


def test_an_interrupted_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(door, "_schema", stopped)
    assert door.main(["schema"]) == 130
    assert capsys.readouterr().err == "instruct_data: interrupted\n"


def test_the_schema_is_of_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["schema"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == schema()
    assert set(shown["properties"]) == set(Record.__dataclass_fields__)
    assert shown["additionalProperties"] is False


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = [record(), record(id="a:2", clip=Clip(video="x", start_s=1.5, mirrored=True))]
    assert write_records(tmp_path / "r.jsonl", iter(made)) == 2
    assert list(read_records(tmp_path / "r.jsonl")) == made
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"kind": "riddle"}, "kind", id="unknown kind"),
        pytest.param({"turns": [{"question": "?"}]}, "turns.0.answer", id="no answer"),
        pytest.param({"clip": {"video": 93}}, "clip.video", id="a number for a name"),
        pytest.param({"clip": {"video": "a", "sound": "no"}}, "clip.sound", id="a word for a bool"),
        pytest.param({"mood": "good"}, "mood", id="unknown field"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, change: dict, field: str) -> None:
    path = tmp_path / "r.jsonl"
    row = json.loads(RECORD.dump_json(record()))
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, **change}) + "\n")
    with pytest.raises(Exception, match=f"r.jsonl, line 2: field {field}") as error:
        list(read_records(path))
    assert "\n" not in str(error.value)
