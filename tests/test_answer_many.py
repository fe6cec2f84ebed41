"""Many clips and questions at once: the same answers, and nothing is computed twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from avqa_llm.answer import Answer
from avqa_llm.engine import LocalEngine
from avqa_llm.generation import Parts, greedy, rank
from avqa_llm.media import Clip
from tests.model_parts import QUESTIONS, small_clip, small_model

LONG = " ".join(QUESTIONS)
CLIP = small_clip(0)
CLIPS = [
    CLIP,
    small_clip(1, 5),
    CLIP.muted(),
    CLIP.blanked(),
    CLIP.muted().blanked(),
    replace(CLIP, sound_CS=CLIP.sound_CS * 0),
]
ROWS = [
    *((n, QUESTIONS[0]) for n in (4, 2, 0, 5, 1, 3)),
    *((n, QUESTIONS[1]) for n in (0, 3)),
    *((1, question) for question in (LONG, QUESTIONS[-1], LONG)),
]
CHOICES = ("piano", "piano and flute", "no")


@pytest.fixture(scope="module", params=["llama-vit-vit", "qwen2-siglip-ast"])
def engine(request: pytest.FixtureRequest) -> LocalEngine:
    return LocalEngine(small_model(request.param))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A random model never stops by itself; several batches of everything."""
    for name in ("RECORD_LIMIT", "STEPS_LIMIT", "OPEN_LIMIT"):
        monkeypatch.setattr(f"avqa_llm.engine.{name}", 5)
    monkeypatch.setattr("avqa_llm.engine.CLIPS", 4)
    monkeypatch.setattr("avqa_llm.engine.CHUNK", 3)
    with torch.no_grad():
        yield


def same(one: Answer, other: Answer) -> None:
    """Rounding may differ between batches, nothing else may."""
    chances = ("probability", "alternatives", "evidence", "timing_s")
    blank = {"probability": 0.0, "alternatives": (), "evidence": (), "timing_s": {}}
    assert replace(one, **blank) == replace(other, **blank)
    assert one.probability == pytest.approx(other.probability, abs=2e-3), chances
    for mine, theirs in zip(one.evidence, other.evidence, strict=True):
        assert replace(mine, weight=0.0) == replace(theirs, weight=0.0)
        assert mine.weight == pytest.approx(theirs.weight, abs=1e-3)


@pytest.mark.parametrize("open_ended", [False, True])
def test_many_clips_at_once_equal_clips_one_by_one(engine: LocalEngine, open_ended: bool) -> None:
    how = {"evidence": True, "open_ended": open_ended}
    together = engine.answer_many(CLIPS, ROWS, **how)
    assert len(together) == len(ROWS)
    for (clip, question), answer in zip(ROWS, together, strict=True):
        same(answer, engine.answer(CLIPS[clip], [question], **how)[0])


def test_each_answer_knows_what_its_own_clip_lacks(engine: LocalEngine) -> None:
    answers = engine.answer_many(CLIPS, [(n, QUESTIONS[0]) for n in range(len(CLIPS))])
    used = [(one.consumed.sound, one.consumed.picture) for one in answers if one.consumed]
    assert used == [(True, True), (True, True), (False, True), (True, False)] + [
        (False, False),
        (True, True),
    ]
    said = [" ".join(one.warnings) for one in answers]
    assert ["no sound" in text for text in said] == [False, False, True, False, True, False]
    assert ["no picture" in text for text in said] == [False, False, False, True, True, False]
    assert "silent" in said[5]
    assert {"encode", "bridge", "record", "answer"} <= set(answers[0].timing_s)


def test_the_same_is_answered_the_same(engine: LocalEngine) -> None:
    one, two = (engine.answer_many(CLIPS, ROWS, evidence=True) for _ in range(2))
    assert [replace(a, timing_s={}) for a in one] == [replace(a, timing_s={}) for a in two]
    assert engine.answer_many(CLIPS, []) == [] and engine.answer_many([], []) == []


