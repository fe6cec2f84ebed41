"""A language model behind a server gives `LocalEngine`'s answers; the server is played here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avqa_llm.answer import Answer
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import AVQAError
from avqa_llm.generation import Decoder, Parts, rank, read
from avqa_llm.model import AVQAModel
from avqa_llm.presets import PRESETS
from avqa_llm.prompt import Turn
from avqa_llm.remote import VLLMEngine
from avqa_llm.serving.contract import Delta, Done
from avqa_llm.serving.label_tree import LabelTree
from avqa_llm.serving.vllm_client import Completion, VLLMClient, Wish
from avqa_llm.session import Session
from tests.model_parts import QUESTIONS, small_clip, small_llm, small_model, write_parts

SAMPLES = Path(__file__).resolve().parents[1] / "app" / "samples"
ASKED = (
    "How many instruments are sounding?",
    "Is the violin louder than the flute?",
    "Which is the instrument on the left?",
)
CHOICES = ("piano", "piano and flute", "no")


class Played(VLLMClient):
    """A server whose model is in this process: one request after the other, no cache."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__("http://127.0.0.1:1")
        self.decoder = decoder
        self.asked: list[Wish] = []

    def complete_all(self, wishes: Sequence[Wish]) -> list[Completion]:
        return [self.complete(wish) for wish in wishes]

    def complete(self, wish: Wish) -> Completion:
        pieces = list(self.stream(wish))
        return Completion(
            ids=tuple(token for piece in pieces for token in piece.ids),
            chances=tuple(chance for piece in pieces for chance in piece.chances),
            tops=tuple(top for piece in pieces for top in piece.tops),
            finish=pieces[-1].finish,
        )

    @torch.no_grad()
    def stream(self, wish: Wish) -> Iterator[Completion]:
        self.asked.append(wish)
        context, logits = read(self.decoder, [wish.embeds_LE])
        for n in range(wish.most):
            likely = logits[0].log_softmax(-1)
            token = int(likely.argmax())
            wanted = wish.wanted or tuple(likely.topk(wish.top).indices.tolist())
            ends = token in wish.stops
            yield Completion(
                ids=(token,),
                chances=(float(likely[token]),),
                tops=({i: float(likely[i]) for i in (*wanted, token)},),
                finish="stop" if ends else "length" if n + 1 == wish.most else "",
            )
            if ends:
                return
            _, logits = read(self.decoder, [self.decoder.embed(torch.tensor([token]))], context)


def remote(engine: LocalEngine, model: AVQAModel | None = None) -> tuple[VLLMEngine, Played]:
    client = Played(engine.decoder)
    return VLLMEngine(model or engine.model, client, name="av"), client


def same(one: Answer, other: Answer, *, signs: float = 2e-2) -> None:
    """Batches round another way, nothing else may differ. `signs`: how far, in nats."""
    blank = {"probability": 0.0, "alternatives": (), "evidence": (), "timing_s": {}}
    assert replace(one, **blank) == replace(other, **blank)
    assert one.probability == pytest.approx(other.probability, abs=1e-3)
    for mine, theirs in zip(one.alternatives, other.alternatives, strict=True):
        assert mine.probability == pytest.approx(theirs.probability, abs=1e-3)
        if mine.probability > 2e-3:
            assert mine.label == theirs.label
    for name, sign in one.signs.items():
        assert sign == pytest.approx(other.signs[name], abs=signs), name
    for mine_, theirs_ in zip(one.evidence, other.evidence, strict=True):
        assert replace(mine_, weight=0.0) == replace(theirs_, weight=0.0)


