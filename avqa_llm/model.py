"""The whole model: encoders, bridge and language model, with saving and loading.

A model directory holds `avqa.json`, `bridge.safetensors` and a plain peft adapter
(`adapter_config.json`, `adapter_model.safetensors`). Frozen weights are never in it: encoders
and language model are named in `avqa.json`, by hub name and revision or by a directory
relative to it.

Legend: B clips or questions, L tokens of the prompt, Q timeline tokens, C clues, E width of
the language model.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avqa_llm.bridge import Bridge, BridgeConfig, ClipKeys
from avqa_llm.calibrator import Calibration
from avqa_llm.connectors import Layout
from avqa_llm.encoders import PictureConfig, PictureEncoder, SoundConfig, SoundEncoder, Tokens
from avqa_llm.encoders.tags import HEADS
from avqa_llm.errors import AVQAError, CheckpointError
from avqa_llm.llm import (
    ADAPTER,
    ADAPTER_CONFIG,
    ALL_LINEAR,
    Merged,
    load_adapter,
    load_llm,
    load_words,
    lora_targets,
)
from avqa_llm.media import Clip
from avqa_llm.prompt import CLUE, PICTURE, SOUND, Prompt
from avqa_llm.quiet import quiet_loading
from avqa_llm.tokenbatch import TokenBatch

FORMAT = 1
CONFIG, BRIDGE = "avqa.json", "bridge.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters on the language model's linear layers (Hu et al. 2022)."""

    rank: int = 16
    """0: none; what was learned is merged into the language model's weights."""
    alpha: int = 32
    targets: tuple[str, ...] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    """Names of linear layers, or `all-linear` alone: all that the decoder's layers have."""
    dropout: float = 0.0
    """Share of the inputs of LoRA that is left out in training."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What a model was made for, so that it can say when a clip is something else."""

    name: str = ""
    longest_s: float = 0.0
    """Clips beyond this length were never seen in training; 0: no such limit is known."""
    statistics: dict[str, list[float]] = field(default_factory=dict)
    """Means and deviations of encoder tokens over the training clips."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What `avqa.json` says."""

    picture: PictureConfig
    sound: SoundConfig
    bridge: BridgeConfig
    llm: str
    """Directory or hub name of the causal language model."""
    llm_revision: str | None = None
    lora: LoraSettings = field(default_factory=LoraSettings)
    records: bool = True
    """Whether the model was taught to write an event record before it answers."""
    tagged: bool = False
    """Whether values of the record are put right by tags of the sound, and those of steps by the
    record: `avqa_llm.values`."""
    world: World = field(default_factory=World)
    calibration: Calibration | None = None
    """How sure answers really are; None: what they are given their steps."""

    def to_json(self) -> dict[str, Any]:
        """What is written to `avqa.json`; no calibration is left out."""
        row = {"format": FORMAT, **asdict(self)}
        if self.calibration is None:
            del row["calibration"]
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any], path: Path) -> ModelConfig:
        """Raises CheckpointError on another format or unknown fields."""
        if row.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} has format {row.get('format')!r}, this version reads {FORMAT}"
            )
        parts = {
            "picture": PictureConfig,
            "sound": SoundConfig,
            "bridge": BridgeConfig,
            "lora": LoraSettings,
            "world": World,
        }
        try:
            values = {k: v for k, v in row.items() if k != "format"}
            for name, kind in parts.items():
                given = values.get(name, {})
                values[name] = kind(
                    **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
                )
            if values.get("calibration") is not None:
                values["calibration"] = Calibration(**values["calibration"])
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path} has fields that this version does not know: {error}"
            ) from error


@dataclass(frozen=True, kw_only=True)
class ClipTokens:
    """A clip after the frozen encoders."""

    sound: Tokens
    picture: Tokens
    seconds: float

    @property
    def timeline(self) -> int:
        """Whole seconds, at least one; encoders' padding (AAC: 8 ms) does not make another."""
        return max(1, int(self.seconds + 0.8))


