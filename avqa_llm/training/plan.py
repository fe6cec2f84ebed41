"""What `avqa train RECIPE --dry-run` prints: data, weights, memory and time, before any is spent.

Rows are read and counted in full. Models are made of their configuration alone, without weights.
Memory and time are estimates and say so: memory by what an optimizer keeps of each weight and by
the activations of a layer (Korthikanti et al. 2022, equation 2), time by counting products
(6 per weight that gets a gradient and token, 4 per frozen one; 2 more of each where a reference is
read as well) against the rate of a product that is measured here and now.

Legend: E width of the language model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from avqa_llm.bridge import Bridge, BridgeConfig
from avqa_llm.connectors import Layout
from avqa_llm.errors import AVQAError
from avqa_llm.llm import ALL_LINEAR, lora_targets
from avqa_llm.media import probe
from avqa_llm.model import LoraSettings, located
from avqa_llm.training.assemble import SECONDS, Place, load_rows, parts_folder
from avqa_llm.training.connect import ConnectConfig
from avqa_llm.training.find import AboutClip
from avqa_llm.training.loop import LoopConfig, precision_here
from avqa_llm.training.pairs import PairRow
from avqa_llm.training.prefer import PreferConfig
from avqa_llm.training.recipe import Recipe, ValidateConfig
from avqa_llm.training.rows import ClipRow, find_media, read_pairs
from avqa_llm.training.summary import summary

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "nf4": 0.55}
"""Of a frozen weight; nf4 with its scales."""
TRAINED = 16
"""Bytes of a trained weight: itself, its gradient and two moments, all float32."""
USUAL_TOKENS, RECORD_TOKENS = 300, 60
PROBED = 20
"""Files whose length is looked at."""
UTILISED = 0.3
"""Share of the measured rate that training reaches, roughly."""


def plan(recipe: Recipe) -> Iterator[str]:
    """Lines about a run, without starting it.

    Raises:
        AVQAError: rows or media are missing or wrong.
    """
    place = Place(work=Path(recipe.work))
    yield f"model goes to {recipe.out}, work to {recipe.work}"
    yield from _sets(recipe)
    sizes = Sizes.of(recipe, place)
    yield from sizes.lines()
    for name, stage in recipe.connects.items():
        yield f"{name}: {_loop(stage.loop)}"
        rows = _known_rows(recipe, place, stage)
        yield from _indented(_rows(recipe, stage, rows))
        yield from _indented(sizes.costs(recipe, stage, rows))
    if recipe.omni:
        omni = recipe.omni
        yield f"omni: {_loop(omni.loop)}, LoRA of rank {omni.rank} on {omni.base}"
        rows = load_rows(recipe.omni, place)
        yield from _indented(_said_rows(rows, Path(recipe.media)))
    if recipe.prefer:
        yield f"prefer: {_loop(recipe.prefer.loop)}, beta {recipe.prefer.beta:g}"
        yield from _indented(_prefer(recipe, recipe.prefer, place, sizes))
    if recipe.validate:
        yield f"validate: at most {recipe.validate.questions} questions"
        rows = _known_rows(recipe, place, recipe.validate)
        yield from _indented(_rows(recipe, recipe.validate, rows))


def _sets(recipe: Recipe) -> Iterator[str]:
    for wanted in recipe.sets:
        kind = "arrays" if wanted.arrays else "texts"
        yield f"set {wanted.name}: {wanted.clips} clips, seed {wanted.seed}, {kind}"
    if recipe.text:
        yield f"text: {_loop(recipe.text.loop)}"
    if recipe.encoders:
        yield f"picture: {_loop(recipe.encoders.picture)}"
        yield f"sound: {_loop(recipe.encoders.sound)}"


def _loop(loop: LoopConfig) -> str:
    parts = f" in {loop.parts} parts" if loop.parts > 1 else ""
    precision = precision_here(loop.precision)
    return f"{loop.steps} steps of {loop.batch} clips{parts}, lr {loop.lr:g}, {precision}"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}"


def _known_rows(
    recipe: Recipe, place: Place, stage: ConnectConfig | ValidateConfig
) -> list[ClipRow]:
    """The rows of a stage; none where the run has yet to write them."""
    own = any(stage.rows.startswith(f"{wanted.name}/") for wanted in recipe.sets)
    return [] if own and not place.rows(stage.rows).exists() else load_rows(stage, place)


def _rows(
    recipe: Recipe, stage: ConnectConfig | ValidateConfig, rows: Sequence[ClipRow]
) -> Iterator[str]:
    """What is in the rows of a stage."""
    if not rows:
        yield f"{stage.rows}: not there yet, the run writes it"
        return
    yield from _said_rows(rows, None if stage.features else Path(recipe.media))


def _said_rows(rows: Sequence[ClipRow], media: Path | None) -> Iterator[str]:
    for key, value in summary(rows).items():
        yield f"{key}: {_said(value)}"
    if media is not None:
        yield _said_media(rows, media)


def _said_media(rows: Sequence[AboutClip], media: Path) -> str:
    return f"media: all {len(set(find_media(rows, media)))} files are there"


def _prefer(recipe: Recipe, stage: PreferConfig, place: Place, sizes: Sizes) -> Iterator[str]:
    """The pairs of a stage, and what it costs."""
    path = place.rows(stage.rows)
    pairs = read_pairs(path) if path.exists() else []
    if not path.exists():
        yield f"{stage.rows}: not there yet, it has to be when the stage starts"
    else:
        yield f"{stage.rows}: {len(pairs)} pairs"
        if not stage.features:
            yield _said_media(pairs, Path(recipe.media))
    yield from sizes.prefer_costs(recipe, stage, pairs)


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "; ".join(_said(one) for one in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Sizes:
    """Numbers of weights of a model that is not loaded."""

    def __init__(
        self, llm: nn.Module | None, bridge: Bridge | None, lora: int, why: str, *,
        rank: int = 1, records: bool = False,
    ) -> None:  # fmt: skip
        self.llm = sum(p.numel() for p in llm.parameters()) if llm else 0
        self.shape: Any = llm.config if llm else None
        self.lora, self.rank, self.why, self.records = lora, rank, why, records
        self.bridge_config = bridge.config if bridge else BridgeConfig()
        self.bridge: dict[str, int] = {}
        for name, module in bridge.named_children() if bridge else ():
            count = sum(p.numel() for p in module.parameters())
            self.bridge[name] = self.bridge.get(name, 0) + count

    @classmethod
    def of(cls, recipe: Recipe, place: Place) -> Sizes:
        """Build language model and bridge on no device at all."""
        if recipe.text or recipe.omni or not (recipe.base or recipe.start):
            return cls(None, None, 0, "they depend on what the run makes itself")
        from avqa_llm.model import read_config
        from avqa_llm.training.assemble import model_config

        parts = parts_folder(recipe, place)
        config = read_config(parts) if recipe.start else model_config(recipe)
        try:
            llm = empty_llm(located(config.llm, parts), config.llm_revision)
            widths = [
                encoder_width(located(one.source, parts), one.revision)
                for one in (config.sound, config.picture)
            ]
        except (OSError, ValueError, AVQAError) as error:
            return cls(
                None, None, 0, f"a configuration cannot be had: {str(error).splitlines()[0]}"
            )
        doubled = 2 if config.picture.motion == "difference" else 1
        with torch.device("meta"):
            bridge = Bridge(
                config.bridge,
                sound_in=widths[0],
                picture_in=widths[1] * doubled,
                llm_width=llm.config.hidden_size,
                sound_layout=Layout(rate=config.sound.tokens_per_s),
                picture_layout=Layout(rate=config.picture.fps, grid=config.picture.grid),
            )
        lora = config.lora
        return cls(llm, bridge, lora_weights(llm, lora), "", rank=lora.rank, records=config.records)

    def lines(self) -> Iterator[str]:
        """Weights by group."""
        if self.why:
            yield f"weights: not counted, {self.why}"
            return
        yield f"frozen: language model {self.llm:,} weights, and both encoders"
        yield f"LoRA: {self.lora:,} weights ({100 * self.lora / self.llm:.2f} % of the model)"
        parts = ", ".join(f"{name} {count:,}" for name, count in self.bridge.items() if count)
        yield f"bridge: {sum(self.bridge.values()):,} weights: {parts}"

    def tokens(self, recipe: Recipe, seconds: float, words: Sequence[int], asked: float) -> int:
        """About how many tokens a clip takes with `asked` questions of so many words each."""
        shape = recipe.bridge if recipe.base else self.bridge_config
        each = 2 * shape.clues + 10 + 1.5 * sum(words) / max(len(words), 1)
        soft = seconds * (shape.sound_per_second + shape.picture_per_second) + 2 * shape.clues
        return round(soft + RECORD_TOKENS * self.records + 10 + asked * each)

    def costs(self, recipe: Recipe, stage: ConnectConfig, rows: Sequence[ClipRow]) -> Iterator[str]:
        """Memory and time of a stage that learns from rows."""
        tokens = stage.length or USUAL_TOKENS
        if rows and not stage.length:
            words = [len(f"{q.question} {q.answer}".split()) for row in rows for q in row.questions]
            asked = min(stage.questions, len(words) / len(rows))
            tokens = self.tokens(recipe, _seconds(recipe, stage.features, rows), words, asked)
        trained = stage.train_lora * self.lora + stage.train_bridge * sum(self.bridge.values())
        yield from self._said_costs(
            recipe, stage.loop, tokens, trained, checkpointing=stage.checkpointing
        )

    def prefer_costs(
        self, recipe: Recipe, stage: PreferConfig, pairs: Sequence[PairRow]
    ) -> Iterator[str]:
        """Memory and time of preference tuning, whose reference reads everything once more."""
        tokens = USUAL_TOKENS
        if pairs:
            words = [len(f"{p.question} {p.chosen} {p.rejected}".split()) for p in pairs]
            clips = len({(p.media or p.video_id, p.cut) for p in pairs})
            asked = min(stage.pairs, len(pairs) / clips)
            tokens = self.tokens(recipe, _seconds(recipe, stage.features, pairs), words, asked)
        adapter = self.lora * (stage.rank or self.rank) // self.rank
        trained = adapter + stage.train_bridge * sum(self.bridge.values())
        yield from self._said_costs(recipe, stage.loop, tokens, trained, reference=True)

    def _said_costs(
        self, recipe: Recipe, loop: LoopConfig, tokens: int, trained: int, *,
        checkpointing: bool = False, reference: bool = False,
    ) -> Iterator[str]:  # fmt: skip
        """Memory and time, as estimates. `reference`: another pass, without gradients, comes first.

        That pass keeps nothing but its results, so it takes time and no memory to speak of.
        """
        if self.why:
            return
        base, precision = recipe.base, precision_here(loop.precision)
        kind = (base.quantize or base.dtype) if base else "float32"
        clips = -(-loop.batch // loop.parts)
        wide, layers = self.shape.hidden_size, self.shape.num_hidden_layers
        heads = self.shape.num_attention_heads
        width = 2 if precision != "fp32" else 4
        a_layer = tokens * clips * wide * (17 + 2.5 * heads * tokens / wide) * width
        kept = tokens * clips * wide * width * layers + a_layer
        activations = kept if checkpointing else a_layer * layers
        logits = 8.0 * tokens * clips * self.shape.vocab_size
        memory = self.llm * BYTES[kind] + trained * TRAINED + activations + logits
        yield (
            f"memory, estimated: {memory / 2**30:.1f} GiB with {clips} clips of {tokens} tokens at"
            f" once ({activations / 2**30:.1f} GiB of it activations)"
        )
        each = (6 if reference else 4) * self.llm + (8 if reference else 6) * trained
        rate = product_rate(precision)
        hours = loop.steps * loop.batch * tokens * each / (UTILISED * rate) / 3600
        yield (
            f"time, estimated: {_duration(hours)} on this machine, at {UTILISED:.0%} of its"
            f" {rate / 1e12:.2f} TFLOP/s (measured now)"
        )


def _seconds(recipe: Recipe, features: str, rows: Sequence[AboutClip]) -> float:
    """Length of the usual clip."""
    if features:
        return SECONDS
    files = find_media(rows, Path(recipe.media))[:PROBED]
    return median(probe(path).duration_s or SECONDS for path in files)


def _duration(hours: float) -> str:
    if hours < 1.5:
        return f"{60 * hours:.1f} minutes"
    return f"{hours:.1f} hours" if hours < 72 else f"{hours / 24:.1f} days"


def empty_llm(source: str, revision: str | None) -> Any:
    """A language model without weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def encoder_width(source: str, revision: str | None) -> int:
    """Width of an encoder's tokens, by its configuration."""
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    for part in ("vision_config", "audio_config"):
        config = getattr(config, part, config)
    return int(getattr(config, "d_model", None) or config.hidden_size)


def lora_weights(llm: Any, lora: LoraSettings) -> int:
    """How many weights LoRA has on a model."""
    wanted = lora.targets
    names = set(lora_targets(llm, ALL_LINEAR if wanted == (ALL_LINEAR,) else wanted))
    return sum(
        lora.rank * (module.in_features + module.out_features)
        for name, module in llm.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in names
    )


def product_rate(precision: str, size: int = 1024) -> float:
    """Operations a second of a matrix product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    size = size * (8 if device == "cuda" else 1)
    one = torch.randn(size, size, device=device, dtype=dtype or torch.float32)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        one = one @ one / size
        _ = one[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
