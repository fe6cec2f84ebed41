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
from avqa_llm.generation import Decoder, Parts, greedy, rank, read
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


FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "phi3", "stablelm")
"""The last one does not let others attend for it: its rows get copies."""


@pytest.fixture(scope="module", params=FAMILIES)
def llm(request: pytest.FixtureRequest) -> Any:
    return small_llm(request.param)


@pytest.fixture(scope="module")
def decoder(llm: Any) -> Decoder:
    return Decoder(llm)


@pytest.fixture(scope="module")
def prompts(llm: Any) -> list[Tensor]:
    """Vectors (L, E) that are no words, as soft tokens are."""
    torch.manual_seed(5)
    scale = float(llm.get_input_embeddings().weight.detach().std())
    return [torch.randn(length, 32) * scale for length in LENGTHS]


def written(decoder: Decoder, pieces: list[Tensor], limit: int = 12) -> list[list[int]]:
    return greedy(decoder, *read(decoder, pieces), stops=NEVER, limit=limit)[0].ids


def ranked(decoder: Decoder, pieces: list[Tensor], answers: list[list[list[int]]]) -> Tensor:
    context, logits = read(decoder, pieces)
    return rank(decoder, Parts.of(context), logits, answers)


def likelihood(llm: Any, piece: Tensor, ids: list[int]) -> float:
    """Log-likelihood of `ids` after a prompt, by one plain pass."""
    whole = torch.cat([piece, llm.get_input_embeddings()(torch.tensor(ids))])
    likely = llm(inputs_embeds=whole[None]).logits[0].log_softmax(-1)
    return sum(float(likely[len(piece) - 1 + k, i]) for k, i in enumerate(ids))


