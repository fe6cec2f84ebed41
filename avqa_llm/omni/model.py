"""The omni model: a frozen base that hears and sees, with LoRA on its text decoder alone.

A model directory holds `avqa.json` (kind `omni`) and a plain peft adapter. The base's weights are
never in it.

Legend: B clips, L tokens, N sound tokens of all clips, E width.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avqa_llm.errors import AVQAError, CheckpointError
from avqa_llm.llm import ADAPTER, ADAPTER_CONFIG, load_adapter
from avqa_llm.omni.base import load_base
from avqa_llm.omni.batch import OmniBatch, collate, picture_times
from avqa_llm.omni.chat import Chat
from avqa_llm.omni.config import OmniConfig
from avqa_llm.omni.families import Family, find_marks
from avqa_llm.omni.inputs import OmniClip, Preparation
from avqa_llm.quiet import quiet_loading
from avqa_llm.training.packing import Piece, learned_logits, pack

FORMAT, KIND, CONFIG = 1, "omni", "avqa.json"
DECODER = "model.language_model.layers."


class OmniModel(nn.Module):
    """A thinker with LoRA, its tokenizer and its preparation of clips."""

    def __init__(
        self,
        config: OmniConfig,
        *,
        llm: Any,
        tokenizer: Any,
        family: Family,
        preparation: Preparation,
    ) -> None:
        """`llm` is a peft model around the thinker.

        Raises:
            CheckpointError: tokenizer and thinker do not belong together, or LoRA changes more
                than the decoder's layers, or less.
        """
        super().__init__()
        self.config, self.family, self.prepare = config, family, preparation
        self.llm = llm
        check_adapted(llm)
        self.thinker_config = self.thinker.config
        self.marks = find_marks(family, tokenizer, self.thinker_config)
        self.chat = Chat(tokenizer, instruction=config.instruction)
        pad = tokenizer.pad_token_id
        self.pad_id = int(self.chat.end[0] if pad is None else pad)

    @property
    def thinker(self) -> Any:
        """The base inside peft, with the LoRA layers in place."""
        return self.llm.get_base_model()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        weights: Tensor = self.thinker.get_input_embeddings().weight
        return weights.device

    # -- reading -----------------------------------------------------------------------------

    def prefix(self, clip: OmniClip) -> list[int]:
        """Ids of a clip's prefix, a mark for each token of sound and picture."""
        marks, sound, picture = self.marks, clip.sound.n, clip.picture.n
        if sound and picture:
            rate = self.thinker_config.position_id_per_seconds
            times = picture_times(clip, self.prepare.merge, rate)
            order = self.family.order(times, sound, self.thinker_config)
            inner = [marks["video"] if is_picture else marks["audio"] for is_picture in order]
            inner = [marks["audio_open"], *inner, marks["audio_close"]]
            ids = [marks["video_open"], *inner, marks["video_close"]]
        elif sound:
            ids = [marks["audio_open"], *[marks["audio"]] * sound, marks["audio_close"]]
        else:
            ids = [marks["video_open"], *[marks["video"]] * picture, marks["video_close"]]
        return self.chat.prefix(ids, sound=sound > 0, picture=picture > 0)

    def positions(self, ids: list[int], clip: OmniClip) -> Tensor:
        """Positions (3, L) of a prefix, by the model's own rule.

        Asked clip by clip: for a batch the rule knows only clips that all have sound or all not.
        """
        both = clip.sound.n > 0 and clip.picture.n > 0
        mel_MF, grid = clip.sound.mel_MF, clip.picture.grid
        ids_1L = torch.tensor([ids])
        positions_31L, _ = self.thinker.get_rope_index(
            ids_1L,
            video_grid_thw=torch.tensor([grid]) if clip.picture.n else None,
            attention_mask=torch.ones_like(ids_1L),
            use_audio_in_video=both,
            audio_seqlens=None if mel_MF is None else torch.tensor([mel_MF.shape[1]]),
            second_per_grids=torch.tensor([clip.picture.step_s]),
        )
        positions: Tensor = positions_31L[:, 0].float()
        return positions

    def batch(self, clips: Sequence[OmniClip], blocks: Sequence[Sequence[Piece]]) -> OmniBatch:
        """Clips with the texts that go on from each."""
        prefixes = [self.prefix(clip) for clip in clips]
        pieces = [Piece.of(prefix, []) for prefix in prefixes]
        packed = pack(list(zip(pieces, blocks, strict=True)), pad_id=self.pad_id)
        positions = [self.positions(*both) for both in zip(prefixes, clips, strict=True)]
        return collate(packed, positions, clips)

    def embed(self, batch: OmniBatch) -> Tensor:
        """Embeddings (B, L, E) of a batch, sound tokens in their places.

        Raises:
            AVQAError: a clip's tokens of sound or picture are not as many as its places. (The
                model itself does not ask that about sound: it would leave places unfilled.)
        """
        ids_BL = batch.packed.ids_BL
        for name, mark, wanted_B in (
            ("sound", "audio", batch.sounds_B),
            ("picture", "video", batch.pictures_B),
        ):
            places_B = (ids_BL == self.marks[mark]).sum(1)
            if not torch.equal(places_B, wanted_B):
                raise AVQAError(
                    f"the prompts have {places_B.tolist()} places for {name} tokens, the clips"
                    f" give {wanted_B.tolist()}: they do not belong together"
                )
        embeds_BLE: Tensor = self.thinker.get_input_embeddings()(ids_BL).detach()
        if batch.mel_SMF is None:
            return embeds_BLE
        sound_NE = self.listen(batch)
        spots_BL1 = (ids_BL == self.marks["audio"])[..., None]
        return embeds_BLE.masked_scatter(spots_BL1, sound_NE.to(embeds_BLE.dtype))

    def listen(self, batch: OmniBatch) -> Tensor:
        """Sound tokens (N, E) of all clips, as they leave the sound tower.

        Raises:
            AVQAError: they are not as many as we counted.
        """
        with torch.no_grad():
            heard = self.thinker.get_audio_features(
                batch.mel_SMF, feature_attention_mask=batch.heard_SF
            )
        sound_NE: Tensor = heard.last_hidden_state
        if len(sound_NE) != int(batch.sounds_B.sum()):
            raise AVQAError(
                f"the sound tower gave {len(sound_NE)} tokens for clips of"
                f" {batch.sounds_B.tolist()}: this version of transformers counts otherwise"
            )
        return sound_NE

    def trunk(self, batch: OmniBatch, **more: Any) -> Any:
        """The thinker without its head, for `packing`: called as a text decoder is."""

        def run(*, inputs_embeds: Tensor, attention_mask: Tensor, **own: Any) -> Any:
            return self.thinker.model(
                input_ids=batch.packed.ids_BL,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                pixel_values_videos=batch.patches_PD,
                video_grid_thw=batch.grid_V3,
                **{**own, **more, "position_ids": batch.positions_3BL},
            )

        return run

    def logits(self, batch: OmniBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (M, V) of the learned tokens, with their rows (M,) and places (M,)."""
        head = self.thinker.get_output_embeddings()
        return learned_logits(self.trunk(batch), head, batch.packed, self.embed(batch))

    # -- saving and loading --------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `avqa.json` and the LoRA adapter; each aside, then renamed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # What is meant is the name in `avqa.json`, not where it lay on this machine.
        self.llm.peft_config["default"].base_model_name_or_path = self.config.base
        aside = folder / "adapter.writing"
        self.llm.save_pretrained(aside, save_embedding_layers=False)
        for name in (ADAPTER, ADAPTER_CONFIG):
            os.replace(aside / name, folder / name)
        shutil.rmtree(aside)
        text = json.dumps({"format": FORMAT, "kind": KIND, **asdict(self.config)}, indent=2)
        (folder / f"{CONFIG}.writing").write_text(text + "\n", encoding="utf-8")
        os.replace(folder / f"{CONFIG}.writing", folder / CONFIG)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str | None = None) -> OmniModel:
        """Load a model directory, with the base that it names.

        Raises:
            CheckpointError: a file is missing, foreign or does not fit the others.
        """
        folder = Path(folder)
        config = read_omni_config(folder)
        base, parts = load_base(config, folder, device=device)
        with quiet_loading(folder):
            llm = load_adapter(base, folder)
        return cls(config, llm=llm, **parts).eval()

    @classmethod
    def fresh(
        cls, config: OmniConfig, folder: str | Path, *, seed: int = 0, device: str | None = None
    ) -> OmniModel:
        """A model with a new adapter; a base in a relative directory is looked for in `folder`.

        Raises:
            CheckpointError: the base cannot be loaded.
        """
        from peft import LoraConfig, get_peft_model

        base, parts = load_base(config, Path(folder), device=device)
        torch.manual_seed(seed)
        lora = LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=lora_targets(base),
            task_type="CAUSAL_LM",
        )
        with quiet_loading(folder):
            llm = get_peft_model(base, lora)
        return cls(config, llm=llm, **parts)


def lora_targets(thinker: Any) -> list[str]:
    """Whole names of the linear layers of the text decoder.

    Last parts of names would not do: the towers have layers of the same. Nor would a pattern: of
    a mixture peft 0.21 keeps only the last parts of what it matches, and so changes the sound
    tower. Experts of a mixture are no linear layers, and names of its dense ones (`gate_proj`)
    mean its experts to peft: there, attention alone learns.
    """
    mixture = hasattr(thinker.config.get_text_config(), "num_experts")
    return [
        name.removesuffix(".base_layer")
        for name, module in thinker.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(DECODER) and ".lora_" not in name
        if not mixture or ".self_attn." in name
    ]


def check_adapted(llm: Any) -> None:
    """Raise CheckpointError unless LoRA lies on the decoder's layers alone, and on all of them."""
    base = llm.get_base_model()
    adapted = {name for name, module in base.named_modules() if hasattr(module, "lora_A")}
    if odd := sorted(adapted ^ set(lora_targets(base))):
        raise CheckpointError(
            f"LoRA is missing or out of place on {len(odd)} layers, such as {odd[0]}: it belongs on"
            " the linear layers of the text decoder, all of them and no others"
        )


def is_omni(folder: Path) -> bool:
    """Whether a model directory says that it is of this kind."""
    try:
        row = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # whoever loads it says what is wrong
    return isinstance(row, dict) and row.get("kind") == KIND


def read_omni_config(folder: Path) -> OmniConfig:
    """Read `avqa.json` of a model directory of this kind.

    Raises:
        CheckpointError: it is missing, no JSON, of another kind or format, or has unknown fields.
    """
    path = folder / CONFIG
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no model directory: it has no {CONFIG}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    found = row.get("format"), row.get("kind")
    if found != (FORMAT, KIND):
        raise CheckpointError(f"{path} has format and kind {found}, not {(FORMAT, KIND)}")
    try:
        return OmniConfig(**{k: v for k, v in row.items() if k not in ("format", "kind")})
    except (TypeError, AVQAError) as error:
        raise CheckpointError(f"{path} does not fit this version: {error}") from error
