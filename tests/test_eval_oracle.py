"""The oracle: rules of its own come to the gold answers, and it knows nothing but the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main
from eval.benchmarks import bandstand, read_benchmark
from eval.benchmarks.bandstand import KINDS, configs, prepared, write
from eval.engines.load import EngineSpec
from eval.engines.oracle import RULES, Oracle, Unclear, World, disagreements, truth_of
from eval.samples import RunError, read_json
from instruct_data.templates import TEMPLATES

CLIPS = {"bandstand": 120, "bandstand-r": 30, "bandstand-biased": 120, "bandstand-hard": 60}


def player(kind: str, x: float | None, span: tuple[float, float] | None = None, **more: Any) -> Any:
    start, end = span or (None, None)
    heard = {"level_db": -20.0, "rate_hz": 2.0} if span else {"level_db": None, "rate_hz": None}
    return {"instrument": kind, "x": x, "start_s": start, "end_s": end, **heard, **more}


def world(*players: Any, narrated: bool = False) -> World:
    voice = {"start_s": 1.0} if narrated else None
    return World({"seconds": 10.0, "place": "indoor", "voiceover": voice, "players": players})


TRIO = world(
    player("violin", 0.2, (0.0, 10.0), level_db=-16.0, rate_hz=1.0),
    player("flute", 0.5, (4.0, 10.0), level_db=-30.0, rate_hz=7.0),
    player("cello", 0.8),
    player("tuba", None, (2.0, 3.5), level_db=-24.0, rate_hz=3.0),
)
VIOLINS = world(player("violin", 0.13, (5.0, 9.0)), player("violin", 0.63, (1.0, 10.0)))


def test_every_template_has_a_rule() -> None:
    assert set(RULES) == set(TEMPLATES)


@pytest.mark.parametrize(
    ("template", "slots", "answer"),
    [
        ("Is the <Object> louder than the <Object>?", ("violin", "flute"), "yes"),
        ("Is the <Object> more rhythmic than the <Object>?", ("violin", "tuba"), "no"),
        ("Is the <Object> playing longer than the <Object>?", ("flute", "tuba"), "yes"),
        ("Are there <Object> and <Object> sound?", ("violin", "cello"), "no"),
        ("Are there <Object> and <Object> instruments in the video?", ("violin", "cello"), "yes"),
        ("How many musical instruments were heard throughout the video?", (), "three"),
        ("Is there a <Object> sound?", ("tuba",), "yes"),
        ("Is there a <Object> in the entire video?", ("tuba",), "no"),
        ("How many types of musical instruments appeared in the entire video?", (), "three"),
        ("What is the instrument on the <LR> of <Object>?", ("right", "flute"), "cello"),
        ("What kind of instrument is the <LRer> instrument?", ("rightest",), "cello"),
        ("Where is the performance?", (), "indoor"),
        (
            "Is the instrument on the <LR> louder than the instrument on the <LR>?",
            ("middle", "left"),
            "no",
        ),
        ("Is the <Object> in the video always playing?", ("flute",), "no"),
        ("Is there a voiceover?", (), "no"),
        ("Is the <FL> sound coming from the <LR> instrument?", ("last", "middle"), "yes"),
        (
            "What is the <LR> instrument of the <FL> sounding instrument?",
            ("left", "last"),
            "violin",
        ),
        (
            "Which is the musical instrument that sounds at the same time as the <Object>?",
            ("tuba",),
            "violin",
        ),
        ("What is the <TH> instrument that comes in?", ("second",), "tuba"),
        ("Which instrument makes sounds <BA> the <Object>?", ("before", "tuba"), "violin"),
        # One is heard from off-screen: two readings, no answer.
        ("How many instruments are sounding in the video?", (), None),
        ("Is this sound from the instrument in the video?", (), None),
        ("Where is the <LL> instrument?", ("loudest",), "left"),
        ("How many instruments in the video did not sound from beginning to end?", (), None),
        # Nobody stands right of the rightmost, two stand right of the leftmost.
        ("What is the instrument on the <LR> of <Object>?", ("right", "cello"), None),
        ("What is the instrument on the <LR> of <Object>?", ("right", "violin"), None),
        ("Is the <Object> louder than the <Object>?", ("violin", "cello"), None),
    ],
)
def test_what_follows_from_a_scene(
    template: str, slots: tuple[str, ...], answer: str | None
) -> None:
    if answer is not None:
        assert truth_of(TRIO, template, slots) == answer
        return
    with pytest.raises(Unclear):
        truth_of(TRIO, template, slots)


def test_several_of_a_kind() -> None:
    which = "Which <Object> makes the sound <FL>?"
    assert truth_of(VIOLINS, which, ("violin", "first")) == "right"
    assert truth_of(VIOLINS, "What kind of musical instrument is it?", ()) == "violin"
    assert truth_of(VIOLINS, "How many sounding <Object> in the video？", ("violin",)) == "two"
    at_once = world(player("violin", 0.2, (1.0, 5.0)), player("violin", 0.8, (1.05, 9.0)))
    assert truth_of(at_once, which, ("violin", "last")) == "simultaneously"
    with pytest.raises(Unclear):  # which of the two?
        truth_of(VIOLINS, "Is the <Object> in the video always playing?", ("violin",))
    # Who starts last is not heard last.
    with pytest.raises(Unclear):
        truth_of(VIOLINS, "Where is the <FL> sounding instrument?", ("last",))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sets")
    for name in KINDS:
        tested, _ = configs(name, clips=CLIPS[name], seed=7, media="none")
        write(name, out / name, tested, None)
    return out


@pytest.mark.parametrize("name", KINDS)
def test_the_oracle_gives_every_gold_answer(sets: Path, name: str) -> None:
    asked = read_benchmark(name, prepared(name, sets / name).annotations)
    assert len(asked.questions) > 700
    assert disagreements(asked) == []


def test_another_gold_answer_or_another_truth_is_a_disagreement(sets: Path) -> None:
    asked = read_benchmark("bandstand", sets / "bandstand")
    first, *others = asked.questions
    false = replace(first, gold="tuba" if first.gold != "tuba" else "piano")
    (line,) = disagreements(replace(asked, questions=(false, *others)))
    assert first.video_id in line and f"{false.gold} in the file" in line
    # Scenes change places: whoever looked at the gold answers would not notice.
    names = list(asked.scenes)
    turned = dict(zip(names, [asked.scenes[name] for name in [*names[1:], names[0]]], strict=True))
    wrong = disagreements(replace(asked, scenes=turned))
    assert len(wrong) > len(asked.questions) / 3


def test_what_cannot_be_seen_or_heard_is_not_known(sets: Path) -> None:
    asked = read_benchmark("bandstand", sets / "bandstand")
    oracle = Oracle(asked)
    for one in asked.questions:
        muted = oracle.label(one.video_id, one.question, sound=False)
        blank = oracle.label(one.video_id, one.question, picture=False)
        assert muted == (one.gold if one.scene == "Visual" else None)
        assert blank == (one.gold if one.scene == "Audio" else None)
    assert oracle.label(asked.questions[0].video_id, "Is it raining?") is None


def test_a_run_of_the_oracle_is_right_throughout_and_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVQA_CACHE", str(tmp_path / "cache"))
    for setting, value in (("FIT_CLIPS", 40), ("HEIGHT", 36), ("FPS", 1.0)):
        monkeypatch.setattr(bandstand, setting, value)
    monkeypatch.setattr(bandstand, "_cores", lambda: 1)
    order = ["run", "--benchmark", "bandstand-r", "--model", "oracle", "--clips", "4"]
    order += ["--workers", "1", "--out"]
    assert main([*order, str(tmp_path / "run")]) == 0
    results = read_json(tmp_path / "run/results.json")
    assert results["overall"]["accuracy"] == 1.0 and results["overall"]["n"] > 500
    assert results["integrity"]["valid"] and results["no_answer"] == 0
    assert main([*order, str(tmp_path / "mute"), "--mute"]) == 0
    muted = read_json(tmp_path / "mute/results.json")
    assert muted["groups"]["Visual"]["accuracy"] == 1.0
    assert muted["groups"]["Audio"]["accuracy"] == muted["groups"]["Audio-Visual"]["accuracy"] == 0


def test_where_there_is_no_truth_there_is_no_oracle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ["run", "--annotations", "a.json", "--media", str(tmp_path), "--out", str(tmp_path)]
    assert main([*order, "--model", "oracle", "--benchmark", "music-avqa"]) == 2
    assert "answers from a truth that music-avqa has not" in capsys.readouterr().err
    order += ["--benchmark", "bandstand", "--model", "oracle"]
    assert main([*order, "--probes", "mute"]) == 2
    assert "leave out --probes" in capsys.readouterr().err
    with pytest.raises(RunError, match="eval run"):
        EngineSpec(model="oracle").load()
