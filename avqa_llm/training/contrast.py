"""Alignment of sound and picture: which belong to the same clip, and to the same second.

Works on the keys of the bridge's readers, pooled by the second. A key also tells its time, and
that alone would say which second of the sound belongs to which of the picture. So from each
second's vector the mean of all clips at that second is taken away first: what depends on time only
is gone (exactly where it was added, as it is at the readers' entrance; all but a rest after their
blocks), and so is what would tell clips by their length.

A clip or a second without one of the modalities has no part in anything here. The encoders are
frozen and their features cached, so large batches, and with them many negatives, are cheap.

Legend: B clips, T seconds, N tokens, D bridge width, M pairs of sound and picture, E width of the
heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avqa_llm.bridge import ClipKeys
from avqa_llm.errors import RecipeError
from avqa_llm.tokenbatch import TokenBatch


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Weights of the losses, and what they need. A weight of 0: that loss is not computed."""

    nce: float = 0.0
    matching: float = 0.0
    """Li et al. (CVPR 2022) give it 0.5."""
    hinge: float = 0.0
    temperature: float = 0.07
    seconds: bool = False
    """InfoNCE also between seconds, with other seconds of the same clip as negatives."""
    shift_s: float = 2.0
    """Least distance of two seconds of a clip for one to be a negative of the other."""
    margin: float = 0.2
    """Of the hinge, in units of cosine."""
    width: int = 128
    """Of the heads."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.shift_s <= 0 or self.width < 1:
            raise RecipeError(
                f"contrast: temperature {self.temperature}, shift_s {self.shift_s} and width"
                f" {self.width} must be positive"
            )


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Seconds in which there is both sound and picture, of all clips one after another."""

    sound_MD: Tensor
    picture_MD: Tensor
    clips_M: Tensor
    seconds_M: Tensor


class Contrast(nn.Module):
    """Heads and losses; needed in training only."""

    def __init__(self, config: ContrastConfig, *, width_in: int) -> None:
        """`width_in`: width of the bridge's keys."""
        super().__init__()
        self.config = config
        self.sound = nn.Linear(width_in, config.width)
        self.picture = nn.Linear(width_in, config.width)
        if config.matching:
            self.match = nn.Sequential(
                nn.Linear(3 * config.width, config.width), nn.GELU(), nn.Linear(config.width, 1)
            )

    def forward(self, keys: ClipKeys, sound: TokenBatch, picture: TokenBatch) -> dict[str, Tensor]:
        """The losses whose weight is not 0, unweighted: `nce`, `matching`, `hinge`.

        Draws negatives for the matching from torch's own generator. A loss for which nothing
        is left (a single clip, no clip with both modalities) is 0, with gradients of 0.

        Args:
            keys: what the bridge gave for
            sound: these tokens; only their times are used, and
            picture: these.
        """
        pairs = pair_up(keys, sound, picture)
        heard, seen = self.sound(pairs.sound_MD).float(), self.picture(pairs.picture_MD).float()
        ears_BE, eyes_BE = _clips(heard, pairs.clips_M), _clips(seen, pairs.clips_M)
        losses, config = {}, self.config
        if config.nce:
            losses["nce"] = info_nce(ears_BE, eyes_BE, config.temperature)
            if config.seconds:
                fine = info_nce(heard, seen, config.temperature, _apart(pairs, config.shift_s))
                losses["nce"] = (losses["nce"] + fine) / 2
        if config.matching:
            losses["matching"] = self._matching(heard, seen, pairs)
        if config.hinge:
            losses["hinge"] = hinge(ears_BE, eyes_BE, config.margin)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """What `forward` gave, weighted and summed."""
        total = self.sound.weight.sum() * 0.0
        for name, loss in losses.items():
            total = total + getattr(self.config, name) * loss
        return total

    def _matching(self, heard_ME: Tensor, seen_ME: Tensor, pairs: Pairs) -> Tensor:
        """Do this sound and this picture belong together? (AVST, Li et al., CVPR 2022, section 4.)

        Binary cross-entropy, as many negatives as positives. There a negative is a frame of
        another clip; here, by the toss of a coin, that or another second of the same clip, so
        that being in time counts and not the clip alone.
        """
        chosen_M, found_M = draw_negatives(pairs, self.config.shift_s)
        here_M = found_M.nonzero()[:, 0]
        logits = torch.stack(
            [
                self._together(heard_ME[here_M], seen_ME[here_M]),
                self._together(heard_ME[here_M], seen_ME[chosen_M[here_M]]),
            ]
        )
        truth = torch.zeros_like(logits)
        truth[0] = 1
        losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
        return losses / max(logits.numel(), 1)

    def _together(self, heard_ME: Tensor, seen_ME: Tensor) -> Tensor:
        heard, seen = functional.normalize(heard_ME, dim=-1), functional.normalize(seen_ME, dim=-1)
        # The product lets a small head compare; scaled to the size of the other two.
        both = heard * seen * heard.shape[-1] ** 0.5
        return self.match(torch.cat([heard, seen, both], dim=-1))[:, 0]


def info_nce(
    sound_NE: Tensor, picture_NE: Tensor, temperature: float, allowed_NN: Tensor | None = None
) -> Tensor:
    """Contrast of pairs, mean of both directions (van den Oord et al. 2018, equation 4).

        −log exp(cos(a_i, v_i) / τ) / Σ_j exp(cos(a_i, v_j) / τ), and the same with i and j swapped

    Args:
        sound_NE: sound of each pair, of any length, N pairs.
        picture_NE: picture of each pair.
        temperature: τ.
        allowed_NN: symmetric; whether picture j may stand against sound i. The pair itself
            always may. None: all.

    Returns:
        A scalar; 0 of fewer than two pairs.
    """
    cosines = functional.normalize(sound_NE, dim=-1) @ functional.normalize(picture_NE, dim=-1).T
    logits = cosines / temperature
    if allowed_NN is not None:
        self_NN = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(~(allowed_NN | self_NN), -torch.inf)
    right = torch.arange(len(logits), device=logits.device)
    ways = [functional.cross_entropy(way, right, reduction="sum") for way in (logits, logits.T)]
    return (ways[0] + ways[1]) / (2 * max(len(logits), 1))


