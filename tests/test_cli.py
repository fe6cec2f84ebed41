"""The `avqa` command: its arguments, how fast it starts, its exit statuses; and `avqa doctor`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from avqa_llm import doctor
from avqa_llm.cli import build_parser, main
from avqa_llm.errors import MediaError

AVQA = (sys.executable, "-m", "avqa_llm")


@pytest.fixture
def ask_does(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., int | None]], None]:
    """Return a function that puts another body behind `avqa ask`, to try what main() makes of it.

    The real body needs a model; what is tested is the way from its outcome to the exit status.
    """

    def put(body: Callable[[argparse.Namespace], int | None]) -> None:
        module = types.ModuleType("avqa_llm.asking")
        module.run = body  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "avqa_llm.asking", module)

    return put


# --- starting -------------------------------------------------------------------------------


def test_help_is_quick_and_names_every_command() -> None:
    seconds = []
    for _ in range(3):  # the best of three: other work on the machine is not our slowness
        start = time.perf_counter()
        shown = subprocess.run([*AVQA, "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.5
    for command in ("ask", "listen", "agent", "demo", "features", "train", "export", "doctor"):
        assert f"\n    {command} " in shown.stdout


def test_building_the_parser_imports_nothing_heavy() -> None:
    code = "import sys; from avqa_llm.cli import build_parser; build_parser(); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in shown.stdout.split()}
    assert "argparse" in loaded
    assert not loaded & {"torch", "transformers", "peft", "av", "cv2", "numpy", "scipy", "yaml"}


def test_version_is_printed_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("avqa ")


# --- arguments ------------------------------------------------------------------------------

ASK = {
    "file": Path("clip.mp4"),
    "questions": ["What plays?"],
    "model": "tiny",
    "json": False,
    "reader": "pyav",
    "features": None,
    "mute": False,
    "blank": False,
    "open": False,
    "facts": False,
    "target": "avqa_llm.asking:run",
}
TRAIN = {
    "recipe": Path("tiny.yaml"),
    "resume": False,
    "dry_run": False,
    "out": None,
    "set": [],
    "target": "avqa_llm.training.run:run",
}
LISTEN = {
    "file": Path("clip.mp4"),
    "start_s": None,
    "end_s": None,
    "speech": None,
    "json": False,
    "target": "avqa_llm.listening:run",
}
DEMO = {"model": "tiny", "target": "avqa_llm.asking:run_demo"}
AGENT = {
    **{"file": Path("clip.mp4"), "question": "Why?", "model": "tiny", "json": False},
    **{"llm": None, "base_url": None, "api_key_env": "OPENAI_API_KEY", "speech": None},
    **{"max_calls": 12, "max_seconds": 120.0, "target": "avqa_llm.agent.command:run"},
}
DOCTOR = {"json": False, "target": "avqa_llm.doctor:run"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["ask", "clip.mp4", "What plays?"], ASK),
        (
            ["ask", "clip.mp4", "What plays?", "Where?", "--model", "runs/mine", "--json"],
            {**ASK, "questions": ["What plays?", "Where?"], "model": "runs/mine", "json": True},
        ),
        (
            ["ask", "--mute", "--blank", "--open", "--reader", "decord", "clip.mp4", "What plays?"],
            {**ASK, "mute": True, "blank": True, "open": True, "reader": "decord"},
        ),
        (["ask", "clip.mp4", "What plays?", "--facts"], {**ASK, "facts": True}),
        (["listen", "clip.mp4"], LISTEN),
        (
            ["listen", "clip.mp4", "--from", "2", "--to", "4.5", "--speech", "base", "--json"],
            {**LISTEN, "start_s": 2.0, "end_s": 4.5, "speech": "base", "json": True},
        ),
        (["agent", "clip.mp4", "Why?"], AGENT),
        (
            ["agent", "clip.mp4", "Why?", "--llm", "big", "--base-url", "http://x/v1", "--json"],
            {**AGENT, "llm": "big", "base_url": "http://x/v1", "json": True},
        ),
        (
            [
                "agent",
                "clip.mp4",
                "Why?",
                "--max-calls",
                "3",
                "--max-seconds",
                "9",
                "--speech",
                "b",
            ],
            {**AGENT, "max_calls": 3, "max_seconds": 9.0, "speech": "b"},
        ),
        (["demo"], DEMO),
        (["demo", "--model", "small"], {**DEMO, "model": "small"}),
        (["train", "tiny.yaml"], TRAIN),
        (
            ["train", "tiny.yaml", "--resume", "--dry-run", "--out", "runs/a"],
            {**TRAIN, "resume": True, "dry_run": True, "out": Path("runs/a")},
        ),
        (
            ["train", "tiny.yaml", "--set", "a.b=1", "--set", "c=2"],
            {**TRAIN, "set": ["a.b=1", "c=2"]},
        ),
        (["doctor"], DOCTOR),
        (["doctor", "--json"], {**DOCTOR, "json": True}),
    ],
)
def test_command_line_is_frozen(line: list[str], expected: dict[str, object]) -> None:
    assert vars(build_parser().parse_args(line)) == expected


@pytest.mark.parametrize(
    "line", [[], ["sing"], ["ask", "clip.mp4"], ["ask", "a", "b", "--reader", "x"], ["train"]]
)
def test_wrong_usage_exits_2_with_the_usage(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(line)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: avqa")


# --- exit statuses --------------------------------------------------------------------------


def test_the_command_gets_its_arguments_and_gives_the_status(ask_does: Callable) -> None:
    seen = []
    ask_does(lambda args: seen.append(args.questions))
    assert main(["ask", "clip.mp4", "What plays?"]) == 0
    assert seen == [["What plays?"]]
    ask_does(lambda args: 3)
    assert main(["ask", "clip.mp4", "What plays?"]) == 3


def test_a_fault_of_the_input_is_one_line_and_status_2(
    ask_does: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(args: argparse.Namespace) -> None:
        raise MediaError(f"{args.file} holds neither picture nor sound")

    ask_does(refuse)
    assert main(["ask", "notes.txt", "What plays?"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "avqa: notes.txt holds neither picture nor sound\n"
    assert shown.out == ""


def test_ctrl_c_is_one_line_and_status_130(
    ask_does: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    ask_does(interrupted)
    assert main(["ask", "clip.mp4", "What plays?"]) == 130
    assert capsys.readouterr().err == "avqa: interrupted\n"


def test_a_bug_keeps_its_traceback(ask_does: Callable) -> None:
    def broken(args: argparse.Namespace) -> None:
        raise ZeroDivisionError

    ask_does(broken)
    with pytest.raises(ZeroDivisionError):
        main(["ask", "clip.mp4", "What plays?"])


def test_a_reader_that_goes_away_is_silence() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        ended = subprocess.run(
            [*AVQA, "doctor"], stdout=write_end, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(write_end)
    assert (ended.returncode, ended.stderr) == (141, "")


# --- doctor ---------------------------------------------------------------------------------


def embedded_model(adapters: Path) -> Path:
    """Write a whole `tiny` weights file into an adapters folder; return its path."""
    weights = adapters / "tiny" / "bridge.safetensors"
    weights.parent.mkdir(parents=True)
    save_file({"queries": np.ones((4, 8), np.float32), "scale": np.zeros(1)}, weights)
    return weights


def test_doctor_is_content_with_a_whole_model(tmp_path: Path) -> None:
    embedded_model(tmp_path)
    findings = doctor.examine(tmp_path)
    assert findings["to_do"] == []
    assert findings["ok"]
    assert findings["ffmpeg"]["libavcodec"].count(".") == 2
    assert findings["devices"]["cpu_cores"] >= 1
    assert "Ready: avqa ask" in doctor.as_table(json.loads(json.dumps(findings)))


@pytest.mark.parametrize("damage", ["absent", "cut short", "pointer", "empty"])
def test_doctor_notices_a_damaged_model(tmp_path: Path, damage: str) -> None:
    weights = embedded_model(tmp_path)
    if damage == "absent":
        weights.unlink()
    elif damage == "cut short":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    else:
        weights.write_bytes(b"")
    findings = doctor.examine(tmp_path)
    assert not findings["ok"]
    assert str(weights.parent) in findings["to_do"][0]


def test_doctor_names_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    embedded_model(tmp_path)
    findings = doctor.examine(tmp_path)
    absent = doctor.Need(package="avqa-llm-no-such-package", purpose="nothing")
    findings["packages"].append(doctor.look_up(absent))
    (sentence,) = doctor.what_to_do(findings)
    assert "avqa-llm-no-such-package" in sentence
    assert "pip install -c requirements.txt -e ." in sentence


def test_a_missing_extra_is_no_obstacle(tmp_path: Path) -> None:
    embedded_model(tmp_path)
    findings = doctor.examine(tmp_path)
    absent = doctor.Need(package="avqa-llm-no-such-package", purpose="nothing", extra="speech")
    findings["packages"].append(doctor.look_up(absent))
    assert doctor.what_to_do(findings) == []
    assert "-e '.[speech]'" in doctor.as_table(findings)


def test_doctor_json_and_status_agree(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert status == (0 if findings["ok"] else 1)
    assert findings["ok"] == (findings["to_do"] == [])
    assert findings["cache"]["hub_offline"]  # set for the tests
    versions = {row["name"]: row["version"] for row in findings["packages"]}
    assert versions["numpy"] == np.__version__


def test_cpu_flags_come_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx2 amx_tile amx_bf16 avx512f_no\n")
    assert doctor.cpu_flags(cpuinfo) == ["avx2", "amx_bf16", "amx_tile"]
    assert doctor.cpu_flags(tmp_path / "absent") == []
