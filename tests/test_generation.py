"""Decoding and ranking give what plain calls of the language model give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avqa_llm.answer import Answer
from avqa_llm.encoders.cache import FeatureCache
from avqa_llm.engine import LocalEngine, Session
from avqa_llm.evidence import covered, picture_evidence, sound_evidence
from avqa_llm.generation import greedy, rank, read
from avqa_llm.labels import LABELS, to_label
from avqa_llm.prompt import Turn
from tests.model_parts import QUESTIONS, small_clip, small_llm, small_model

LENGTHS = (9, 4, 6)
NEVER: set[int] = set()
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def llm(request: pytest.FixtureRequest) -> Any:
    return small_llm(request.param)


@pytest.fixture(scope="module")
def prompts(llm: Any) -> list[Tensor]:
    """Vectors (L, E) that are no words, as soft tokens are."""
    torch.manual_seed(5)
    scale = float(llm.get_input_embeddings().weight.std())
    return [torch.randn(length, 32) * scale for length in LENGTHS]


def written(llm: Any, pieces: list[Tensor], limit: int = 12) -> list[list[int]]:
    return greedy(llm, *read(llm, pieces), stops=NEVER, limit=limit)[0]


def test_greedy_equals_generate(llm: Any, prompts: list[Tensor]) -> None:
    for piece in prompts:
        theirs = llm.generate(
            inputs_embeds=piece[None],
            attention_mask=torch.ones(1, len(piece), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=10_000,  # none: never stop
        )
        assert written(llm, [piece])[0] == theirs[0].tolist()


def test_a_batch_writes_what_single_rows_write(llm: Any, prompts: list[Tensor]) -> None:
    alone = [written(llm, [piece])[0] for piece in prompts]
    assert written(llm, prompts) == alone
    assert len({tuple(row) for row in alone}) == len(alone), "the rows must differ to show anything"


def test_rows_stop_by_themselves_and_the_others_go_on(llm: Any, prompts: list[Tensor]) -> None:
    alone = [written(llm, [piece])[0] for piece in prompts]
    stop = alone[0][2]
    rows, final = greedy(llm, *read(llm, prompts), stops={stop}, limit=12)
    for row, full, piece, logits in zip(rows, alone, prompts, final, strict=True):
        cut = full.index(stop) if stop in full else len(full)
        assert row == full[:cut]
        said = torch.tensor(full[: cut + 1])
        whole = torch.cat([piece, llm.get_input_embeddings()(said)])
        expected = llm(inputs_embeds=whole[None]).logits[0, -1]
        torch.testing.assert_close(logits, expected, **CLOSE)


def test_reading_in_parts_equals_reading_at_once(llm: Any, prompts: list[Tensor]) -> None:
    cuts = (3, 4, 1)
    context, _ = read(llm, [p[:cut] for p, cut in zip(prompts, cuts, strict=True)])
    context, logits = read(llm, [p[cut:] for p, cut in zip(prompts[:1], cuts, strict=False)]
                           + [prompts[1][:0], prompts[2][1:]], context)  # fmt: skip
    assert context.lengths_B.tolist() == list(LENGTHS)
    for n in (0, 2):
        expected = llm(inputs_embeds=prompts[n][None]).logits[0, -1]
        torch.testing.assert_close(logits[n], expected, **CLOSE)


def test_chosen_rows_leave_the_original_as_it_was(llm: Any, prompts: list[Tensor]) -> None:
    context, _ = read(llm, prompts)
    branch = context.rows(torch.tensor([2, 0, 2]))
    assert branch.lengths_B.tolist() == [6, 9, 6]
    more = torch.randn(5, 32)
    _, on_branch = read(llm, [more, more[:2], more[:1]], branch)
    assert context.there_BL.shape == (3, 9) and context.cache.get_seq_length() == 9
    _, logits = read(llm, [more[:2]] * 3, context)
    for n, piece in enumerate(prompts):
        expected = llm(inputs_embeds=torch.cat([piece, more[:2]])[None]).logits[0, -1]
        torch.testing.assert_close(logits[n], expected, **CLOSE)
    torch.testing.assert_close(on_branch[1], logits[0], **CLOSE)


def test_rank_equals_brute_force(llm: Any, prompts: list[Tensor]) -> None:
    answers = [[11], [11, 12], [13, 14, 15], [40], [41, 42, 43, 44], [13, 50]]
    scores = rank(llm, *read(llm, prompts), answers)
    embed = llm.get_input_embeddings()
    for n, piece in enumerate(prompts):
        for a, ids in enumerate(answers):
            whole = torch.cat([piece, embed(torch.tensor(ids))])
            likely = llm(inputs_embeds=whole[None]).logits[0].log_softmax(-1)
            expected = sum(float(likely[len(piece) - 1 + k, i]) for k, i in enumerate(ids))
            assert float(scores[n, a]) == pytest.approx(expected, abs=1e-3)


def test_rank_can_be_asked_twice(llm: Any, prompts: list[Tensor]) -> None:
    context, logits = read(llm, prompts)
    answers = [[11, 12], [13, 14, 15]]
    assert torch.equal(rank(llm, context, logits, answers), rank(llm, context, logits, answers))


# --- the engine -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine(small_model())


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model never stops by itself."""
    for name in ("RECORD_LIMIT", "STEPS_LIMIT", "OPEN_LIMIT"):
        monkeypatch.setattr(f"avqa_llm.engine.{name}", 5)