def hinge(sound_NE: Tensor, picture_NE: Tensor, margin: float) -> Tensor:
    """A pair is to be closer than each mixed one by a margin, in both directions.

        max(0, α − cos(a_i, v_i) + cos(a_i, v_j)) + max(0, α − cos(a_i, v_i) + cos(a_j, v_i))

    averaged over i and all j other than i (Kiros et al. 2014, section 2.2, with means for sums).

    Returns:
        A scalar; 0 of fewer than two pairs.
    """
    cosines = functional.normalize(sound_NE, dim=-1) @ functional.normalize(picture_NE, dim=-1).T
    right = cosines.diagonal()
    missed = (margin - right[:, None] + cosines).relu() + (margin - right[None] + cosines).relu()
    others = ~torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    return (missed * others).sum() / max(int(others.sum()), 1)


def pair_up(keys: ClipKeys, sound: TokenBatch, picture: TokenBatch) -> Pairs:
    """Pool keys by the second, take away what time alone tells, keep what has both modalities."""
    both = ((keys.sound, sound), (keys.picture, picture))
    longest = max(_seconds(tokens) for _, tokens in both)
    heard, seen = (_pooled(part[0], tokens, longest) for part, tokens in both)
    has_both = heard[1] & seen[1]
    clips_M, seconds_M = has_both.nonzero(as_tuple=True)
    return Pairs(
        sound_MD=_centred(heard[0], has_both)[clips_M, seconds_M],
        picture_MD=_centred(seen[0], has_both)[clips_M, seconds_M],
        clips_M=clips_M,
        seconds_M=seconds_M,
    )


def draw_negatives(pairs: Pairs, shift_s: float) -> tuple[Tensor, Tensor]:
    """For each second one whose picture does not belong to it (M,), and whether there is one (M,).

    By the toss of a coin of another clip (at the same second, if that clip has it) or of the
    same clip at least `shift_s` away; of the other kind where there is none of the first.
    """
    same_MM, apart_MM = _same(pairs), _apart(pairs, shift_s)
    other_MM = apart_MM & ~same_MM
    at_once_MM = other_MM & (pairs.seconds_M[:, None] == pairs.seconds_M[None])
    other_MM = torch.where(at_once_MM.any(1, keepdim=True), at_once_MM, other_MM)
    shifted_MM = apart_MM & same_MM
    coin_M = torch.rand(len(same_MM)).to(same_MM.device) < 0.5
    shift_M = (coin_M | ~other_MM.any(1)) & shifted_MM.any(1)
    wanted_MM = torch.where(shift_M[:, None], shifted_MM, other_MM)
    found_M = wanted_MM.any(1)
    lots_MM = torch.rand(wanted_MM.shape).to(wanted_MM.device).masked_fill(~wanted_MM, -1.0)
    chosen_M = lots_MM.argmax(1) if len(found_M) else torch.zeros_like(pairs.clips_M)
    return chosen_M, found_M


def _same(pairs: Pairs) -> Tensor:
    """Whether two pairs are of the same clip (M, M)."""
    return pairs.clips_M[:, None] == pairs.clips_M[None]


def _apart(pairs: Pairs, shift_s: float) -> Tensor:
    """Whether two pairs are of different clips, or of one at least `shift_s` apart (M, M)."""
    gap_MM = (pairs.seconds_M[:, None] - pairs.seconds_M[None]).abs()
    return ~_same(pairs) | (gap_MM >= shift_s)


def _seconds(tokens: TokenBatch) -> int:
    """How many seconds the longest clip's tokens reach over."""
    times = tokens.times_BN[tokens.there_BN]
    return int(times.max()) + 1 if len(times) else 1


def _pooled(keys_BND: Tensor, tokens: TokenBatch, seconds: int) -> tuple[Tensor, Tensor]:
    """Means (B, T, D) of the keys of each second, and whether it has any (B, T)."""
    number_T = torch.arange(seconds, device=keys_BND.device)
    here_BTN = tokens.times_BN.long()[:, None] == number_T[:, None]
    share_BTN = (here_BTN & tokens.there_BN[:, None]).to(keys_BND.dtype)
    counts_BT1 = share_BTN.sum(-1, keepdim=True)
    return share_BTN @ keys_BND / counts_BT1.clamp(min=1), counts_BT1[..., 0] > 0


def _centred(pooled_BTD: Tensor, there_BT: Tensor) -> Tensor:
    """Minus the mean of all clips at the same second."""
    there_BT1 = there_BT[..., None].to(pooled_BTD.dtype)
    mean_TD = (pooled_BTD * there_BT1).sum(0) / there_BT1.sum(0).clamp(min=1)
    return pooled_BTD - mean_TD


def _clips(values_ME: Tensor, clips_M: Tensor) -> Tensor:
    """Mean of the seconds of each clip that has any, (B', E), in the order of the clips."""
    numbers, which_M = clips_M.unique(return_inverse=True)
    sums = values_ME.new_zeros(len(numbers), values_ME.shape[1]).index_add(0, which_M, values_ME)
    return sums / which_M.bincount(minlength=len(numbers)).clamp(min=1)[:, None]