@pytest.fixture(params=["llama-vit-vit", "qwen2-siglip-ast"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LocalEngine:
    for name in ("RECORD_LIMIT", "STEPS_LIMIT", "OPEN_LIMIT"):  # a random model never ends
        monkeypatch.setattr(f"avqa_llm.engine.{name}", 5)
    return LocalEngine(small_model(request.param))


@pytest.fixture(scope="module")
def tiny() -> LocalEngine:
    return LocalEngine.load("tiny")


def test_random_models_give_the_same_answers(small: LocalEngine) -> None:
    there, _ = remote(small)
    clips = [small_clip(0), small_clip(1, 5).muted(), small_clip(2).blanked()]
    rows = [(clip, question) for clip in (2, 0, 1) for question in QUESTIONS]
    choices = [CHOICES if n % 2 else () for n in range(len(rows))]
    for how in ({}, {"choices": choices, "evidence": True}, {"open_ended": True}):
        expected = small.answer_many(clips, rows, **how)
        for mine, theirs in zip(there.answer_many(clips, rows, **how), expected, strict=True):
            same(mine, theirs)


def test_the_embedded_model_gives_the_same_answers_in_few_requests(tiny: LocalEngine) -> None:
    there, client = remote(tiny, AVQAModel.without_llm(PRESETS["tiny"]))
    clip = tiny.read(SAMPLES / "duo.mp4")
    here_, there_ = Session(tiny, clip), Session(there, clip)
    client.asked.clear()
    for question in ASKED:  # each with what was said before
        same(there_.ask(question), here_.ask(question))
    assert len(client.asked) <= 3 * len(ASKED)
    mine, theirs = (s.ask(ASKED[0], open_ended=True) for s in (there_, here_))
    assert mine.answer == theirs.answer


def test_steps_that_are_put_right_lead_to_the_same_answers(
    tiny: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, _ = remote(tiny)
    clip = tiny.read(SAMPLES / "duo.mp4")
    plain = tiny.answer(clip, ASKED)
    wrong = {n: answer.steps for n, answer in enumerate(plain) if " left" in answer.steps}
    assert wrong
    monkeypatch.setattr("avqa_llm.engine.quoted", lambda steps, _: steps.replace("left", "off"))
    expected = tiny.answer(clip, ASKED)
    for mine, theirs in zip(there.answer(clip, ASKED), expected, strict=True):
        same(mine, theirs)
    for n, steps in wrong.items():
        assert expected[n].steps == steps.replace("left", "off")


def test_a_prompt_that_does_not_fit_is_refused_and_one_that_does_is_cut(tiny: LocalEngine) -> None:
    there, client = remote(tiny)
    clip = there.read(SAMPLES / "duo.mp4")
    (expected,) = there.answer(clip, ASKED[:1])
    reading = there.digest([there.encode(clip)])
    longest = max(len(wish.embeds_LE) for wish in client.asked)
    client.longest = longest + 30
    client.asked.clear()
    assert there.ask(reading, [(0, ASKED[0])])[0].label == expected.label
    assert max(len(w.embeds_LE) + w.most for w in client.asked) <= client.longest
    client.longest = len(reading.context[0])
    with pytest.raises(AVQAError, match=f"takes {client.longest - 1}: begin a new"):
        there.ask(reading, [(0, ASKED[0])])


def test_words_without_the_language_model_are_the_same(tmp_path: Path) -> None:
    for family in ("llama-vit-vit", "qwen2-siglip-ast"):
        folder = tmp_path / family
        folder.mkdir()
        model = AVQAModel.fresh(write_parts(folder, family), folder)
        model.save_pretrained(folder)
        there = AVQAModel.without_llm(folder)
        ids = torch.arange(20)[None]
        words = [m.llm.get_input_embeddings()(ids) for m in (model, there)]
        assert torch.equal(*words)
        sizes = [sum(p.numel() for p in m.inner.parameters()) for m in (model, there)]
        assert sizes[1] < sizes[0]
        sharing = AVQAModel.without_llm(folder, words=(there.llm, there.prompt.tokenizer))
        assert sharing.llm is there.llm


def test_an_open_answer_comes_in_pieces_that_make_up_the_answer(tiny: LocalEngine) -> None:
    there, _ = remote(tiny)
    reading = there.digest([there.encode(there.read(SAMPLES / "duo.mp4"))])
    turns = [Turn(question=ASKED[1], answer="yes")]
    expected = tiny.ask(
        tiny.digest([tiny.encode(tiny.read(SAMPLES / "duo.mp4"))]),
        [(0, ASKED[0])],
        history=turns,
        open_ended=True,
        evidence=True,
    )[0]
    *deltas, done = there.stream(reading, ASKED[0], history=turns, logprobs=2)
    assert isinstance(done, Done)
    assert "".join(delta.text for delta in deltas) == expected.answer == done.answer.answer
    same(done.answer, expected, signs=0.1)  # log-odds of 11 are what float32 leaves of 1 - 1e-5
    tokens = [token for delta in deltas for token in delta.tokens]
    assert len(tokens) < done.completion_tokens, "steps are not part of the answer"
    assert all(token.top and token.logprob <= 0 for token in tokens)

    async def gather() -> list[Delta | Done]:
        return [event async for event in there.astream(reading, ASKED[0], history=turns)]

    assert [type(event) for event in asyncio.run(gather())] == [*map(type, deltas), Done]


# -- the tree of answers --------------------------------------------------------------------------


def told(decoder: Decoder, piece: torch.Tensor, path: tuple[int, ...]) -> torch.Tensor:
    whole = torch.cat([piece, decoder.embed(torch.tensor(path, dtype=torch.long))])
    return read(decoder, [whole])[1][0].log_softmax(-1)


@pytest.mark.parametrize("seed", range(4))
def test_the_tree_scores_as_reading_everything_does(seed: int) -> None:
    decoder = Decoder(small_llm("llama", seed=seed))
    torch.manual_seed(seed)
    with torch.no_grad():
        piece = torch.randn(6, 32) * 0.2
        starts = torch.randint(5, 40, (9,)).tolist()
        answers = [[a] for a in starts[:3]] + [[a, 7, b] for a in starts[3:] for b in (8, 9)]
        context, logits = read(decoder, [piece])
        exact = rank(decoder, Parts.of(context), logits, [answers])[0].tolist()
        tree, asked = LabelTree(answers, keep=4), 0
        while nodes := tree.missing():
            for path in nodes:
                asked += 1
                likely = told(decoder, piece, path)
                tree.learn(path, {i: float(likely[i]) for i in tree.follow(path)})
    assert tree.scores() == pytest.approx(exact, abs=1e-3)
    assert asked <= 1 + 2 * len(set(starts[3:])), "what answers share is asked for once"


def test_hopeless_and_faint_answers_are_not_asked_for() -> None:
    tree = LabelTree([[1], [2, 3], [4, 5], [4, 6]], keep=1)
    assert tree.missing() == [()]
    tree.learn((), {1: -0.1, 2: -9.2, 4: -3.0})
    assert tree.missing() == [(4,)], "2 is more than e^9 times less likely than 1"
    tree.learn_along([4], [{1: -0.1, 2: -9.2, 4: -3.0}, {5: -0.2, 6: -1.0}])
    assert tree.missing() == []
    assert tree.scores() == pytest.approx([-0.1, -9.2, -3.2, -4.0])
    sure = LabelTree([[1, 9], [2, 9], [3, 9]], keep=1)
    sure.learn((), {1: -0.0, 2: -20.0, 3: -30.0})
    assert sure.missing() == [(1,), (2,)], "none has an end yet, and 3 changes no figure"


def test_what_was_said_by_itself_counts_only_as_far_as_it_is_an_answer() -> None:
    tree = LabelTree([[1, 2], [1, 3], [4]], keep=3)
    tops = [{1: -0.1, 4: -2.0}, {2: -0.3, 3: -1.4, 7: -9.0}, {8: -0.1}]
    tree.learn_along([1, 2, 8], tops)
    assert tree.missing() == []
    other = LabelTree([[1, 2], [1, 3], [4]], keep=3)
    other.learn_along([7, 2, 8], tops)
    assert other.missing() == [(1,)], "7 leads nowhere; what came after it says nothing"
