"""The prompt is the same in training and in use, and packed questions cannot see one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avqa_llm.prompt import CLUE, PICTURE, SOUND, Prompt, Turn
from avqa_llm.training.packing import IGNORE, Packed, Piece, block_logps, pack, packed_loss
from avqa_llm.training.rows import ClipRow, Question, question_blocks
from avqa_llm.training.text import TextConfig, text_batch
from tests.model_parts import QUESTIONS, small_llm, small_tokenizer

RECORD = "piano l2 s3 e9; drum r1 s0 e4"


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=[False, True], ids=["plain", "chat"])
def prompt(request: pytest.FixtureRequest) -> Prompt:
    return Prompt(small_tokenizer(chat=request.param))


def read(prompt: Prompt, ids: list[int]) -> str:
    return str(prompt.tokenizer.decode([i for i in ids if i >= 0]))


# --- prompt ---------------------------------------------------------------------------------


def test_soft_tokens_stand_in_their_places(prompt: Prompt) -> None:
    ids = prompt.clip(4, 2, 3)
    soft = [i for i in ids if i < 0]
    assert soft == [SOUND] * 4 + [PICTURE] * 2 + [CLUE] * 3
    assert ids[ids.index(SOUND) - len(prompt.sound) : ids.index(SOUND)] == prompt.sound
    assert ids[-len(prompt.events) :] == prompt.events
    assert [i for i in prompt.question("who?", 2) if i < 0] == [CLUE] * 2


def test_a_missing_modality_leaves_no_heading(prompt: Prompt) -> None:
    assert "picture" not in read(prompt, prompt.clip(4, 0)).lower()
    assert "sound" not in read(prompt, prompt.clip(0, 4)).lower()


@pytest.mark.parametrize("word", ["</s>", "<s>", "<|user|>", "<|bot|>", "</s></s>", "<0x41>"])
def test_special_words_of_a_user_stay_plain_text(prompt: Prompt, word: str) -> None:
    special = set(prompt.tokenizer.all_special_ids)
    typed = f"is it {word} one?"
    assert special.isdisjoint(prompt.text(typed))
    assert word in prompt.tokenizer.decode(prompt.text(typed))
    one, other = prompt.question(typed, 0), prompt.question("is it one?", 0)
    assert sum(i in special for i in one) == sum(i in special for i in other)
    told, plain = (prompt.history([Turn(question="who?", answer=a)]) for a in (word, "two"))
    assert told.count(prompt.eos[0]) == plain.count(prompt.eos[0])


def test_any_text_comes_back(prompt: Prompt) -> None:
    for text in ("wo ist die geige?", "große 日本 \N{VIOLIN}?", "a\tb", "it's"):
        ids = prompt.text(text)
        assert prompt.tokenizer.unk_token_id not in ids
        assert " ".join(prompt.tokenizer.decode(ids).split()) == " ".join(text.split())


def test_a_chat_template_wraps_every_turn() -> None:
    prompt = Prompt(small_tokenizer(chat=True))
    user, bot = prompt.tokenizer.convert_tokens_to_ids(["<|user|>", "<|bot|>"])
    bos, eos = prompt.tokenizer.bos_token_id, prompt.eos[0]
    history = [Turn(question=q, answer="two") for q in QUESTIONS[:2]]
    ids = prompt.clip(1, 1) + prompt.history(history)
    ids += prompt.question(QUESTIONS[2], 1, again=True) + prompt.answer("", "left")
    marks = [i for i in ids if i in {user, bot, bos, eos}]
    turn = [user, eos, bot, eos]
    assert marks == [bos, *turn, *turn, *turn], "a turn is open, or closed twice"


def test_a_template_that_writes_bos_itself_does_not_double_it() -> None:
    tokenizer = small_tokenizer(chat=True)
    plain = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{{ bos_token }}" + plain
        assert Prompt(tokenizer).opening.count(tokenizer.bos_token_id) == 1
    finally:
        tokenizer.chat_template = plain
    assert Prompt(tokenizer).opening.count(tokenizer.bos_token_id) == 1


def test_training_and_use_build_the_same_prompt(prompt: Prompt) -> None:
    """What stands before an answer in training is what the engine puts there."""
    asked = [Question(question=q, steps="l2 s3", answer="two") for q in QUESTIONS[:2]]
    rng = np.random.default_rng(0)
    (single,), (last,) = question_blocks(prompt, asked[:1], n_clues=3, pair=0.0, drop=0.0, rng=rng)
    assert given(single) == prompt.question(last.question, 3)
    (paired,), (last,) = question_blocks(
        prompt, list(asked), n_clues=3, pair=1.0, drop=0.0, rng=rng
    )
    (first,) = [q for q in asked if q is not last]
    history = prompt.history([Turn(question=first.question, answer=first.answer)])
    assert given(paired) == history + prompt.question(last.question, 3, again=True)
    assert paired.ids[len(given(paired)) :] == prompt.answer("l2 s3", "two")


def given(piece: Piece) -> list[int]:
    return [i for i, learned in zip(piece.ids, piece.learn, strict=True) if not learned]


@pytest.mark.parametrize("steps", ["", "piano e9; drum e4"])
def test_an_answer_may_hold_a_colon_of_its_own(prompt: Prompt, steps: str) -> None:
    said = prompt.answer(steps, "two of them: piano and drum")[: -len(prompt.eos)]
    cut = prompt.steps_in(said)
    assert said[:cut] == prompt.text(steps) + prompt.steps_end
    assert read(prompt, said[cut:]).strip() == "two of them: piano and drum"
    assert prompt.steps_in(prompt.text("piano")) == 0


def test_underscores_of_labels_are_never_shown(prompt: Prompt) -> None:
    assert prompt.answer("", "acoustic_guitar") == prompt.answer("", "acoustic guitar")
    assert prompt.question("the acoustic_guitar?", 0) == prompt.question("the acoustic guitar?", 0)


# --- packing --------------------------------------------------------------------------------


def pieces(prompt: Prompt, *, questions: tuple[str, ...] = QUESTIONS) -> tuple[Piece, list[Piece]]:
    prefix = Piece.of(prompt.clip(0, 0), prompt.record(RECORD))
    blocks = [
        Piece.of(prompt.question(q, 0), prompt.answer("s3", a))
        for q, a in zip(questions, ("two", "yes", "acoustic_guitar"), strict=True)
    ]
    return prefix, blocks


def logits_of(llm: Any, packed: Packed) -> Tensor:
    out: Tensor = llm(
        input_ids=packed.ids_BL,
        attention_mask=packed.mask_B1LL(),
        position_ids=packed.positions_BL,
    ).logits
    return out


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def llm(request: pytest.FixtureRequest) -> Any:
    return small_llm(request.param)


PLAIN = Prompt(small_tokenizer())
PAD = int(PLAIN.tokenizer.pad_token_id)


def test_packed_equals_one_sequence_a_question(llm: Any) -> None:
    prefix, blocks = pieces(PLAIN)
    short = (prefix, blocks[:1])
    packed = pack([(prefix, blocks), short], pad_id=PAD)
    logits = logits_of(llm, packed)
    for k, block in enumerate(blocks, start=1):
        alone = llm(input_ids=torch.tensor([prefix.ids + block.ids])).logits[0]
        here = logits[0][packed.blocks_BL[0] == k]
        torch.testing.assert_close(here, alone[len(prefix.ids) :], atol=1e-4, rtol=1e-4)
    here, there = (logits[n][packed.blocks_BL[n] == 1] for n in (0, 1))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(logits).all()


def test_no_block_sees_another(llm: Any) -> None:
    before = pack([pieces(PLAIN)], pad_id=PAD)
    ids = before.ids_BL.clone()
    middle = before.blocks_BL == 2
    ids[middle] = ids[middle].flip(0)
    one, other = logits_of(llm, before), logits_of(llm, replace(before, ids_BL=ids))
    assert torch.equal(one[~middle], other[~middle])
    assert (one[middle] - other[middle]).abs().max() > 1e-3


def test_every_block_sees_the_clip(llm: Any) -> None:
    before = pack([pieces(PLAIN)], pad_id=PAD)
    ids = before.ids_BL.clone()
    ids[0, 1] = (ids[0, 1] + 1) % 100 + 10
    change = (logits_of(llm, before) - logits_of(llm, replace(before, ids_BL=ids))).abs().amax(-1)
    for block in (1, 2, 3):
        assert float(change[before.blocks_BL == block].max()) > 1e-4


def test_only_records_and_answers_are_learned() -> None:
    prefix, blocks = pieces(PLAIN)
    packed = pack([(prefix, blocks), (Piece.of(prefix.ids, []), blocks[:1])], pad_id=PAD)
    learned = [packed.labels_BL[n][packed.labels_BL[n] != IGNORE].tolist() for n in (0, 1)]
    answers = [PLAIN.answer("s3", a) for a in ("two", "yes", "acoustic guitar")]
    assert learned[0] == PLAIN.record(RECORD) + sum(answers, [])
    assert learned[1] == answers[0], "labels beyond the answer, or in the padding"
    where = packed.labels_BL != IGNORE
    assert torch.equal(packed.labels_BL[where], packed.ids_BL[where])


def test_the_loss_is_the_mean_over_answers_alone(llm: Any) -> None:
    prefix, blocks = pieces(PLAIN)
    packed = pack([(Piece.of(prefix.ids, []), blocks)], pad_id=PAD, length=120)
    losses = []
    for block in blocks:
        ids = torch.tensor([prefix.ids + block.ids])
        likely = llm(input_ids=ids).logits[0].log_softmax(-1)
        at = [len(prefix.ids) + n for n, learned in enumerate(block.learn) if learned]
        losses += [-float(likely[i - 1, ids[0, i]]) for i in at]
    loss = packed_loss(llm.model, llm.lm_head, packed)
    assert float(loss) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_what_is_too_long_raises_and_is_not_cut() -> None:
    prefix, blocks = pieces(PLAIN)
    needed = len(prefix.ids) + sum(len(b.ids) for b in blocks)
    assert pack([(prefix, blocks)], pad_id=PAD, length=needed).ids_BL.shape == (1, needed)
    with pytest.raises(ValueError, match=f"{needed} tokens, more than {needed - 1}"):
        pack([(prefix, blocks)], pad_id=PAD, length=needed - 1)


def test_a_question_without_room_is_left_out_whole() -> None:
    questions = tuple(Question(question=q, steps="", answer="two") for q in QUESTIONS)
    row = ClipRow(video_id="0", record=RECORD, record_without_sound="", record_without_picture="",
                  questions=questions)  # fmt: skip
    prefix, blocks = pieces(PLAIN)
    length = len(prefix.ids) + max(len(b.ids) for b in blocks) + 3
    config = TextConfig(rows="", loop=None, questions=3, pair=0.0, drop=0.0, length=length)  # type: ignore[arg-type]
    packed = text_batch(PLAIN, [row], config, np.random.default_rng(0))
    ids = [i for i in packed.ids_BL[0].tolist() if i != PAD]
    wanted = [
        PLAIN.clip(0, 0) + PLAIN.record(RECORD) + PLAIN.question(q, 0) + PLAIN.answer("", "two")
        for q in QUESTIONS
    ]
    assert ids in wanted


def test_branches_of_a_tree_equal_one_sequence_each() -> None:
    llm = small_llm("llama")
    prefix, first, second = [5, 6, 7], [8, 9], [10, 11, 12]
    leaves = [(1, [13, 14]), (1, [15]), (2, [13, 14]), (0, [16, 17])]
    blocks = [Piece.of(first, []), Piece.of(second, [])]
    blocks += [Piece.of([], ids, parent) for parent, ids in leaves]
    short = (Piece.of([5], []), [Piece.of([], [9])])
    packed = pack([(Piece.of(prefix, []), blocks), short], pad_id=0)
    found = block_logps(llm.model, llm.lm_head, packed)
    assert found.shape == (2, 7) and packed.n_blocks == 7
    for n, (parent, ids) in enumerate(leaves, 3):
        before = prefix + {0: [], 1: first, 2: second}[parent]
        logits = llm(input_ids=torch.tensor([before + ids])).logits[0].log_softmax(-1)
        plain = sum(float(logits[len(before) - 1 + i, token]) for i, token in enumerate(ids))
        assert float(found[0, n]) == pytest.approx(plain, abs=1e-4)
    assert float(found[0, :3].abs().sum()) == 0.0
    alone = llm(input_ids=torch.tensor([[5, 9]])).logits[0, 0].log_softmax(-1)[9]
    assert float(found[1, 1]) == pytest.approx(float(alone), abs=1e-4)


def test_a_block_goes_on_from_an_earlier_one_only() -> None:
    with pytest.raises(ValueError, match="block 1 goes on from 2"):
        pack([(Piece.of([1], []), [Piece.of([2], [], 2), Piece.of([3], [])])], pad_id=0)
    with pytest.raises(ValueError, match="nothing stands before"):
        pack([(Piece.of([], [1]), [])], pad_id=0)
