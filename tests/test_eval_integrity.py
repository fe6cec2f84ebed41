"""Three planted faults, each caught by name; and what is sound passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avqa_llm.answer import Answer, Consumed
from avqa_llm.media import Clip
from eval.benchmarks.base import Question
from eval.control import family, planted
from eval.engines import Asked
from eval.runner import evaluate
from tests.eval_world import Scripted, job, make_world

CLIPS = 16


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), CLIPS)


def states(results: dict[str, Any]) -> dict[str, str]:
    return {name: check["state"] for name, check in results["integrity"]["checks"].items()}


def test_a_sound_run_is_valid(world: Path, tmp_path: Path) -> None:
    results = evaluate(job(world, tmp_path), Scripted)
    assert results["integrity"]["valid"]
    assert states(results) == {
        "no gold leak": "pass",
        "empty media at the floor": "pass",
        "sound delivered": "pass",
        "picture delivered": "pass",
        "sound matters": "pass",
        "picture matters": "pass",
        "scorer": "pass",
        "files": "pass",
        "train overlap": "unproven",
    }


# --- a prompt that leaks --------------------------------------------------------------------


def leaking(question: Question) -> str:
    return f"{question.question} The answer is {question.gold}."


class Reader(Scripted):
    """Reads its answer off the prompt, whatever it sees and hears."""

    def answer(
        self, clips: Sequence[Clip], asked: Sequence[Asked], *, evidence: bool = False
    ) -> list[Answer]:
        answers = super().answer(clips, asked, evidence=evidence)
        told = [one.question.partition("The answer is ")[2].rstrip(".") for one in asked]
        return [replace(a, answer=t or a.answer) for a, t in zip(answers, told, strict=True)]


def test_a_prompt_that_holds_the_gold_answer_is_caught(world: Path, tmp_path: Path) -> None:
    results = evaluate(job(world, tmp_path), Reader, wording=leaking)
    assert results["overall"]["accuracy"] == 1.0
    assert not results["integrity"]["valid"]
    check = results["integrity"]["checks"]["no gold leak"]
    assert check["state"] == "fail" and "GOLD LEAK" in check["says"]
    assert check["hits"] == check["n"] > 2 * check["expected"]


def test_planted_answers_are_drawn_evenly_from_what_could_be_meant() -> None:
    base = Question(number=1, video_id="v", question_id=1, type="t", question="q", gold="yes")
    drawn = [planted(replace(base, number=n)).gold for n in range(1000)]
    assert set(drawn) == {"yes", "no"} and 430 < drawn.count("yes") < 570
    assert family(replace(base, gold="cello"))[:2] == ("accordion", "acoustic_guitar")
    assert family(replace(base, gold="dog", choices=("cat", "dog"))) == ("cat", "dog")


# --- an engine that drops the sound ---------------------------------------------------------


class Dropping(Scripted):
    """Never gets the sound, and says so."""

    def answer(
        self, clips: Sequence[Clip], asked: Sequence[Asked], *, evidence: bool = False
    ) -> list[Answer]:
        return super().answer([clip.muted() for clip in clips], asked, evidence=evidence)


class Pretending(Dropping):
    """Never gets the sound either, and claims that it did."""

    def answer(
        self, clips: Sequence[Clip], asked: Sequence[Asked], *, evidence: bool = False
    ) -> list[Answer]:
        answers = super().answer(clips, asked, evidence=evidence)
        heard = [clips[one.clip].has_sound for one in asked]
        return [
            replace(a, consumed=Consumed(**(vars(a.consumed) | {"sound": h, "sound_tokens": 3})))
            for a, h in zip(answers, heard, strict=True)
            if a.consumed
        ]


def test_an_engine_that_drops_the_sound_is_caught(world: Path, tmp_path: Path) -> None:
    results = evaluate(job(world, tmp_path), Dropping)
    assert not results["integrity"]["valid"]
    check = results["integrity"]["checks"]["sound delivered"]
    assert check["state"] == "fail" and "SOUND DROPPED" in check["says"]
    assert states(results)["picture delivered"] == "pass"


def test_one_that_claims_to_have_heard_is_caught_too(world: Path, tmp_path: Path) -> None:
    results = evaluate(job(world, tmp_path), Pretending)
    assert states(results)["sound delivered"] == "pass"
    check = results["integrity"]["checks"]["sound matters"]
    assert check["state"] == "fail" and "CHANGES NOTHING" in check["says"]
    assert not results["integrity"]["valid"]


def test_one_that_loses_the_sound_in_reading_is_caught(world: Path, tmp_path: Path) -> None:
    class Losing(Scripted):
        def read(self, path: Path) -> Clip:
            clip = super().read(path)
            return clip.muted() if int(path.stem) % 2 else clip

    check = evaluate(job(world, tmp_path), Losing)["integrity"]["checks"]["sound delivered"]
    assert check["state"] == "fail" and "SOUND LOST IN READING" in check["says"]


def test_a_few_questions_prove_no_innocence(world: Path, tmp_path: Path) -> None:
    results = evaluate(job(world, tmp_path, limit=2), Reader, wording=leaking)
    assert states(results)["no gold leak"] == "unproven"
    assert states(results)["empty media at the floor"] == "unproven"


def test_an_engine_that_cannot_prove_it_is_unproven(world: Path, tmp_path: Path) -> None:
    class Silent(Scripted):
        def say(self, clip: Clip, question: str) -> Answer:
            return replace(super().say(clip, question), consumed=None)

    results = evaluate(job(world, tmp_path), Silent)
    assert states(results)["sound delivered"] == "unproven"
    assert results["integrity"]["valid"]


# --- a scorer that guesses ------------------------------------------------------------------


def substring(text: str, question: Question) -> str:
    return question.gold if question.gold in text else "no_answer"


def deaf(text: str, question: Question) -> str:
    return "no_answer"


def test_a_substring_scorer_is_caught(world: Path, tmp_path: Path) -> None:
    results = evaluate(job(world, tmp_path), Scripted, score=substring)
    check = results["integrity"]["checks"]["scorer"]
    assert check["state"] == "fail" and "THE SCORER GUESSES" in check["says"]
    assert "'piano'" in check["says"] and not results["integrity"]["valid"]


def test_a_deaf_scorer_is_caught(world: Path, tmp_path: Path) -> None:
    results = evaluate(job(world, tmp_path), Scripted, score=deaf)
    assert results["integrity"]["checks"]["scorer"]["state"] == "fail"


# --- better than nothing allows -------------------------------------------------------------


def test_knowing_the_clips_without_seeing_them_is_caught(world: Path, tmp_path: Path) -> None:
    class Memory(Scripted):
        """Knows the answers by the file's name: the clip's content is not needed."""

        def say(self, clip: Clip, question: str) -> Answer:
            whole = super().say(self.read(Path(clip.path)), question)
            return replace(whole, consumed=super().say(clip, question).consumed)

    results = evaluate(job(world, tmp_path), Memory)
    check = results["integrity"]["checks"]["empty media at the floor"]
    assert check["state"] == "fail" and "NOTHING TO SEE OR HEAR" in check["says"]