def test_choices_are_ranked_instead_of_labels(engine: LocalEngine) -> None:
    rows = [(0, QUESTIONS[0]), (1, QUESTIONS[0]), (2, QUESTIONS[1])]
    offered = [CHOICES, (), ("_x", *CHOICES, "two", "left")]
    answers = engine.answer_many(CLIPS, rows, choices=offered)
    for answer, own in zip(answers, offered, strict=True):
        found = [answer.label, *(other.label for other in answer.alternatives)]
        assert len(set(found)) == len(found)
        assert set(found) <= set(own or engine.labels)
        assert answer.answer == answer.label.replace("_", " " if not own else "_")
    assert answers[0].probability + sum(a.probability for a in answers[0].alternatives) == (
        pytest.approx(1, abs=1e-3)
    )
    (plain,) = engine.answer_many(CLIPS, rows[1:2])
    same(answers[1], plain)


def test_a_choice_is_as_likely_as_its_text_with_its_end(engine: LocalEngine) -> None:
    """So that "piano" does not win over "piano and flute" just because it is shorter."""
    prompt, question = engine.model.prompt, QUESTIONS[0]
    (answer,) = engine.answer_many([CLIP], [(0, question)], choices=[CHOICES])
    context = engine.digest([engine.encode(CLIP)]).context
    keys = engine.model.keys([engine.encode(CLIP)])
    soft, exists, _ = engine.model.clues(keys, [prompt.text(question)])
    ids = prompt.question(question, int(exists.sum()))
    embeds = engine.model.place(torch.tensor([ids]), {-3: (soft, exists)})
    branch = context.branch(torch.tensor([0]))
    logits = engine.decoder.feed(branch, embeds, torch.ones(1, len(ids), dtype=torch.bool))
    stops = {prompt.steps_end[-1], *prompt.eos}
    _, logits, parts = greedy(engine.decoder, branch, logits[:, -1], stops=stops, limit=5)
    texts = [prompt.text(text) + prompt.eos for text in CHOICES]
    assert min(len(ids) for ids in texts) > 1
    chances = rank(engine.decoder, Parts.of(parts.whole()), logits, [texts]).softmax(-1)[0]
    found = {answer.label: answer.probability}
    found |= {other.label: other.probability for other in answer.alternatives}
    assert [found[text] for text in CHOICES] == pytest.approx(chances.tolist(), abs=1e-3)


# --- what was encoded before ------------------------------------------------------------------


@pytest.fixture
def counted() -> Iterator[tuple[LocalEngine, dict[str, int]]]:
    """An engine of its own, and how often its encoders ran."""
    engine = LocalEngine(small_model())
    runs = {"sound": 0, "picture": 0}

    def count(name: str) -> None:
        runs[name] += 1

    for name in runs:
        part = getattr(engine.model, name)
        part.register_forward_hook(lambda *_, name=name: count(name))
    yield engine, runs


def changed(clip: Clip) -> Clip:
    return replace(clip, sound_CS=np.ascontiguousarray(clip.sound_CS[:, ::-1]))


def test_a_picture_is_encoded_once_whatever_happens_to_its_sound(
    counted: tuple[LocalEngine, dict[str, int]],
) -> None:
    engine, runs = counted
    copied = replace(CLIP, frames_THWC=CLIP.frames_THWC.copy(), sha256="other")
    clips = [CLIP, changed(CLIP), CLIP.muted(), copied]
    engine.answer_many(clips, [(n, QUESTIONS[0]) for n in range(4)])
    assert runs == {"sound": 3, "picture": 1}
    engine.answer_many(clips, [(n, QUESTIONS[0]) for n in range(4)])
    assert runs == {"sound": 3, "picture": 1}
    later = replace(CLIP, frame_times_s=CLIP.frame_times_s + 0.1)
    faster = replace(CLIP, sound_rate_hz=CLIP.sound_rate_hz * 2)
    engine.encode(later), engine.encode(faster)
    assert runs == {"sound": 4, "picture": 2}, "time belongs to the content"


def test_only_some_are_remembered(
    counted: tuple[LocalEngine, dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avqa_llm.encoding.KEPT", 2)
    engine, runs = counted
    clips = [small_clip(n) for n in range(3)]
    for number in (0, 1, 0, 2, 0, 1):
        engine.encode(clips[number])
    assert runs == {"sound": 4, "picture": 4}, "the one that was used longest ago leaves"