def test_greedy_equals_generate(llm: Any, decoder: Decoder, prompts: list[Tensor]) -> None:
    for piece in prompts:
        theirs = llm.generate(
            inputs_embeds=piece[None],
            attention_mask=torch.ones(1, len(piece), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=10_000,  # none: never stop
        )
        assert written(decoder, [piece])[0] == theirs[0].tolist()


def test_a_batch_writes_what_single_rows_write(decoder: Decoder, prompts: list[Tensor]) -> None:
    alone = [written(decoder, [piece])[0] for piece in prompts]
    assert written(decoder, prompts) == alone
    assert len({tuple(row) for row in alone}) == len(alone), "the rows must differ to show anything"


@pytest.mark.parametrize("shrink", [0.0, 1.0])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("branched", [False, True])
def test_rows_stop_by_themselves_and_the_others_go_on(
    llm: Any,
    decoder: Decoder,
    prompts: list[Tensor],
    *,
    branched: bool,
    first: int,
    shrink: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether rows that have stopped leave the batch or stay: each is where it stopped."""
    monkeypatch.setattr("avqa_llm.generation.SHRINK", shrink)
    alone = [written(decoder, [piece])[0] for piece in prompts]
    stop = alone[first][2]
    context, logits = read(decoder, [piece[:-1] for piece in prompts])
    context = context.branch(torch.arange(3)) if branched else context
    context, logits = read(decoder, [piece[-1:] for piece in prompts], context)
    wrote, final, parts = greedy(decoder, context, logits, stops={stop}, limit=12)
    rows, chances = wrote.ids, wrote.chances
    assert (len(parts.contexts) > 1) == (shrink > 0)
    _, later = read(decoder, [piece[:2] for piece in prompts], parts.whole())
    for n, (row, full, piece) in enumerate(zip(rows, alone, prompts, strict=True)):
        cut = full.index(stop) if stop in full else len(full)
        assert row == full[:cut]
        said = torch.tensor(full[: cut + 1])
        assert sum(chances[n]) == pytest.approx(likelihood(llm, piece, said.tolist()), abs=1e-3)
        assert len(chances[n]) == len(said), "the stop counts too"
        whole = torch.cat([piece, llm.get_input_embeddings()(said), piece[:2]])
        expected = llm(inputs_embeds=whole[None]).logits[0]
        torch.testing.assert_close(final[n], expected[-3], **CLOSE)
        torch.testing.assert_close(later[n], expected[-1], **CLOSE)


def test_reading_in_parts_equals_reading_at_once(
    llm: Any, decoder: Decoder, prompts: list[Tensor]
) -> None:
    cuts = (3, 4, 1)
    context, _ = read(decoder, [p[:cut] for p, cut in zip(prompts, cuts, strict=True)])
    rest = [prompts[0][3:], prompts[1][:0], prompts[2][1:]]
    context, logits = read(decoder, rest, context)
    assert context.lengths_B.tolist() == list(LENGTHS)
    for n in (0, 2):
        expected = llm(inputs_embeds=prompts[n][None]).logits[0, -1]
        torch.testing.assert_close(logits[n], expected, **CLOSE)


ROWS = pytest.mark.parametrize(
    "rows", [[2, 0, 2], [0, 1, 2], [0, 0, 2, 2], [1], [2, 2, 2, 2, 2], [2, 1, 1, 0, 1]]
)
"""Which prompts rows go on from: some, all, evenly, unevenly, out of order."""


@ROWS
def test_rows_that_share_a_start_equal_rows_by_themselves(
    llm: Any, decoder: Decoder, prompts: list[Tensor], rows: list[int]
) -> None:
    context, _ = read(decoder, prompts)
    branch = context.branch(torch.tensor(rows))
    assert branch.lengths_B.tolist() == [LENGTHS[n] for n in rows]
    torch.manual_seed(6)
    more = [torch.randn(1 + at % 3, 32) for at in range(len(rows))]
    _, early = read(decoder, more, branch)
    again = branch.branch(torch.arange(len(rows)).flip(0))
    _, late = read(decoder, [piece[:1] for piece in reversed(more)], again)
    for at, n in enumerate(rows):
        whole = torch.cat([prompts[n], more[at], more[at][:1]])
        expected = llm(inputs_embeds=whole[None]).logits[0]
        torch.testing.assert_close(early[at], expected[-2], **CLOSE)
        torch.testing.assert_close(late[-1 - at], expected[-1], **CLOSE)


def test_a_branch_leaves_the_original_as_it_was(
    llm: Any, decoder: Decoder, prompts: list[Tensor]
) -> None:
    context, _ = read(decoder, prompts)
    branch = context.branch(torch.tensor([2, 0, 2]))
    more = torch.randn(5, 32)
    _, on_branch = read(decoder, [more, more[:2], more[:1]], branch)
    assert context.there_BL.shape == (3, 9) and context.cache.get_seq_length() == 9
    _, logits = read(decoder, [more[:2]] * 3, context)
    for n, piece in enumerate(prompts):
        expected = llm(inputs_embeds=torch.cat([piece, more[:2]])[None]).logits[0, -1]
        torch.testing.assert_close(logits[n], expected, **CLOSE)
    torch.testing.assert_close(on_branch[1], logits[0], **CLOSE)


def test_a_model_that_sees_only_what_is_near_sees_no_more_of_a_shared_start() -> None:
    llm = small_llm("mistral")
    llm.config.sliding_window = 6
    decoder = Decoder(llm)
    starts, more = torch.randn(2, 9, 32), torch.randn(3, 5, 32)
    context, _ = read(decoder, list(starts))
    _, logits = read(decoder, list(more), context.branch(torch.tensor([1, 0, 1])))
    for at, n in enumerate((1, 0, 1)):
        whole = torch.cat([starts[n], more[at]])
        expected = llm(inputs_embeds=whole[None]).logits[0, -1]
        torch.testing.assert_close(logits[at], expected, **CLOSE)
    llm.config.sliding_window = None
    everything = llm(inputs_embeds=whole[None]).logits[0, -1]
    assert not torch.allclose(everything, expected, **CLOSE), "the window changes nothing here"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_is_shared_where_the_model_lets_us(family: str) -> None:
    decoder = Decoder(small_llm(family))
    assert decoder.shares == (family != "stablelm")
    context, _ = read(decoder, [torch.randn(40, 32)])
    branch = context.branch(torch.zeros(8, dtype=torch.long))
    read(decoder, [torch.randn(2, 32)] * 8, branch)
    keys = branch.cache.layers[0].own()[0]
    assert keys.shape[2] == (2 if decoder.shares else 42)


def test_the_language_model_is_left_as_it_was(llm: Any) -> None:
    before = {name: value.clone() for name, value in llm.state_dict().items()}
    decoder = Decoder(llm)
    assert llm.config._attn_implementation == "eager"
    assert all(torch.equal(value, before[name]) for name, value in llm.state_dict().items())
    shared = {id(weight) for weight in llm.parameters()}
    assert {id(weight) for weight in decoder.llm.parameters()} == shared, "weights were copied"


def test_merged_lora_is_part_of_the_plain_layers() -> None:
    model = small_model()
    piece = torch.randn(6, 32)
    expected = model.llm(inputs_embeds=piece[None]).logits[0, -1]
    model.llm.merge_adapter()
    decoder = Decoder(model.llm)
    assert not [name for name, _ in decoder.llm.named_modules() if "lora" in name]
    _, logits = read(decoder, [piece])
    torch.testing.assert_close(logits[0], expected, **CLOSE)
    assert [name for name, _ in model.llm.named_modules() if "lora" in name], "it was taken apart"


ANSWERS = [[11], [11, 12], [13, 14, 15], [40], [41, 42, 43, 44], [13, 50]]


def test_rank_equals_brute_force(llm: Any, decoder: Decoder, prompts: list[Tensor]) -> None:
    scores = ranked(decoder, prompts, [ANSWERS] * 3)
    for n, piece in enumerate(prompts):
        for a, ids in enumerate(ANSWERS):
            assert float(scores[n, a]) == pytest.approx(likelihood(llm, piece, ids), abs=1e-3)


def test_each_row_has_its_own_answers(llm: Any, decoder: Decoder, prompts: list[Tensor]) -> None:
    answers = [[[11, 12], [13, 14, 15]], [[40, 2]], [[41, 2], [42, 43, 44, 2], [13, 2]]]
    scores = ranked(decoder, prompts, answers)
    assert scores.shape == (3, 3)
    for n, (piece, own) in enumerate(zip(prompts, answers, strict=True)):
        for a, ids in enumerate(own):
            assert float(scores[n, a]) == pytest.approx(likelihood(llm, piece, ids), abs=1e-3)
        assert torch.isneginf(scores[n, len(own) :]).all()


def test_rank_after_rows_have_stopped(llm: Any, decoder: Decoder, prompts: list[Tensor]) -> None:
    """Answers go on from each row's own steps, wherever these were cut."""
    context, logits = read(decoder, prompts)
    stop = written(decoder, prompts[:1])[0][2]
    steps, logits, parts = greedy(decoder, context, logits, stops={stop}, limit=12)
    scores = rank(decoder, parts, logits, [ANSWERS] * 3)
    for n, (piece, said) in enumerate(zip(prompts, steps.ids, strict=True)):
        ended = [*said, stop] if len(said) < 12 else said
        words = llm.get_input_embeddings()(torch.tensor(ended))
        for a in (1, 4):
            expected = likelihood(llm, torch.cat([piece, words]), ANSWERS[a])
            assert float(scores[n, a]) == pytest.approx(expected, abs=1e-3)


def test_rank_can_be_asked_twice(decoder: Decoder, prompts: list[Tensor]) -> None:
    context, logits = read(decoder, prompts)
    answers = [[[11, 12], [13, 14, 15]]] * 3
    one, two = (rank(decoder, Parts.of(context), logits, answers) for _ in range(2))
    assert torch.equal(one, two)


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
