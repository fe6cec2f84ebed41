"""The agent's tools and its planner by rules, with the embedded model and the sample clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from avqa_llm.agent import Agent, Report, Step
from avqa_llm.agent.bench import Bench
from avqa_llm.agent.events import parse
from avqa_llm.agent.rules import decide
from avqa_llm.asking import SAMPLES
from avqa_llm.cli import main
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import AgentError
from avqa_llm.labels import NO_ANSWER
from avqa_llm.media import Clip

RATE = 48_000


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine.load("tiny")


@pytest.fixture(scope="module")
def duo(engine: LocalEngine) -> Clip:
    return engine.read(SAMPLES / "duo.mp4")


@pytest.fixture(scope="module")
def bench(engine: LocalEngine, duo: Clip) -> Bench:
    return Bench(engine, duo)


def finished(agent: Agent, clip: Clip, question: str) -> tuple[list[Step], Report]:
    *steps, report = agent.run(clip, question)
    assert isinstance(report, Report) and all(isinstance(step, Step) for step in steps)
    assert report.steps == tuple(steps)
    json.dumps(report.to_json())
    return steps, report  # type: ignore[return-value]


# -- tools ----------------------------------------------------------------------------------------


def test_a_clip_is_described_from_the_model_s_notes(bench: Bench) -> None:
    found = bench.describe_clip()
    assert found.kind == "model"
    assert "violin on the left" in found.text and "guzheng on the right" in found.text
    assert found.data["record"] == bench.record[0]
    assert all(0 <= e.start_s < e.end_s <= bench.clip.duration_s for e in found.evidence)


def test_a_part_is_watched_without_sound_and_heard_without_picture(bench: Bench) -> None:
    bench.answers.clear()
    seen = bench.watch(2.0, 6.0, "Where is the performance?")
    heard = bench.listen(2.0, 6.0, "Is there a violin sound?")
    blind, deaf = bench.answers[1].consumed, bench.answers[0].consumed
    assert deaf and deaf.picture and not deaf.sound
    assert blind and blind.sound and not blind.picture
    assert seen.data["label"] in ("indoor", "outdoor") and heard.data["label"] in ("yes", "no")
    for found in (seen, heard):
        assert all(2.0 <= e.start_s < e.end_s <= 6.0 for e in found.evidence)


def test_what_is_measured_is_called_measured(bench: Bench) -> None:
    for quantity in ("loudness", "onsets", "balance"):
        found = bench.measure(quantity, 7.0, 9.0)
        assert found.kind == "measured" and found.data["value"] is not None
        assert (found.data["start_s"], found.data["end_s"]) == (7.0, 9.0)
    # Only the guzheng plays there, and it stands on the right.
    assert bench.measure("balance", 7.0, 9.0).data["value"] > 0.3
    right, left = (
        bench.measure("level", 7.0, 9.0, side).data["value"] for side in ("right", "left")
    )
    assert right > left + 3


def test_things_are_found(bench: Bench) -> None:
    violin = bench.find("the violin")
    assert violin.kind == "model"
    ((player),) = violin.data["players"]
    assert player["start_s"] == pytest.approx(1.5, abs=1.0)
    assert bench.find("sound").kind == "measured"
    assert len(bench.find("onsets").data["spans"]) > 10
    ((start, end),) = bench.find("loudest").data["spans"]
    assert end - start == 1.0
    assert "no tuba" in bench.find("tuba").text


def test_two_are_compared(bench: Bench) -> None:
    found = bench.compare("loudness", "violin", "the right")
    assert found.data["more"] == "the instrument (right)"
    assert bench.compare("loudness", "violin", "tuba").text.startswith("cannot tell")


def test_without_a_speech_model_voice_is_found_and_not_understood(engine: LocalEngine) -> None:
    pytest.importorskip("faster_whisper")
    bench = Bench(engine, engine.read(SAMPLES / "duo.mp4"))
    found = bench.transcribe(0.0, 10.0)
    assert found.kind == "transcript" and found.data["text"] is None
    assert "no speech model is loaded" in found.text


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda b: b.measure("colour", 0.0, 1.0), "'colour' cannot be measured"),
        (lambda b: b.measure("loudness", 3.0, 2.0), "no part of this clip"),
        (lambda b: b.measure("loudness", 0.0, 99.0), "no part of this clip"),
        (lambda b: b.measure("loudness", float("nan"), 2.0), "no part of this clip"),
        (lambda b: b.measure("loudness", 0.0, 2.0, "up"), "no side 'up'"),
        (lambda b: b.listen(2.0, 2.1, "What is it?"), "too short"),
        (lambda b: b.ask(" "), "0 letters|1 letters"),
        (lambda b: b.ask("x" * 501), "501 letters"),
        (lambda b: b.find("happiness"), "nothing that can be found"),
        (lambda b: b.compare("beauty", "violin", "guzheng"), "'beauty' cannot be compared"),
        (lambda b: b.compare("loudness", "violin and guzheng", "left"), "no single thing"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    bench: Bench, call: Callable[[Bench], object], says: str
) -> None:
    with pytest.raises(AgentError, match=says) as caught:
        call(bench)
    assert "\n" not in str(caught.value)


def test_nothing_is_heard_in_a_clip_without_sound(engine: LocalEngine, duo: Clip) -> None:
    mute = Bench(engine, duo.muted())
    for call in (lambda: mute.listen(0.0, 5.0, "?"), lambda: mute.find("onsets")):
        with pytest.raises(AgentError, match="no sound"):
            call()
    assert "no sound track" in mute.measure("loudness").text
    _, report = finished(Agent.rules(engine), duo.muted(), "Is the violin louder than the guzheng?")
    assert report.asked_model == 1
    assert any("no sound to hear" in warning for warning in report.answer.warnings)


# -- the planner by rules --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clip", "question", "label"),
    [
        ("duo.mp4", "Compared with the guzheng, is the violin louder?", "no"),
        ("duo.mp4", "Name the instrument that makes the first entrance.", "guzheng"),
        ("trio.mp4", "Where do we find the loudest of the instruments?", "left"),
        ("trio.mp4", "Is the tuba more rhythmic than the suona?", "no"),
        ("trio.mp4", "Which instrument starts before the suona?", "drum"),
    ],
)
def test_known_answers_are_looked_up(
    engine: LocalEngine, clip: str, question: str, label: str
) -> None:
    steps, report = finished(Agent.rules(engine), engine.read(SAMPLES / clip), question)
    assert report.answer.label == label
    assert (report.planner, report.asked_model, report.answer.probability) == ("rules", 0, None)
    assert steps[-1].tool == "look_up" and steps[-1].evidence
    assert report.answer.consumed and report.answer.consumed.sound


def test_what_no_rule_knows_is_asked_as_ever(engine: LocalEngine, duo: Clip) -> None:
    question = "Where is the performance?"
    steps, report = finished(Agent.rules(engine), duo, question)
    assert [step.kind for step in steps if step.tool == "ask"] == ["model"]
    assert any("no rule understands" in step.result for step in steps)
    assert report.answer.label == engine.answer(duo, [question])[0].label
    assert report.answer.probability is not None


def test_two_questions_in_one_are_answered_one_after_the_other(
    engine: LocalEngine, duo: Clip
) -> None:
    question = "When does the violin come in, and is it louder than the guzheng?"
    steps, report = finished(Agent.rules(engine), duo, question)
    when, louder = report.answer.answer.split("; ")
    assert when.startswith("at ") and louder == "no"
    assert report.answer.label == "no_answer"
    assert sum(step.tool == "describe_clip" for step in steps) == 1


def test_a_time_that_is_not_noted_is_not_made_up(engine: LocalEngine, duo: Clip) -> None:
    *_, report = Agent.rules(engine).run(duo, "When does the tuba come in?")
    assert isinstance(report, Report)
    assert report.answer.answer == "cannot tell: the tuba is not in the record"
    assert report.answer.label == NO_ANSWER and report.asked_model == 0


def test_notes_about_a_silent_track_are_not_believed(engine: LocalEngine, duo: Clip) -> None:
    silent = replace(duo, sound_CS=np.zeros_like(duo.sound_CS))
    *_, report = Agent.rules(engine).run(silent, "When does the violin come in?")
    assert isinstance(report, Report)
    assert report.answer.answer.startswith("cannot tell: the clip has no sound")
    *_, report = Agent.rules(engine).run(silent, "Is the violin louder than the guzheng?")
    assert isinstance(report, Report) and report.asked_model == 1
    assert any("silent" in warning for warning in report.answer.warnings)


def test_the_same_question_has_the_same_steps(engine: LocalEngine, duo: Clip) -> None:
    agent = Agent.rules(engine)
    runs = [finished(agent, duo, "Is the violin louder than the guzheng?")[0] for _ in range(2)]
    first, second = ([(s.tool, s.arguments, s.result) for s in steps] for steps in runs)
    assert first == second


def strokes(rate_hz: float, start_s: float, end_s: float, level: float) -> np.ndarray:
    """Ten seconds of sound with short strokes of noise at an even pace in a part of it."""
    sound_S = np.zeros(10 * RATE, np.float32)
    stroke_S = np.random.default_rng(1).normal(size=RATE // 40) * np.linspace(1, 0, RATE // 40)
    for time_s in np.arange(start_s, end_s - 0.1, 1 / rate_hz):
        at = round(time_s * RATE)
        sound_S[at : at + len(stroke_S)] += (level * stroke_S).astype(np.float32)
    return sound_S


def measurable(duo: Clip, voice: str) -> Bench:
    """A clip whose record leaves everything open: a slow loud violin, then a fast soft flute."""
    sound_S = strokes(2.0, 0.0, 4.5, 0.3) + strokes(6.0, 5.0, 10.0, 0.05)
    clip = replace(duo, sound_CS=np.stack([sound_S, sound_S]), sound_rate_hz=RATE)
    bench = Bench(None, clip)
    record = f"{voice} ; violin left s0 e9 n9 l2 r2 ; flute right s10 e20 n10 l2 r2"
    bench.events = parse(record, seconds=10.0)  # instead of the model's
    return bench


@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("Is the violin more rhythmic than the flute?", "no"),
        ("Is the flute more rhythmic than the violin?", "yes"),
        ("Is the violin louder than the flute?", "yes"),
        ("Is the violin quieter than the flute?", "no"),
    ],
)
def test_a_measurement_decides_what_the_record_leaves_open(
    duo: Clip, question: str, label: str
) -> None:
    decided, _ = decide(measurable(duo, "no voice"), question)
    assert decided is not None and decided.found.text == label
    assert [finding.kind for finding in decided.findings] == ["measured", "measured"]


def between(violin_S: np.ndarray, flute_S: np.ndarray, duo: Clip, record: str) -> Bench:
    """Both play all the time, the first on the left, the second on the right."""
    left, right = np.cos(0.25), np.sin(0.25)
    sound_CS = np.stack([left * violin_S + right * flute_S, right * violin_S + left * flute_S])
    bench = Bench(None, replace(duo, sound_CS=sound_CS.astype(np.float32), sound_rate_hz=RATE))
    bench.events = parse(record, seconds=10.0)
    return bench


@pytest.mark.parametrize(
    ("steps", "label", "tools"),
    [
        ("r2 r3", "yes", ["measure_from", "measure_from"]),  # one step may be a mistake: measured
        ("r2 r2", "yes", ["measure_from", "measure_from"]),
        ("r1 r3", "no", []),  # two are not
    ],
)
def test_rhythms_that_are_close_are_measured_from_their_sides(
    duo: Clip, steps: str, label: str, tools: list[str]
) -> None:
    one, other = steps.split()
    record = f"voice ; violin left s0 e20 n20 l2 {one} ; flute right s0 e20 n20 l2 {other}"
    bench = between(strokes(5.0, 0, 10, 0.1), strokes(1.9, 0.13, 10, 0.1), duo, record)
    decided, _ = decide(bench, "Is the violin more rhythmic than the flute?")
    assert decided is not None and decided.found.text == label
    assert [finding.tool for finding in decided.findings] == tools
    if tools:
        rates = [finding.data["value"] for finding in decided.findings]
        assert rates == pytest.approx([5.0, 1.9], rel=0.25)  # strokes that coincide are lost


def test_what_is_too_close_to_measure_stays_as_the_record_has_it(duo: Clip) -> None:
    record = "no voice ; violin left s0 e20 n20 l2 r3 ; flute right s0 e20 n20 l2 r2"
    bench = between(strokes(2.2, 0, 10, 0.1), strokes(2.0, 0.1, 10, 0.1), duo, record)
    decided, _ = decide(bench, "Is the violin more rhythmic than the flute?")
    assert decided is not None and decided.found.text == "yes" and not decided.findings


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ("violin left s0 e20 n20 l2 r2 ; flute left s0 e20 n20 l2 r2", "not the only one"),
        ("violin left s0 e20 n20 l2 r2 ; flute off s0 e20 n20 l2 r2", "cannot be told"),
        ("voice ; violin left s0 e20 n20 l2 r2 ; flute middle s0 e20 n20 l2 r2", "speaking"),
    ],
)
def test_from_a_side_only_where_it_can_be_told(duo: Clip, record: str, why: str) -> None:
    bench = Bench(None, duo)
    bench.events = parse(record, seconds=10.0)
    decided, said = decide(bench, "Is the violin more rhythmic than the flute?")
    assert decided is None and why in said


def test_solos_are_compared_by_measuring(duo: Clip) -> None:
    bench = measurable(duo, "no voice")
    for question, label in (
        ("Is the second solo louder than the first?", "no"),
        ("Is the first solo louder than the last solo?", "yes"),
        ("Is the second solo quieter than the first one?", "yes"),
    ):
        decided, _ = decide(bench, question)
        assert decided is not None and decided.found.text == label
        assert decided.kind == "measured"
    decided, why = decide(bench, "Is the third solo louder than the first?")
    assert decided is None and "too few" in why


def test_what_is_said_is_looked_for_and_not_made_up(duo: Clip) -> None:
    pytest.importorskip("faster_whisper")
    bench = measurable(duo, "voice")
    decided, _ = decide(bench, "What is said while the violin rests?")
    assert decided is not None and decided.kind == "transcript"
    assert "between 4.5 and 10.0 s" in decided.found.text
    decided, _ = decide(bench, "What is said while the tuba rests?")
    assert decided is not None and decided.found.text.startswith("cannot tell: ")


def test_a_mono_sound_has_no_sides(bench: Bench, duo: Clip) -> None:
    mono = Bench(None, replace(duo, sound_CS=duo.sound_CS[:1]))
    with pytest.raises(AgentError, match="1 channels"):
        mono.measure_from("left", "onsets", 0.0, 5.0)
    with pytest.raises(AgentError, match="not measured from one side"):
        bench.measure_from("left", "loudness", 0.0, 5.0)


def test_nothing_is_measured_while_somebody_may_speak(duo: Clip) -> None:
    decided, why = decide(measurable(duo, "voice"), "Is the violin louder than the flute?")
    assert decided is None
    assert "both at the same loudness" in why and "speaking" in why


def test_the_command_prints_steps_and_answer(capsys: pytest.CaptureFixture[str]) -> None:
    clip = str(SAMPLES / "duo.mp4")
    assert main(["agent", clip, "Is the violin louder than the guzheng?"]) == 0
    said = capsys.readouterr().out
    assert "[plan] understood as: compare loudness" in said
    assert "→ no" in said and "planned by rules" in said
    assert main(["agent", clip, "Is the violin louder than the guzheng?", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["answer"]["label"] == "no" and row["planner"] == "rules"
    assert {step["kind"] for step in row["steps"]} == {"plan", "model"}


def test_half_a_server_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", str(SAMPLES / "duo.mp4"), "Why?", "--llm", "some"]) == 2
    assert "--llm and --base-url go together" in capsys.readouterr().err
