"""Alignment of sound and picture: InfoNCE, matching with shifts in time, hinge."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from avqa_llm.bridge import Bridge, ClipKeys
from avqa_llm.errors import RecipeError
from avqa_llm.tokenbatch import TokenBatch
from avqa_llm.training.contrast import (
    Contrast,
    ContrastConfig,
    Pairs,
    draw_negatives,
    hinge,
    info_nce,
    pair_up,
)
from tests.model_parts import BRIDGE

TAU = 0.5
ALL = ContrastConfig(nce=1.0, matching=0.5, hinge=0.25, seconds=True, width=8)


def tokens(times: list[list[float]], width: int = 2) -> TokenBatch:
    """One token a time; shorter rows are padded."""
    longest = max(1, max(len(row) for row in times))
    rows = [row + [0.0] * (longest - len(row)) for row in times]
    there = [[n < len(row) for n in range(longest)] for row in times]
    return TokenBatch(
        values_BND=torch.randn(len(times), longest, width),
        times_BN=torch.tensor(rows),
        places_BN2=torch.zeros(len(times), longest, 2),
        there_BN=torch.tensor(there),
    )


def keys_of(sound: Tensor, picture: Tensor, ears: TokenBatch, eyes: TokenBatch) -> ClipKeys:
    none = torch.zeros(len(sound), 0)
    return ClipKeys(
        sound=(sound, ears.there_BN),
        picture=(picture, eyes.there_BN),
        sound_BQE=none[..., None],
        picture_BQE=none[..., None],
        sound_there_BQ=none.bool(),
        picture_there_BQ=none.bool(),
    )


def world(
    *, clips: int = 4, seconds: int = 6, width: int = 2, seed: int = 0
) -> tuple[ClipKeys, TokenBatch, TokenBatch]:
    """Two sound tokens and one picture token a second, with keys at random."""
    torch.manual_seed(seed)
    ears = tokens([[n / 2 for n in range(2 * seconds)]] * clips)
    eyes = tokens([[n + 0.4 for n in range(seconds)]] * clips)
    sound, picture = (torch.randn(clips, one.times_BN.shape[1], width) for one in (ears, eyes))
    return keys_of(sound, picture, ears, eyes), ears, eyes


def plain_heads(contrast: Contrast) -> Contrast:
    for head in (contrast.sound, contrast.picture):
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
    return contrast


def cos(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def nce_by_hand(
    sound: list[tuple[float, ...]], picture: list[tuple[float, ...]], allowed: set[tuple[int, int]]
) -> float:
    total, places = 0.0, range(len(sound))
    for i in places:
        own = math.exp(cos(sound[i], picture[i]) / TAU)
        for way in (
            [cos(sound[i], picture[j]) for j in places if i == j or (i, j) in allowed],
            [cos(sound[j], picture[i]) for j in places if i == j or (j, i) in allowed],
        ):
            total -= math.log(own / sum(math.exp(c / TAU) for c in way)) / 2
    return total / len(sound)


SOUND = [(1.0, 0.0), (0.0, 2.0), (1.0, 1.0)]
PICTURE = [(1.0, 0.5), (0.5, 1.0), (-1.0, 0.0)]
EVERY = {(i, j) for i in range(3) for j in range(3)}


# --- losses by hand -------------------------------------------------------------------------


def test_info_nce_by_hand() -> None:
    sound, picture = torch.tensor(SOUND), torch.tensor(PICTURE)
    expected = nce_by_hand(SOUND, PICTURE, EVERY)
    assert float(info_nce(sound, picture, TAU)) == pytest.approx(expected, rel=1e-5)
    some = EVERY - {(0, 1), (1, 0)}
    allowed = torch.tensor([[(i, j) in some for j in range(3)] for i in range(3)])
    expected = nce_by_hand(SOUND, PICTURE, some)
    assert float(info_nce(sound, picture, TAU, allowed)) == pytest.approx(expected, rel=1e-5)


def test_hinge_by_hand() -> None:
    expected = 0.0
    for i in range(3):
        right = cos(SOUND[i], PICTURE[i])
        for j in range(3):
            if i != j:
                expected += max(0.0, 0.2 - right + cos(SOUND[i], PICTURE[j])) / 6
                expected += max(0.0, 0.2 - right + cos(SOUND[j], PICTURE[i])) / 6
    loss = hinge(torch.tensor(SOUND), torch.tensor(PICTURE), 0.2)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_clips_are_pooled_by_the_second_and_centred() -> None:
    """Two clips of two seconds; a second sound token in the first second of the first clip."""
    ears, eyes = tokens([[0.1, 0.9, 1.5], [0.5, 1.5]]), tokens([[0.5, 1.5], [0.5, 1.5]])
    sound = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [0.0, 4.0]], [[0.0, 1.0], [2.0, 2.0], [9, 9]]])
    picture = torch.tensor([[[1.0, 1.0], [0.0, 3.0]], [[3.0, 0.0], [1.0, 1.0]]])
    keys = keys_of(sound, picture, ears, eyes)
    # Of each second (2, 1), (0, 4) and (0, 1), (2, 2): halves of the differences are left.
    heard = [((2 - 0) / 2, (1 - 1) / 2), ((0 - 2) / 2, (4 - 2) / 2)]
    seen = [((1 - 3) / 2, (1 - 0) / 2), ((0 - 1) / 2, (3 - 1) / 2)]
    pairs = pair_up(keys, ears, eyes)
    assert pairs.sound_MD[:2].tolist() == [list(one) for one in heard]
    assert pairs.picture_MD[2:].tolist() == [[-x, -y] for x, y in seen]
    assert pairs.seconds_M.tolist() == [0, 1, 0, 1]
    ear = ((heard[0][0] + heard[1][0]) / 2, (heard[0][1] + heard[1][1]) / 2)
    eye = ((seen[0][0] + seen[1][0]) / 2, (seen[0][1] + seen[1][1]) / 2)
    mirror = [(-x, -y) for x, y in (ear, eye)]
    config = ContrastConfig(nce=1.0, hinge=1.0, temperature=TAU, width=2)
    losses = plain_heads(Contrast(config, width_in=2))(keys, ears, eyes)
    expected = nce_by_hand([ear, mirror[0]], [eye, mirror[1]], EVERY)
    assert float(losses["nce"].detach()) == pytest.approx(expected, rel=1e-5)


def test_matching_by_hand() -> None:
    """Whatever is drawn: two clips of one second have one negative each."""
    ears, eyes = tokens([[0.5], [0.5]]), tokens([[0.5], [0.5]])
    sound, picture = (
        torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]]),
        torch.tensor([[[0.0, 2.0]], [[0.0, 0.0]]]),
    )
    contrast = plain_heads(Contrast(ContrastConfig(matching=1.0, width=2), width_in=2))
    # The head: the sum of the products, which are cosines times the root of the width.
    contrast.match = nn.Linear(6, 1)
    nn.init.zeros_(contrast.match.bias)
    contrast.match.weight.data = torch.tensor([[0.0, 0, 0, 0, 1, 1]])
    logit = 0.8 * math.sqrt(2)  # (0.6, 0.8) and (0, 1); the other clip is their mirror image
    losses = contrast(keys_of(sound, picture, ears, eyes), ears, eyes)
    expected = math.log(1 + math.exp(-logit))
    assert float(losses["matching"].detach()) == pytest.approx(expected, rel=1e-5)


# --- negatives ------------------------------------------------------------------------------


def test_negatives_are_other_clips_or_far_seconds() -> None:
    keys, ears, eyes = world(clips=3, seconds=6)
    pairs = pair_up(keys, ears, eyes)
    torch.manual_seed(1)
    shifted, other = set(), set()
    for _ in range(200):
        chosen, found = draw_negatives(pairs, 2.0)
        assert found.all()
        for m, n in enumerate(chosen.tolist()):
            if pairs.clips_M[m] == pairs.clips_M[n]:
                shifted.add((m, n))
            else:
                other.add((m, n))
                assert pairs.seconds_M[m] == pairs.seconds_M[n]
    far = {
        (m, n) for m in range(18) for n in range(18) if m // 6 == n // 6 and abs(m % 6 - n % 6) >= 2
    }
    assert shifted == far, "a near second, or one that is never drawn"
    assert len(other) == 18 * 2


def test_what_is_left_when_one_kind_of_negative_is_missing() -> None:
    def drawn(clips: list[int], seconds: list[int]) -> tuple[list[int], list[bool]]:
        nothing = torch.zeros(len(clips), 2)
        pairs = Pairs(
            sound_MD=nothing, picture_MD=nothing,
            clips_M=torch.tensor(clips), seconds_M=torch.tensor(seconds),
        )  # fmt: skip
        chosen, found = draw_negatives(pairs, 2.0)
        return chosen.tolist(), found.tolist()

    for seed in range(10):
        torch.manual_seed(seed)
        assert drawn([0, 1], [0, 5]) == ([1, 0], [True, True])
        assert drawn([0, 0], [0, 2]) == ([1, 0], [True, True])
        assert drawn([0, 0, 0], [0, 1, 2])[1] == [True, False, True]


def test_near_seconds_are_no_negatives_of_each_other() -> None:
    keys, ears, eyes = world(clips=2, seconds=3)
    config = ContrastConfig(nce=1.0, seconds=True, shift_s=2.0, temperature=TAU, width=2)
    loss = plain_heads(Contrast(config, width_in=2))(keys, ears, eyes)["nce"]
    pairs = pair_up(keys, ears, eyes)
    heard, seen = (
        [tuple(row) for row in one.tolist()] for one in (pairs.sound_MD, pairs.picture_MD)
    )
    allowed = {
        (m, n) for m in range(6) for n in range(6) if m // 3 != n // 3 or abs(m % 3 - n % 3) >= 2
    }
    clips = [
        [tuple(sum(row[d] for row in one[c : c + 3]) / 3 for d in (0, 1)) for c in (0, 3)]
        for one in (heard, seen)
    ]
    expected = (nce_by_hand(heard, seen, allowed) + nce_by_hand(*clips, EVERY)) / 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_time_alone_tells_nothing() -> None:
    """Keys that are a function of their time, as every key is in part: no second stands out."""
    keys, ears, eyes = world(clips=3, seconds=5, width=4)
    when = torch.tensor([[0.3, 1.0, 2.0, 3.0]])
    sound, picture = ((one.times_BN.floor()[..., None] * when).sin() for one in (ears, eyes))
    timed = keys_of(sound, picture, ears, eyes)
    pairs = pair_up(timed, ears, eyes)
    assert pairs.sound_MD.abs().max() < 1e-6 and pairs.picture_MD.abs().max() < 1e-6
    both = keys_of(keys.sound[0] + sound, keys.picture[0] + picture, ears, eyes)
    with_time, without = pair_up(both, ears, eyes), pair_up(keys, ears, eyes)
    torch.testing.assert_close(with_time.sound_MD, without.sound_MD, atol=1e-5, rtol=1e-4)


# --- whole ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deaf", "blind"),
    [
        ([1, 1, 1, 1], [0, 0, 0, 0]),
        ([1, 1, 0, 0], [0, 0, 1, 1]),
        ([1, 1, 1, 0], [0, 0, 0, 0]),
    ],
)
def test_missing_modalities_leave_zero(deaf: list[int], blind: list[int]) -> None:
    """No clip with both modalities: 0. A single one has no other clip to stand against."""
    keys, ears, eyes = world()
    ears, eyes = ears.without(torch.tensor(deaf).bool()), eyes.without(torch.tensor(blind).bool())
    sound, picture = (part[0].requires_grad_() for part in (keys.sound, keys.picture))
    contrast = Contrast(ALL, width_in=2)
    losses = contrast(keys_of(sound, picture, ears, eyes), ears, eyes)
    total = contrast.total(losses)
    total.backward()
    assert set(losses) == {"nce", "matching", "hinge"}
    assert float(losses["hinge"].detach()) == 0
    if sum(deaf) + sum(blind) == 4:
        assert float(total.detach()) == 0
    assert all(one.grad is not None and one.grad.isfinite().all() for one in (sound, picture))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in contrast.parameters())


@pytest.mark.parametrize("missing", ["sound", "picture"])
def test_a_clip_without_a_modality_changes_nothing(missing: str) -> None:
    keys, ears, eyes = world(clips=4)
    gone = torch.tensor([False, False, False, True])
    three = keys.rows(torch.arange(3))
    few_ears, few_eyes = (
        TokenBatch(**{name: value[:3] for name, value in vars(one).items()}) for one in (ears, eyes)
    )
    torch.manual_seed(0)
    contrast = Contrast(ALL, width_in=2)
    torch.manual_seed(7)
    deaf, blind = (gone & (missing == name) for name in ("sound", "picture"))
    one = contrast(keys, ears.without(deaf), eyes.without(blind))
    torch.manual_seed(7)
    other = contrast(three, few_ears, few_eyes)
    for name, loss in one.items():
        assert float(loss.detach()) == pytest.approx(float(other[name].detach()), rel=1e-5), name


def test_the_same_seed_gives_the_same_loss() -> None:
    keys, ears, eyes = world()
    contrast = Contrast(ALL, width_in=2)
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append({k: float(v.detach()) for k, v in contrast(keys, ears, eyes).items()})
    assert found[0] == found[1]
    assert found[0]["matching"] != found[2]["matching"]
    assert found[0]["nce"] == found[2]["nce"]
    weights = {"nce": 1.0, "matching": 0.5, "hinge": 0.25}
    expected = sum(weights[name] * loss for name, loss in found[2].items())
    torch.manual_seed(4)
    total = contrast.total(contrast(keys, ears, eyes))
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)


def test_only_wanted_losses_are_computed() -> None:
    keys, ears, eyes = world()
    for name in ("nce", "matching", "hinge"):
        contrast = Contrast(ContrastConfig(**{name: 1.0}), width_in=2)
        assert list(contrast(keys, ears, eyes)) == [name]
    nothing = Contrast(ContrastConfig(), width_in=2)
    assert float(nothing.total(nothing(keys, ears, eyes)).detach()) == 0
    with pytest.raises(RecipeError, match="temperature 0"):
        ContrastConfig(temperature=0)


def test_training_aligns_the_readers() -> None:
    """Clips whose sound and picture show the same changing thing: all three losses fall."""
    torch.manual_seed(0)
    bridge = Bridge(BRIDGE, sound_in=6, picture_in=8, llm_width=32)
    times = [[n + 0.5 for n in range(4)]] * 6
    ears, eyes, thing = tokens(times, 6), tokens(times, 8), torch.randn(6, 4, 5)
    ears.values_BND.mul_(0.1)[..., :5] += thing
    eyes.values_BND.mul_(0.1)[..., 1:6] += thing.flip(-1)
    contrast = Contrast(ALL, width_in=BRIDGE.width)
    optimizer = torch.optim.Adam([*bridge.parameters(), *contrast.parameters()], lr=1e-2)
    history = []
    for _ in range(30):
        keys = keys_of(bridge.read_sound(ears), bridge.read_picture(eyes), ears, eyes)
        losses = contrast(keys, ears, eyes)
        optimizer.zero_grad()
        contrast.total(losses).backward()
        optimizer.step()
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert history[-1]["nce"] < 0.5 * history[0]["nce"]
    assert history[-1]["hinge"] < 0.5 * history[0]["hinge"]
    late = sum(one["matching"] for one in history[-5:]) / 5
    assert late < 0.75 * history[0]["matching"]