CLIP = small_clip(0)


def test_closed_answers_come_with_all_that_is_needed_to_judge_them(engine: LocalEngine) -> None:
    (answer,) = engine.answer(CLIP, [QUESTIONS[0]], evidence=True)
    assert answer.label in LABELS and answer.answer == answer.label.replace("_", " ")
    assert 0 < answer.probability <= 1
    chances = [answer.probability, *(a.probability for a in answer.alternatives)]
    assert len(chances) == 4 and chances == sorted(chances, reverse=True)
    assert sum(chances) <= 1.001
    assert len({answer.label, *(a.label for a in answer.alternatives)}) == 4
    assert {e.modality for e in answer.evidence} == {"sound", "picture"}
    for place in answer.evidence:
        assert 0 <= place.start_s < place.end_s <= 3.51 and 0 <= place.weight <= 1.001
        assert (place.region is None) == (place.modality == "sound")
    assert (answer.consumed.sound_tokens, answer.consumed.picture_tokens) == (12, 24)
    assert answer.warnings == ()
    assert {"encode", "bridge", "record", "answer"} <= set(answer.timing_s)
    assert json.loads(json.dumps(answer.to_json()))["label"] == answer.label
    assert engine.answer(CLIP, [QUESTIONS[0]])[0].evidence == ()
    assert engine.answer(CLIP, []) == []


def without_times(answers: list[Answer]) -> list[Answer]:
    return [replace(answer, timing_s={}) for answer in answers]


@pytest.mark.parametrize("open_ended", [False, True])
def test_questions_in_one_batch_equal_questions_one_by_one(
    engine: LocalEngine, open_ended: bool
) -> None:
    together = engine.answer(CLIP, QUESTIONS, open_ended=open_ended)
    for question, answer in zip(QUESTIONS, together, strict=True):
        (alone,) = engine.answer(CLIP, [question], open_ended=open_ended)
        assert (answer.answer, answer.label, answer.steps, answer.record) == (
            *(alone.answer, alone.label, alone.steps, alone.record),
        )
        assert answer.probability == pytest.approx(alone.probability, abs=2e-3)


def test_clips_in_one_batch_equal_clips_one_by_one(engine: LocalEngine) -> None:
    clips = [CLIP, small_clip(1, 5), CLIP.muted()]
    tokens = [engine.encode(clip) for clip in clips]
    together = engine.ask(engine.digest(tokens), [(n, QUESTIONS[0]) for n in (2, 0, 1)])
    for n, answer in zip((2, 0, 1), together, strict=True):
        (alone,) = engine.answer(clips[n], [QUESTIONS[0]])
        assert (answer.label, answer.record, answer.consumed) == (
            *(alone.label, alone.record, alone.consumed),
        )
        assert answer.probability == pytest.approx(alone.probability, abs=2e-3)


def test_asking_does_not_change_what_was_read(engine: LocalEngine) -> None:
    reading = engine.digest([engine.encode(CLIP)])
    one = engine.ask(reading, [(0, q) for q in QUESTIONS])
    assert without_times(engine.ask(reading, [(0, q) for q in QUESTIONS])) == without_times(one)


