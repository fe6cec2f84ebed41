"""The agent as an engine of `python -m eval`: what it adds is measured like any model's answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avqa_llm.agent import Agent, Report
from avqa_llm.asking import SAMPLES
from avqa_llm.media import Clip
from eval.__main__ import main
from eval.engines import Asked
from eval.engines.agent import RulesAgent
from eval.engines.load import EngineSpec
from eval.engines.local import Local
from instruct_data.bandstand.write import SetConfig, write_set

QUESTIONS = (
    "Is the violin louder than the guzheng?",
    "Where is the performance?",
    "Which instrument comes in first?",
    "How many instruments are heard?",
    "Is there a voiceover?",
)


@pytest.fixture(scope="module")
def agent() -> RulesAgent:
    made = EngineSpec(model="agent:tiny").load()
    assert isinstance(made, RulesAgent)
    return made


@pytest.fixture(scope="module")
def clips(agent: RulesAgent) -> list[Clip]:
    return [agent.read(SAMPLES / name) for name in ("duo.mp4", "trio.mp4")]


def test_answers_are_those_of_the_agent_itself(agent: RulesAgent, clips: list[Clip]) -> None:
    asked = [Asked(clip=1 - n % 2, question=q) for n, q in enumerate(QUESTIONS * 2)]
    found = agent.answer(clips, asked)
    alone = Agent.rules(agent.engine)
    for one, answer in zip(asked, found, strict=True):
        *_, report = alone.run(clips[one.clip], one.question)
        assert isinstance(report, Report)
        assert (answer.label, answer.steps) == (report.answer.label, report.answer.steps)


def test_what_no_rule_decides_is_the_model_s_answer(agent: RulesAgent, clips: list[Clip]) -> None:
    asked = [Asked(clip=0, question=question) for question in QUESTIONS]
    found = agent.answer(clips, asked, evidence=True)
    model = Local(engine=agent.engine, model="tiny").answer(clips, asked, evidence=True)
    looked_up = [answer.probability is None for answer in found]
    assert looked_up == [True, False, True, True, False]
    for mine, its in zip(found, model, strict=True):
        assert mine.evidence and mine.consumed == its.consumed and mine.record == its.record
        if mine.probability is not None:
            assert (mine.label, mine.probability) == (its.label, pytest.approx(its.probability))


def test_a_closed_choice_is_kept(agent: RulesAgent, clips: list[Clip]) -> None:
    asked = [Asked(clip=0, question=QUESTIONS[2], choices=("a piano", "a drum"))]
    (answer,) = agent.answer(clips, asked)
    assert answer.answer in asked[0].choices


def test_the_fingerprint_covers_the_rules() -> None:
    assert EngineSpec(model="agent:tiny").weights() != EngineSpec(model="tiny").weights()


def test_a_run_is_scored(tmp_path: Path) -> None:
    data = tmp_path / "set"
    write_set(data, SetConfig(clips=2, seed=5, split="test", media="mp4", height=216, fps=10.0))
    arguments = ["run", "--benchmark", "bandstand", "--model", "agent:tiny", "--workers", "1"]
    arguments += ["--annotations", str(data / "avqa.json"), "--media", str(data / "videos")]
    assert main([*arguments, "--fit", str(data / "avqa.json"), "--out", str(tmp_path / "run")]) == 0
    samples = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in samples]
    assert {row["probability"] is None for row in rows} == {True, False}
    assert "agent:tiny" in (tmp_path / "run" / "results.json").read_text()
