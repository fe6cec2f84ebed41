"""Candidate answers in packed sequences, the debiasing terms on them, and modality balance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from avqa_llm.bridge import Bridge
from avqa_llm.errors import AnnotationError, RecipeError
from avqa_llm.generation import Decoder, Parts, rank, read
from avqa_llm.labels import LABELS
from avqa_llm.prompt import Prompt, spoken
from avqa_llm.training.balance import (
    OGMConfig,
    OPMConfig,
    branches,
    discrepancy,
    modulate,
    ogm_scales,
    opm_drop,
)
from avqa_llm.training.candidates import (
    FAMILIES,
    Candidates,
    Options,
    lay_out,
    only_scored,
    options,
    scored_loss,
    scores,
)
from avqa_llm.training.debias import (
    COCAConfig,
    MAVENConfig,
    MCCDConfig,
    coca,
    maven,
    mccd,
)
from avqa_llm.training.packing import Packed, Piece, block_logps, pack, packed_loss
from tests.model_parts import BRIDGE, QUESTIONS, small_llm, small_tokenizer

PROMPT = Prompt(small_tokenizer())
PAD = int(PROMPT.tokenizer.pad_token_id)
PREFIX = Piece.of(PROMPT.clip(0, 0) + PROMPT.record("piano l2 s3 e9; drum r1 s0 e4"), [])
CHOICES = ("the piano", "the piano and the drum", "a drum")
INF = math.inf


@pytest.fixture(scope="module")
def llm() -> Any:
    return small_llm("llama").requires_grad_(False)


def question(n: int, answer: str, steps: str = "l2 s3", parent: int = 0) -> Piece:
    return Piece.of(PROMPT.question(QUESTIONS[n], 0), PROMPT.answer(steps, answer), parent)


def some(answer: str, choices: tuple[str, ...] = (), kind: str = "all") -> Options:
    found = options(PROMPT, answer, choices, kind=kind)
    assert found
    return found


def packed_scores(
    llm: Any, blocks: list[Piece], offered: list[Options | None]
) -> tuple[Tensor, Tensor, Packed]:
    pieces, placed = lay_out(PROMPT, blocks, offered)
    packed = pack([(PREFIX, pieces)], pad_id=PAD)
    logits, gold = scores(block_logps(llm.model, llm.lm_head, packed), Candidates.of([placed]))
    return logits, gold, packed


def plain_logp(llm: Any, before: list[int], ids: tuple[int, ...]) -> float:
    """By one sequence of its own, without any packing."""
    likely = llm(input_ids=torch.tensor([before + list(ids)])).logits[0].log_softmax(-1)
    return sum(float(likely[len(before) + i - 1, token]) for i, token in enumerate(ids))


# --- candidates -----------------------------------------------------------------------------


def test_scores_equal_one_plain_sequence_a_candidate(llm: Any) -> None:
    offered: list[Options | None] = [some("two"), None, some("a drum", CHOICES)]
    blocks = [question(0, "two"), question(1, "yes"), question(2, "a drum")]
    logits, gold, _ = packed_scores(llm, blocks, offered)
    assert logits.shape == (2, len(LABELS))
    assert gold.tolist() == [LABELS.index("two"), 2]
    for row, n in ((0, 0), (1, 2)):
        before = PREFIX.ids + PROMPT.question(QUESTIONS[n], 0) + PROMPT.steps_end
        own = offered[n]
        assert own
        plain = [plain_logp(llm, before, ids) for ids in own.ids]
        assert logits[row, : len(plain)].tolist() == pytest.approx(plain, abs=1e-4)
        assert (logits[row, len(plain) :] == -INF).all()


def test_scores_rank_as_the_engine_does(llm: Any) -> None:
    decoder = Decoder(llm)
    for own in (some("two"), some("a drum", CHOICES)):
        logits, _, _ = packed_scores(llm, [question(0, own.names[own.gold])], [own])
        before = PREFIX.ids + PROMPT.question(QUESTIONS[0], 0) + PROMPT.steps_end
        with torch.no_grad():
            context, after = read(decoder, [decoder.embed(torch.tensor(before))])
            expected = rank(decoder, Parts.of(context), after, [[list(ids) for ids in own.ids]])[0]
        first = expected.argsort(descending=True)[:3]
        assert logits[0].argsort(descending=True)[:3].tolist() == first.tolist()
        assert logits[0, first].tolist() == pytest.approx(expected[first].tolist(), abs=1e-4)


def test_ids_are_those_that_the_engine_ranks() -> None:
    """Labels without their end, choices with it, for one may be the start of another."""
    labels = [PROMPT.text(spoken(label)) for label in LABELS]
    assert [list(ids) for ids in some("two").ids] == labels
    starts = [(a, b) for a in labels for b in labels if a != b and b[: len(a)] == a]
    assert starts == [], "one label is the start of another: labels need their end too"
    assert [list(ids) for ids in some("a drum", CHOICES).ids] == [
        PROMPT.text(choice) + PROMPT.eos for choice in CHOICES
    ]
    mark = PROMPT.steps_end
    assert (
        PROMPT.answer("", "two") == mark + list(some("two").ids[LABELS.index("two")]) + PROMPT.eos
    )


def test_no_candidate_sees_the_gold_answer(llm: Any) -> None:
    """Another gold text changes not one bit, neither here nor where only the question is asked."""

    def run(answer: str, steps: str) -> tuple[Tensor, Tensor]:
        own = some(answer)
        blocks = [question(0, answer, steps), question(1, answer, steps)]
        fused, _, packed = packed_scores(llm, blocks, [own, own])
        gold_ids = PROMPT.answer(steps, answer)
        assert str(gold_ids)[1:-1] in str(packed.ids_BL[0].tolist()), "the gold answer is learned"
        nothing = PROMPT.clip(0, 0) + PROMPT.record("")
        asked = [PROMPT.question(q, 0) for q in QUESTIONS[:2]]
        prefix, pieces, placed = only_scored(PROMPT, nothing, asked, [own, own])
        blind = pack([(prefix, pieces)], pad_id=PAD)
        logps = block_logps(llm.model, llm.lm_head, blind)
        return fused, scores(logps, Candidates.of([placed]))[0]

    one, other = run("two", "l2 s3"), run("six", "e9 s0")
    assert len(PROMPT.answer("l2 s3", "two")) == len(PROMPT.answer("e9 s0", "six"))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.allclose(one[0], one[1], atol=1e-2), "the clip says nothing: a vacuous test"


def test_what_is_learned_stays_the_same(llm: Any) -> None:
    """Also where a block goes on from a question that was cut in two."""
    blocks = [question(0, "two"), question(1, "yes", parent=1), question(2, "a drum")]
    whole = pack([(PREFIX, blocks)], pad_id=PAD)
    pieces, placed = lay_out(PROMPT, blocks, [some("two"), some("yes"), None])
    packed = pack([(PREFIX, pieces)], pad_id=PAD)
    table = Candidates.of([placed])
    loss, logits, _ = scored_loss(llm.model, llm.lm_head, packed, table)
    expected = packed_loss(llm.model, llm.lm_head, whole)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert torch.equal(logits, scores(block_logps(llm.model, llm.lm_head, packed), table)[0])
    assert table.questions_N.tolist() == [0, 1]
    before = PREFIX.ids + blocks[0].ids + PROMPT.question(QUESTIONS[1], 0) + PROMPT.steps_end
    yes = LABELS.index("yes")
    plain = plain_logp(llm, before, some("yes").ids[yes])
    assert float(logits[1, yes]) == pytest.approx(plain, abs=1e-4)


def test_blocks_before_the_questions_are_counted() -> None:
    first = Piece.of([5, 6], [])
    pieces, placed = lay_out(
        PROMPT, [question(0, "yes", parent=1)], [some("yes", kind="family")], n_before=1
    )
    assert pieces[0].parent == 1 and pieces[1].parent == 2 and pieces[2].parent == 2
    assert {piece.parent for piece in pieces[3:]} == {4}
    assert placed[0].blocks == (5, 6)
    packed = pack([(PREFIX, [first, *pieces])], pad_id=PAD)
    assert packed.n_blocks == 1 + 1 + len(pieces)
    extra = sum(len(piece.ids) for piece in pieces) - len(question(0, "yes").ids)
    assert some("yes", kind="family").n_tokens(PROMPT) == extra


def test_families_share_out_all_labels() -> None:
    assert sorted(sum(FAMILIES, ())) == sorted(LABELS)
    assert some("no", kind="family").names == ("yes", "no")
    assert some("acoustic guitar").gold == LABELS.index("acoustic_guitar")
    assert len(some("left", kind="family").names) == 4


def test_open_questions_have_no_candidates_and_wrong_rows_are_refused() -> None:
    assert options(PROMPT, "because the drum is louder") is None
    with pytest.raises(AnnotationError, match="'a flute' is not among the choices 'the piano'"):
        options(PROMPT, "a flute", CHOICES)
    with pytest.raises(RecipeError, match="'some' is none of all, family"):
        options(PROMPT, "two", kind="some")
    pieces, placed = lay_out(PROMPT, [question(0, "two")], [None])
    assert pieces == [question(0, "two")] and placed == []
    logits, gold = scores(torch.zeros(1, 2), Candidates.of([placed]))
    assert logits.shape == (0, 1) and gold.shape == (0,)


# --- MCCD, MAVEN, COCA ----------------------------------------------------------------------


def probs(*rows: tuple[float, ...]) -> Tensor:
    """Logits with these probabilities; a constant on top must not matter; 0 is no candidate."""
    return torch.tensor([[math.log(p) - 7 if p else -INF for p in row] for row in rows])


def kl(p: tuple[float, ...], q: tuple[float, ...]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)


def gap(p: tuple[float, ...], q: tuple[float, ...]) -> float:
    squares = ((math.log(a) - math.log(b)) ** 2 for a, b in zip(p, q, strict=True) if a)
    return math.sqrt(sum(squares))


F, Q, A, V = (0.7, 0.2, 0.1), (0.2, 0.5, 0.3), (0.4, 0.4, 0.2), (0.3, 0.3, 0.4)
F2, Q2, A2, V2 = (0.6, 0.4, 0.0), (0.5, 0.5, 0.0), (0.9, 0.1, 0.0), (0.2, 0.8, 0.0)


def four() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return probs(F, F2), probs(Q, Q2), probs(A, A2), probs(V, V2)


def test_mccd_by_hand() -> None:
    config = MCCDConfig(distance=0.01, cycle=1 / 9, floor=0.1)
    expected = 0.0
    for f, q, a, v in ((F, Q, A, V), (F2, Q2, A2, V2)):
        inverse = sum(1 / math.sqrt(gap(f, m) ** 2 + 0.01) for m in (q, a, v)) / 3
        expected += (0.01 * inverse + (kl(q, a) + kl(v, q) + kl(a, v)) / 9) / 2
    assert float(mccd(*four(), config)) == pytest.approx(expected, rel=1e-5)


def test_maven_by_hand() -> None:
    expected = 0.0
    for f, q, a, v in ((F, Q, A, V), (F2, Q2, A2, V2)):
        inverse = sum(1 / (kl(f, m) + 0.1) for m in (q, a, v))
        expected += (0.001 * inverse + (kl(q, a) + kl(v, q) + kl(a, v)) / 9) / 2
    assert float(maven(*four(), MAVENConfig())) == pytest.approx(expected, rel=1e-5)


def sureness(p: tuple[float, ...]) -> float:
    known = [x for x in p if x]
    return 1 + sum(x * math.log(x) for x in known) / math.log(len(known))


def test_coca_by_hand() -> None:
    expected = 0.0
    for f, shortcuts, gold in ((F, (Q, A, V), 0), (F2, (Q2, A2, V2), 1)):
        sure = [sureness(s) for s in shortcuts]
        weights = [2.0 * u * u / sum(sure) for u in sure]
        joined = [
            p * math.prod(s[k] ** w for s, w in zip(shortcuts, weights, strict=True))
            for k, p in enumerate(f)
        ]
        expected -= 0.5 * math.log(joined[gold] / sum(joined)) / 2
    loss = coca(*four(), torch.tensor([0, 1]), COCAConfig(weight=0.5, strength=2.0))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "mccd": lambda *four: mccd(*four, MCCDConfig()),
    "maven": lambda *four: maven(*four, MAVENConfig()),
    "coca": lambda *four: coca(*four, torch.zeros(len(four[0]), dtype=torch.long), COCAConfig()),
}


def gradients(name: str, *logits: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [one.clone().requires_grad_() for one in logits]
    loss = LOSSES[name](*leaves)
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return loss, [
        torch.zeros_like(a) if g is None else g for a, g in zip(leaves, found, strict=True)
    ]


@pytest.mark.parametrize("name", LOSSES)
def test_terms_stay_finite(name: str) -> None:
    """Where branches coincide, with padding, far apart, for one candidate and for none."""
    torch.manual_seed(0)
    padded = torch.randn(5, 6).mul(3)
    padded[1:, 4:] = padded[3, 1:] = -INF
    cases = [
        [padded] * 4,
        [padded, padded + 1e-6, padded - 1e-6, padded],
        [padded, padded * 100, padded * -100, torch.where(padded.isfinite(), 0.0, padded)],
        [torch.zeros(0, 1)] * 4,
    ]
    for case in cases:
        loss, found = gradients(name, *case)
        assert loss.isfinite() and loss.abs() < 1000
        for logits, grad in zip(case, found, strict=True):
            assert grad.isfinite().all() and grad.abs().max() < 20 if grad.numel() else True
            assert (grad[~logits.isfinite()] == 0).all()


def test_candidates_that_are_not_there_change_nothing() -> None:
    logits = four()
    wider = [torch.cat([one, torch.full((2, 3), -INF)], dim=1) for one in logits]
    for name, loss in LOSSES.items():
        assert float(loss(*wider)) == pytest.approx(float(loss(*logits)), rel=1e-6), name


def test_the_fused_answer_moves_away_and_the_branches_together() -> None:
    for name in ("mccd", "maven"):
        logits = [one.double() for one in four()]
        _, (fused, *branches_) = gradients(name, *logits)
        moved = [logits[0] - fused, *logits[1:]]
        assert gap(tuple(moved[0][0].softmax(-1).tolist()), Q) > gap(F, Q), name
        steps = [a - 0.1 * g for a, g in zip(logits[1:], branches_, strict=True)]
        q, a, v = (tuple(one[0].softmax(-1).tolist()) for one in steps)
        assert kl(q, a) + kl(v, q) + kl(a, v) < kl(Q, A) + kl(V, Q) + kl(A, V), name


def test_detached_branches_get_the_cycle_only() -> None:
    for loss, kinds in ((mccd, MCCDConfig), (maven, MAVENConfig)):
        leaves = [one.requires_grad_() for one in four()]
        value = loss(*leaves, kinds(cycle=0.0, detach=True))
        fused, *rest = torch.autograd.grad(value, leaves)
        assert fused.abs().max() > 0 and all((grad == 0).all() for grad in rest)
        value = loss(*leaves, kinds(cycle=0.0))
        assert all(grad.abs().max() > 0 for grad in torch.autograd.grad(value, leaves))


def test_coca_counts_what_a_shortcut_answers_less() -> None:
    """Same fused answer, the shortcut is sure and right, sure and wrong, or knows nothing."""
    gold, even = torch.tensor([0]), probs((1 / 3, 1 / 3, 1 / 3))
    size = {}
    for name, shortcut in (
        ("right", (0.98, 0.01, 0.01)), ("wrong", (0.01, 0.98, 0.01)), ("none", (1 / 3,) * 3),
    ):  # fmt: skip
        fused, bias = probs(F).requires_grad_(), probs(shortcut).requires_grad_()
        loss = coca(fused, bias, even, even, gold, COCAConfig())
        grad, through = torch.autograd.grad(loss, (fused, bias), allow_unused=True)
        assert grad[0, 0] < 0, "the gold answer is to become more likely"
        assert through is None, "the loss must not be lowered by a better shortcut"
        size[name] = float(-grad[0, 0])
    plain = 1 - F[0]
    assert size["none"] == pytest.approx(plain, rel=1e-4)
    assert size["right"] < 0.2 * plain
    assert size["wrong"] > 2 * plain


# --- balance --------------------------------------------------------------------------------


def test_discrepancy_by_hand() -> None:
    sound, picture = probs((0.8, 0.2), (0.5, 0.5)), probs((0.2, 0.8), (0.6, 0.4))
    rho_N, rho = discrepancy(sound, picture, torch.tensor([0, 1]))
    assert rho_N.tolist() == pytest.approx([0.8 / 0.2, 0.5 / 0.4])
    assert float(rho) == pytest.approx((0.8 + 0.5) / (0.2 + 0.4))
    hopeless = torch.tensor([[-1e4, 0.0]])
    rho_N, _ = discrepancy(probs((0.5, 0.5)), hopeless, torch.tensor([0]))
    assert rho_N.tolist() == [100.0]
    _, rho = discrepancy(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    assert float(rho) == 1.0


def test_ogm_slows_the_stronger_branch_down() -> None:
    config = OGMConfig(alpha=0.5)
    assert ogm_scales(2.0, config) == pytest.approx((1 - math.tanh(1.0), 1.0))
    assert ogm_scales(0.25, config) == pytest.approx((1.0, 1 - math.tanh(2.0)))
    assert ogm_scales(torch.tensor(1.0), config) == (1.0, 1.0)


def test_modulate_scales_and_adds_noise_of_the_gradients_size() -> None:
    ears, eyes, idle = (torch.nn.Parameter(torch.zeros(4000)) for _ in range(3))
    ears.grad, eyes.grad = torch.arange(4000.0) / 1000, torch.ones(4000)
    parts = {"sound": [ears, idle], "picture": [eyes]}
    modulate(parts, {"sound": 0.25, "picture": 1.0})
    assert torch.allclose(ears.grad, torch.arange(4000.0) / 4000)
    assert (eyes.grad == 1).all() and idle.grad is None
    results = []
    for _ in range(2):
        ears.grad, eyes.grad = torch.arange(4000.0) / 1000, torch.ones(4000)
        generator = torch.Generator().manual_seed(5)
        modulate(parts, {"sound": 0.25, "picture": 1.0}, noise=0.5, generator=generator)
        results.append(ears.grad.clone())
    noise = results[0] - torch.arange(4000.0) / 4000
    spread = 4 / math.sqrt(12)  # of numbers spread evenly over 0..4
    assert float(noise.std()) == pytest.approx(0.5 * spread, rel=0.05)
    assert abs(float(noise.mean())) < 0.05
    assert torch.equal(*results), "the same seed gives the same noise"
    assert (eyes.grad == 1).all(), "equal entries have no deviation"


def test_branches_of_the_bridge_are_apart() -> None:
    bridge = Bridge(BRIDGE, sound_in=6, picture_in=8, llm_width=32)
    names = {id(parameter): name for name, parameter in bridge.named_parameters()}
    found = {
        modality: {names[id(parameter)] for parameter in own}
        for modality, own in branches(bridge).items()
    }
    assert found["sound"] and found["picture"] and not found["sound"] & found["picture"]
    assert {"read_sound.project.weight", "out.sound_clues.bias"} <= found["sound"]
    assert any(".to_picture." in name for name in found["picture"])
    assert not any(name.startswith("aggregator.words") for own in found.values() for name in own)
    shared = torch.nn.ModuleDict(
        {name: torch.nn.Linear(2, 2) for name in ("sound", "picture", "sound_to_picture")}
    )
    assert [len(own) for own in branches(shared).values()] == [2, 2], "what both share is neither's"
    with pytest.raises(RecipeError, match="Linear has no parameters with 'sound'"):
        branches(torch.nn.Linear(2, 2))


def test_opm_drops_the_stronger_modality() -> None:
    rho_N = torch.tensor([3.0, 0.5, 1.0]).repeat(20000)
    config = OPMConfig(base=0.4, strength=0.5)
    deaf, blind = opm_drop(rho_N, config, torch.Generator().manual_seed(1))
    shares = [[float(one[n::3].float().mean()) for n in range(3)] for one in (deaf, blind)]
    sound = 0.4 * (1 + 0.5 * math.tanh(2.0))
    picture = 0.4 * (1 + 0.5 * math.tanh(1.0))
    assert shares[0] == pytest.approx([sound, 0, 0], abs=0.01)
    assert shares[1] == pytest.approx([0, picture, 0], abs=0.01)
    again = opm_drop(rho_N, config, torch.Generator().manual_seed(1))
    assert torch.equal(again[0], deaf) and torch.equal(again[1], blind)


def test_values_of_the_balance_that_cannot_be_are_refused() -> None:
    for wrong in (lambda: OPMConfig(base=0.9), lambda: OGMConfig(alpha=-1.0)):
        with pytest.raises(RecipeError):
            wrong()