@pytest.mark.parametrize("gone", ["sound", "picture"])
def test_a_missing_modality_is_said_and_not_consumed(engine: LocalEngine, gone: str) -> None:
    clip = CLIP.muted() if gone == "sound" else CLIP.blanked()
    (answer,) = engine.answer(clip, [QUESTIONS[0]], evidence=True)
    assert any(f"no {gone}" in warning for warning in answer.warnings)
    assert not getattr(answer.consumed, gone)
    assert getattr(answer.consumed, f"{gone}_tokens") == 0
    assert {e.modality for e in answer.evidence} == {"sound", "picture"} - {gone}


def test_silence_is_said(engine: LocalEngine) -> None:
    silent = replace(CLIP, sound_CS=CLIP.sound_CS * 0)
    (answer,) = engine.answer(silent, [QUESTIONS[0]])
    assert any("silent" in warning for warning in answer.warnings)


def test_earlier_turns_are_heard(engine: LocalEngine) -> None:
    histories = [(), *((Turn(question=QUESTIONS[1], answer=said),) for said in ("yes", "no"))]
    chances = [
        engine.answer(CLIP, [QUESTIONS[0]], history=history)[0].probability for history in histories
    ]
    assert len(set(chances)) == 3


def test_a_session_remembers(engine: LocalEngine) -> None:
    session = Session(engine, CLIP)
    first = session.ask(QUESTIONS[1])
    second = session.ask(QUESTIONS[0])
    history = [Turn(question=QUESTIONS[1], answer=first.answer)]
    (expected,) = engine.answer(CLIP, [QUESTIONS[0]], history=history, evidence=True)
    assert without_times([second]) == without_times([expected])
    assert [turn.question for turn in session.turns] == [QUESTIONS[1], QUESTIONS[0]]


def test_open_answers_are_text_and_never_a_guessed_label(engine: LocalEngine) -> None:
    (answer,) = engine.answer(CLIP, [QUESTIONS[0]], open_ended=True)
    assert answer.label == to_label(answer.answer)
    assert 0 < answer.probability <= 1 and answer.alternatives == ()


@pytest.mark.parametrize("question", ["", " ", "</s>", "?" * 300, "wer spielt 日本 \N{VIOLIN}?"])
def test_odd_questions_are_answered(engine: LocalEngine, question: str) -> None:
    answers = engine.answer(CLIP, [question, QUESTIONS[0]])
    (alone,) = engine.answer(CLIP, [QUESTIONS[0]])
    assert answers[1].label == alone.label, "one question disturbs another"
    assert 0 < answers[0].probability <= 1


def test_what_is_cited_can_be_hidden(engine: LocalEngine) -> None:
    """The tokens under cited evidence are those with the most attention."""
    tokens = engine.encode(CLIP).sound
    weights = torch.zeros(tokens.n)
    weights[(tokens.times_N >= 1) & (tokens.times_N < 2)] = 0.25
    (place,) = sound_evidence(tokens, weights, most=1)
    assert (place.start_s, place.end_s, place.weight) == (1.0, 2.0, 1.0)
    assert torch.equal(covered(tokens, [place]), weights > 0)
    seen = engine.encode(CLIP).picture
    weights = ((seen.places_N2[:, 0] > 0.7) & (seen.places_N2[:, 1] > 0.5)).float()
    weights = torch.where(seen.places_N2[:, 0] > 0.8, weights, 0) / 3
    (place,) = picture_evidence(seen, weights, most=1)
    assert place.region == (0.75, 0.5, 1.0, 1.0)
    assert torch.equal(covered(seen, [place]), weights > 0)


def test_kept_tokens_are_those_of_this_very_clip(engine: LocalEngine, tmp_path: Path) -> None:
    """A clip whose sound or frames were changed still carries the name of its file."""
    keeping = LocalEngine(engine.model, cache=FeatureCache(tmp_path, 2**20))
    clips = [
        CLIP,
        replace(CLIP, sound_CS=CLIP.sound_CS[:, ::-1]),
        replace(CLIP, frames_THWC=CLIP.frames_THWC[::-1]),
        CLIP.muted(),
        CLIP.blanked(),
    ]
    for clip in clips * 2:
        fresh, kept = engine.encode(clip), keeping.encode(clip)
        for one, other in ((fresh.sound, kept.sound), (fresh.picture, kept.picture)):
            assert torch.equal(one.values_ND, other.values_ND)
            assert torch.equal(one.times_N, other.times_N)
