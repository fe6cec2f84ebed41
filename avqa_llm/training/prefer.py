"""Preference tuning: a clear answer is made likelier than a hedging or a wrong one.

ADPO (Ye et al., ECCV 2024, "CAT") is direct preference optimisation (Rafailov et al. 2023,
equation 7) with a part of supervised tuning on the preferred answer:

    -log σ(β [log π(y⁺)/π₀(y⁺) - log π(y⁻)/π₀(y⁻)]) - λ · mean log π(y⁺)

Log-probabilities are sums over the tokens of an answer and its end; question, clip, padding and
the other answer do not enter (`pair_batches`). π₀ is the model as it came: the adapter that
learns is switched off (`adapters`).

Legend: B clips, K blocks, P pairs, R questions for the clues, W their tokens, L tokens, C clues,
E width of the language model.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avqa_llm.bridge import Bridge
from avqa_llm.errors import RecipeError
from avqa_llm.model import AVQAModel
from avqa_llm.prompt import CLUE, PICTURE, SOUND
from avqa_llm.training.adapters import join, stack, start_only, without_dropout
from avqa_llm.training.loop import LoopConfig
from avqa_llm.training.packing import block_logps
from avqa_llm.training.pair_batches import PairBatch
from avqa_llm.training.pair_batches import PairBatches as PairBatches


@dataclass(frozen=True, kw_only=True)
class PreferConfig:
    """The stage. Raises RecipeError for values with which nothing can be learned."""

    rows: str
    """JSONL of preference pairs, looked for as in the other stages."""
    loop: LoopConfig
    """Its `batch` counts clips, each with up to `pairs` pairs. The paper: lr 4e-6 on 7B."""
    features: str = ""
    """Bandstand set whose arrays belong to the pairs; empty: clips are media files."""
    pairs: int = 4
    """Most pairs of a clip that share its prefix; a clip with more comes several times a pass."""
    beta: float = 0.1
    """How dear it is to leave the model as it was: the higher, the closer to it."""
    sft: float = 0.1
    """λ: weight of the mean loss on the tokens of chosen answers."""
    label_smoothing: float = 0.0
    """Share of pairs that are taken to be the wrong way round (conservative DPO)."""
    train_bridge: bool = False
    """Let the bridge learn too. The reference then keeps a frozen copy of it as it came."""
    rank: int | None = None
    """Of the adapter that learns; absent: that of the model's. It is added to the model's in the
    end, so whoever goes on from a model that was preference-tuned before should say it."""
    alpha: int | None = None
    """Its scale times its rank; absent: scaled as the model's adapter is."""

    def __post_init__(self) -> None:
        checks = {
            "beta": (self.beta > 0, "above 0"),
            "sft": (self.sft >= 0, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 0.5, "from 0 to below 0.5"),
            "pairs": (self.pairs >= 1, "at least 1"),
            "rank": (self.rank is None or self.rank >= 1, "at least 1"),
            "alpha": (self.alpha is None or self.alpha > 0, "above 0"),
        }
        for name, (good, wanted) in checks.items():
            if not good:
                raise RecipeError(f"prefer: {name} is {getattr(self, name)}, should be {wanted}")


