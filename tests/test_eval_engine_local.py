"""The local engine as the runner sees it, with the model that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from avqa_llm.errors import CheckpointError, MediaError
from avqa_llm.labels import LABELS
from avqa_llm.media import Clip
from eval.engines import Asked, Engine
from eval.engines.local import Local
from eval.samples import RunError

FOLDER = Path(__file__).resolve().parent.parent / "app" / "samples"
COUNT = "How many instruments are sounding in the video?"
WHERE = "Where is the loudest instrument?"


@pytest.fixture(scope="module")
def local() -> Local:
    return Local.load("tiny")


@pytest.fixture(scope="module")
def clips(local: Local) -> list[Clip]:
    return [local.read(path) for path in sorted(FOLDER.glob("*.mp4"))[:3]]


def test_questions_about_several_clips(local: Local, clips: list[Clip]) -> None:
    engine: Engine = local
    asked = [Asked(clip=n, question=q) for q in (COUNT, WHERE) for n in (2, 0, 1)]
    answers = engine.answer(clips, asked, evidence=True)
    assert [one.label for one in answers] == [
        local.engine.answer(clips[one.clip], [one.question])[0].label for one in asked
    ]
    for one in answers:
        assert one.label in LABELS and one.consumed is not None
        assert one.consumed.sound and one.consumed.picture
        assert {place.modality for place in one.evidence} == {"sound", "picture"}
    assert local.answer(clips, asked[:1])[0].evidence == ()


def test_a_question_with_choices(local: Local, clips: list[Clip]) -> None:
    choices = ("two", "more than ten", "a string quartet")
    (answer, plain) = local.answer(
        clips, [Asked(clip=0, question=COUNT, choices=choices), Asked(clip=0, question=COUNT)]
    )
    assert answer.label == answer.answer and answer.label in choices
    assert {answer.label, *(other.label for other in answer.alternatives)} == set(choices)
    assert plain.label in LABELS


def test_free_text(local: Local, clips: list[Clip]) -> None:
    writing = Local(engine=local.engine, model="tiny", mode="generate")
    (answer,) = writing.answer(clips, [Asked(clip=0, question=COUNT)])
    assert answer.answer and answer.alternatives == ()
    assert writing.describe()["mode"] == "generate"


def test_it_says_what_it_is(local: Local) -> None:
    about = local.describe()
    assert set(about) == {"model", "mode", "threads"}
    assert (about["model"], about["mode"]) == ("tiny", "rank") and about["threads"] >= 1


def test_mistakes_are_named(local: Local, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="'guess'.*rank, generate"):
        Local.load("tiny", mode="guess")
    with pytest.raises(CheckpointError, match="no-such"):
        Local.load("no-such")
    with pytest.raises(MediaError, match=r"absent\.mp4"):
        local.read(tmp_path / "absent.mp4")