class AVQAModel(nn.Module):
    """Frozen encoders, bridge, frozen language model with LoRA."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        picture: PictureEncoder,
        sound: SoundEncoder,
        llm: Any,
        tokenizer: Any,
    ) -> None:
        """`llm` is a peft model around a causal language model."""
        super().__init__()
        if config.tagged and (sound.heads is None or sound.heads.width != sound.width):
            raise CheckpointError(
                f"tagged: the sound encoder {sound.config.source} has no {HEADS} for its tokens of"
                f" {sound.width} numbers: leave `tagged` out, or take one that `avqa train` taught"
            )
        self.config = config
        self.picture, self.sound, self.llm = picture, sound, llm
        self.prompt = Prompt(tokenizer)
        table = llm.get_input_embeddings()
        words = torch.arange(min(len(tokenizer), len(table.weight)), device=table.weight.device)
        embeddings = table(words).detach()  # as the layers see them: Gemma scales them
        self.bridge = Bridge(
            config.bridge,
            sound_in=sound.width,
            picture_in=picture.width,
            llm_width=embeddings.shape[1],
            sound_layout=Layout(rate=sound.config.tokens_per_s),
            picture_layout=Layout(rate=picture.config.fps, grid=picture.config.grid),
        )
        self.bridge.fit_words(embeddings)
        self.bridge.to(self.device)

    @property
    def inner(self) -> Any:
        """The causal language model inside peft, with the LoRA layers in place."""
        return self.llm.get_base_model()

    @property
    def trunk(self) -> Any:
        """The inner language model without its head."""
        return self.inner.get_decoder()

    @property
    def head(self) -> nn.Module:
        """From hidden states to the logits of words."""
        head: nn.Module = self.inner.get_output_embeddings()
        return head

    @property
    def filling(self) -> int:
        """The id that fills up sequences. It is never learned, so it may be the end's."""
        pad = self.prompt.tokenizer.pad_token_id
        return int(self.prompt.eos[0] if pad is None else pad)

    @property
    def device(self) -> torch.device:
        """Where the language model is; soft tokens go there."""
        place: torch.device = self.llm.get_input_embeddings().weight.device
        return place

    # -- reading clips ---------------------------------------------------------------------

    def encode(self, clip: Clip) -> ClipTokens:
        """Run the frozen encoders over a clip."""
        return ClipTokens(
            sound=self.sound(clip), picture=self.picture(clip), seconds=clip.duration_s
        )

    def keys(self, clips: Sequence[ClipTokens]) -> ClipKeys:
        """Bridge clips, as far as that goes without a question."""
        seconds = torch.tensor([clip.timeline for clip in clips], device=self.device)
        sound = TokenBatch.of([clip.sound for clip in clips]).to(self.device)
        picture = TokenBatch.of([clip.picture for clip in clips]).to(self.device)
        keys: ClipKeys = self.bridge(sound, picture, seconds)
        return keys

    def clues(self, keys: ClipKeys, questions: Sequence[list[int]]) -> tuple[Tensor, Tensor, Any]:
        """Clues for questions (as token ids), the same number for each row of `keys`, in order.

        Returns:
            Soft tokens (B, 2 C, E); which of them exist (B, 2 C): the clues of a missing
            modality do not; and the clues with their attention.
        """
        words, there = self._words(questions)
        soft, clues = self.bridge.clues(keys, words, there)
        n, each = self.config.bridge.clues, len(questions) // len(keys.sound[1])
        sides = (keys.sound[1].any(1, keepdim=True), keys.picture[1].any(1, keepdim=True))
        exists = torch.cat([side.expand(-1, n) for side in sides], dim=1)
        return soft, exists.repeat_interleave(each, dim=0), clues

    def _words(self, questions: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        longest = -(-max(len(q) for q in questions) // 16) * 16  # few shapes: kind to a compiler
        ids = torch.zeros(len(questions), longest, dtype=torch.long)
        there = torch.zeros(len(questions), longest, dtype=torch.bool)
        for n, question in enumerate(questions):
            ids[n, : len(question)] = torch.tensor(question)
            there[n, : len(question)] = True
        return self.llm.get_input_embeddings()(ids.to(self.device)).detach(), there.to(self.device)

    def place(self, ids_BL: Tensor, soft: dict[int, tuple[Tensor, Tensor]]) -> Tensor:
        """Prompt ids to embeddings (B, L, E), soft tokens put where their ids stand.

        Args:
            ids_BL: with `SOUND`, `PICTURE` and `CLUE` in the places of soft tokens.
            soft: for each of those, vectors (B, n, E) and which of them exist (B, n).

        Raises:
            AVQAError: places and vectors do not match in number. (Filling what there is
                would shift every later token without a word.)
        """
        ids_BL = ids_BL.to(self.device)
        embeds = self.llm.get_input_embeddings()(ids_BL.clamp(min=0)).detach().clone()
        for kind, (vectors, exists) in soft.items():
            spots = ids_BL == kind
            wanted, found = spots.sum(1), exists.sum(1)
            if not torch.equal(wanted, found):
                name = {SOUND: "sound", PICTURE: "picture", CLUE: "clue"}[kind]
                raise AVQAError(
                    f"the prompt has {wanted.tolist()} places for {name} tokens, the bridge"
                    f" gave {found.tolist()}: the prompt was cut or built for other clips"
                )
            embeds = embeds.masked_scatter(spots[..., None], vectors[exists].to(embeds.dtype))
        return embeds

    # -- saving and loading ------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `avqa.json`, the bridge and the LoRA adapter; each aside, then renamed."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._save_adapter(folder)
        state = {k: v.contiguous() for k, v in self.bridge.state_dict().items()}
        save_file(state, folder / f"{BRIDGE}.writing")
        os.replace(folder / f"{BRIDGE}.writing", folder / BRIDGE)
        (folder / f"{CONFIG}.writing").write_text(config_text(self.config.to_json()))
        os.replace(folder / f"{CONFIG}.writing", folder / CONFIG)

    def _save_adapter(self, folder: Path) -> None:
        """Let peft write beside, for it also writes a model card over whatever README there is."""
        if len(self.llm.peft_config) > 1:
            raise CheckpointError(
                f"the language model has the adapters {', '.join(self.llm.peft_config)}: join them"
                " first, or all but the first would be lost"
            )
        # What is meant is the name in `avqa.json`, not where it lay on this machine.
        self.llm.peft_config["default"].base_model_name_or_path = self.config.llm
        aside = folder / "adapter.writing"
        # Without embeddings: they are frozen, and "auto" would ask the hub about them.
        self.llm.save_pretrained(aside, save_embedding_layers=False)
        for name in (ADAPTER, ADAPTER_CONFIG):
            os.replace(aside / name, folder / name)
        shutil.rmtree(aside)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        parts: str | Path | None = None,
        trained: bool = False,
        **how: Any,
    ) -> AVQAModel:
        """Load a model directory, with what it names.

        Args:
            folder: the model directory.
            parts: what relative names in it are relative to; absent: the directory itself.
            trained: LoRA is to be trained on, so its weights become float32.
            how: options of `load_llm`: dtype, attention, quantize, device.

        Raises:
            CheckpointError: a file is missing, foreign or does not fit the others.
        """
        folder, beside = Path(folder), Path(parts or folder)
        config = read_config(folder)
        base, tokenizer = load_llm(located(config.llm, beside), config.llm_revision, **how)
        base.requires_grad_(False)
        with quiet_loading(folder):
            llm = load_adapter(base, folder, rank=config.lora.rank)
        if trained:
            widen_adapter(llm)
        model = cls(config, **_encoders(config, beside), llm=llm, tokenizer=tokenizer)
        model.load_bridge(folder / BRIDGE)
        return model.eval()

    @classmethod
    def without_llm(
        cls, folder: str | Path, *, words: tuple[Any, Any] | None = None, dtype: str = "float32"
    ) -> AVQAModel:
        """Load a model directory whose language model runs elsewhere: of it, only the words.

        Args:
            folder: the model directory.
            words: language model and tokenizer of another model of the same base, to share them.
            dtype: of the words, if they are loaded.

        Raises:
            CheckpointError: a file is missing, foreign or does not fit the others.
        """
        folder = Path(folder)
        config = read_config(folder)
        if words is None:
            base, tokenizer = load_words(
                located(config.llm, folder), config.llm_revision, dtype=dtype
            )
            words = (Merged(base.requires_grad_(False)), tokenizer)
        else:  # a tokenizer changes while a prompt is set up: not under those who use it
            words = (words[0], copy.deepcopy(words[1]))
        model = cls(config, **_encoders(config, folder), llm=words[0], tokenizer=words[1])
        model.load_bridge(folder / BRIDGE)
        return model.eval()

    @classmethod
    def fresh(
        cls, config: ModelConfig, folder: str | Path, *, seed: int = 0, **how: Any
    ) -> AVQAModel:
        """A model with a new bridge and a new adapter around what the config names.

        Args:
            config: of the model; its LoRA targets may be `all-linear`.
            folder: what relative names in it are relative to.
            seed: of the new weights.
            how: options of `load_llm`: dtype, attention, quantize, device.

        Raises:
            CheckpointError: a part cannot be loaded.
            RecipeError: LoRA targets that the language model has not.
        """
        from peft import LoraConfig, get_peft_model

        folder = Path(folder)
        base, tokenizer = load_llm(located(config.llm, folder), config.llm_revision, **how)
        base.requires_grad_(False)
        wanted = config.lora.targets
        targets = lora_targets(base, ALL_LINEAR if wanted == (ALL_LINEAR,) else wanted)
        config = replace(config, lora=replace(config.lora, targets=tuple(targets)))
        torch.manual_seed(seed)
        lora = LoraConfig(
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
        with quiet_loading(folder):
            llm = get_peft_model(base, lora)
        return cls(config, **_encoders(config, folder), llm=llm, tokenizer=tokenizer)

    def load_bridge(self, path: Path) -> None:
        """Load the bridge's weights, all of them.

        Raises:
            CheckpointError: the file is missing or holds other weights.
        """
        from safetensors.torch import load_file

        if not path.exists():
            raise CheckpointError(f"{path} does not exist: the bridge's weights are missing")
        try:
            self.bridge.load_state_dict(load_file(path))
        except Exception as error:  # safetensors and torch each raise their own
            raise CheckpointError(f"{path} does not fit this model: {error}") from error


def read_config(folder: Path) -> ModelConfig:
    """Read `avqa.json` of a model directory."""
    path = folder / CONFIG
    if not path.exists():
        raise CheckpointError(f"{folder} is no model directory: it has no {CONFIG}")
    try:
        row = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise CheckpointError(f"{path} holds a {type(row).__name__}, not an object")
    return ModelConfig.from_json(row, path)


def config_text(row: dict[str, Any]) -> str:
    """JSON for people: indented, but a list of numbers on one line. They are four in five bytes."""
    text = json.dumps(row, indent=2)
    return re.sub(r"\[\n[-+\d.,eE\s]+\]", lambda found: "".join(found[0].split()), text) + "\n"


def located(source: str, folder: Path) -> str:
    """A relative directory that exists beside the model is meant before a hub name."""
    inside = folder / source
    return str(inside) if inside.is_dir() else source


def widen_adapter(llm: Any) -> None:
    """Make LoRA weights float32: steps of an optimizer are lost in less."""
    for name, parameter in llm.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def _encoders(config: ModelConfig, folder: Path) -> dict[str, Any]:
    from avqa_llm.encoders.load import load_picture_encoder, load_sound_encoder

    picture = replace(config.picture, source=located(config.picture.source, folder))
    sound = replace(config.sound, source=located(config.sound.source, folder))
    return {"picture": load_picture_encoder(picture), "sound": load_sound_encoder(sound)}