class Prefer(nn.Module):
    """The stage: policy and reference over one copy of the weights."""

    def __init__(self, model: AVQAModel, config: PreferConfig) -> None:
        """The model's language model gets a second adapter, until `finish`."""
        super().__init__()
        self.config = config
        self._model = (model,)  # in a tuple: frozen encoders are no part of the stage
        self.llm, self.bridge = model.llm, model.bridge
        stack(model.llm, rank=config.rank, alpha=config.alpha, seed=config.loop.seed)
        self.bridge.requires_grad_(config.train_bridge)
        without_dropout(self.llm)
        without_dropout(self.bridge)
        self.start_bridge: Bridge | None = None
        if config.train_bridge:
            self.start_bridge = copy.deepcopy(model.bridge).requires_grad_(False).eval()

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        """Scalars of a part of a step.

        Returns:
            `loss`; its terms `dpo` and `sft` (not yet weighted); `chosen` and `rejected`, the
            mean rewards β log π/π₀; `margin`, their difference; `accuracy`, the share of pairs
            (0..1) whose margin is positive.
        """
        with torch.set_grad_enabled(self.config.train_bridge and torch.is_grad_enabled()):
            embeds_BLE = self._embeds(self.bridge, batch)
        with torch.no_grad(), start_only(self.llm):
            start_BLE = self._embeds(self.start_bridge, batch) if self.start_bridge else embeds_BLE
            start_P2 = self._logps(batch, start_BLE)
        policy_P2 = self._logps(batch, embeds_BLE)
        return preference_losses(policy_P2, start_P2, batch, self.config)

    def finish(self) -> None:
        """Join both adapters, so that the model is again one with a plain adapter."""
        (model,) = self._model
        rank = join(model.llm)
        lora = dataclasses.replace(model.config.lora, rank=rank, alpha=rank)
        model.config = dataclasses.replace(model.config, lora=lora)

    def train(self, mode: bool = True) -> Prefer:
        """As ever, but what is frozen stays as in use."""
        super().train(mode)
        if not self.config.train_bridge:
            self.bridge.eval()
        if self.start_bridge is not None:
            self.start_bridge.eval()
        return self

    def _embeds(self, bridge: Bridge, batch: PairBatch) -> Tensor:
        """Embeddings (B, L, E) of the packed sequences, soft tokens in their places."""
        (model,) = self._model
        keys = bridge(batch.sound, batch.picture, batch.seconds_B)
        words_RWE = self.llm.get_input_embeddings()(batch.words_RW).detach()
        soft_RCE, _ = bridge.clues(keys, words_RWE, batch.words_there_RW)
        clips, both = len(batch.seconds_B), soft_RCE.shape[1]
        sides = torch.stack([keys.sound[1].any(1), keys.picture[1].any(1)], dim=1)
        exists_BC = sides.repeat_interleave(both // 2, dim=1)
        exists_BRC = exists_BC[:, None] & batch.used_R.view(clips, -1, 1)
        return model.place(
            batch.packed.ids_BL,
            {
                SOUND: (keys.sound_BQE, keys.sound_there_BQ),
                PICTURE: (keys.picture_BQE, keys.picture_there_BQ),
                CLUE: (soft_RCE.unflatten(0, (clips, -1)).flatten(1, 2), exists_BRC.flatten(1)),
            },
        )

    def _logps(self, batch: PairBatch, embeds_BLE: Tensor) -> Tensor:
        """Log-probabilities (P, 2) of the chosen and the rejected answers."""
        (model,) = self._model
        sums_BK = block_logps(model.trunk, model.head, batch.packed, embeds_BLE).float()
        blocks_P2 = torch.stack([batch.chosen_P, batch.rejected_P], dim=1)
        return sums_BK[batch.clips_P[:, None], blocks_P2]


def preference_losses(
    policy_P2: Tensor, start_P2: Tensor, batch: PairBatch, config: PreferConfig
) -> dict[str, Tensor]:
    """What `Prefer.forward` returns, from log-probabilities of chosen and rejected answers.

    With label smoothing ε the term of a pair is -(1 - ε) log σ(m) - ε log σ(-m), m its margin
    (Mitchell 2023, "A note on DPO with noisy preferences").
    """
    rewards_P2 = config.beta * (policy_P2 - start_P2)
    margin_P = rewards_P2[:, 0] - rewards_P2[:, 1]
    sure, log_sigmoid = 1 - config.label_smoothing, nn.functional.logsigmoid
    terms_P = -sure * log_sigmoid(margin_P) - (1 - sure) * log_sigmoid(-margin_P)
    dpo = terms_P.sum() / batch.pairs_due
    sft = -policy_P2[:, 0].sum() / batch.tokens_due
    chosen, rejected = rewards_P2.detach().mean(0)
    return {
        "loss": dpo + config.sft * sft,
        "dpo": dpo,
        "sft": sft,
        "margin": chosen - rejected,
        "accuracy": (margin_P.detach() > 0).float().mean(),
        "chosen": chosen,
        "rejected": rejected,
    }
