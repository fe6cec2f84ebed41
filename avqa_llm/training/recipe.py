"""A training recipe: one YAML file, one run; checked in full before anything is loaded."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avqa_llm.bridge import BridgeConfig
from avqa_llm.encoders import PictureConfig, SoundConfig
from avqa_llm.errors import RecipeError
from avqa_llm.model import LoraSettings
from avqa_llm.omni.stage import OmniTraining
from avqa_llm.training.connect import AlignConfig, ConnectConfig
from avqa_llm.training.encoders import EncodersConfig
from avqa_llm.training.loop import LoopConfig
from avqa_llm.training.prefer import PreferConfig
from avqa_llm.training.text import TextConfig


@dataclass(frozen=True, kw_only=True)
class BandstandSet:
    """A Bandstand set that the run makes for itself, under `data/NAME`."""

    name: str
    clips: int
    seed: int
    arrays: bool = True
    """Render the clips; otherwise their texts only."""
    hard: float = 0.0
    """Share of crowded, noisy clips."""
    bias: float = 0.0
    """0: answers as balanced as can be; 1: as one-sided as those of MUSIC-AVQA v1."""
    of_records: bool = False
    """Questions for those who read the records, for the text stage; needs `arrays: false`."""


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """Models of others that a run starts from, by hub name and revision or by directory."""

    llm: str
    picture: PictureConfig
    sound: SoundConfig
    llm_revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the frozen language model while it is trained on."""
    quantize: Literal["nf4", "int8"] | None = None
    """nf4: QLoRA (Dettmers et al. 2023), a quarter of the memory."""
    attention: Literal["eager", "sdpa"] = "sdpa"
    records: bool = False
    """Whether the model learns to write an event record before it answers; rows must have them."""


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """Rows that nothing is learned from."""

    rows: str
    splits: tuple[str, ...] = ()
    features: str = ""
    """These three as of a stage."""
    questions: int = 2000
    """At most so many are asked, the first ones of each clip in turn."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that one run needs. Stages run in the order of these fields, absent ones not.

    A run starts from one of: `text` and `encoders` (nothing at all), `base` (models of others),
    `start` (what another run left), `omni` (a model that sees and hears by itself).
    """

    out: str
    """Where the finished model goes."""
    work: str
    """Where data, features and checkpoints of the run go."""
    sets: list[BandstandSet] = dataclasses.field(default_factory=list)
    text: TextConfig | None = None
    """The small language model, from nothing."""
    encoders: EncodersConfig | None = None
    """Both encoders, from nothing."""
    base: BaseConfig | None = None
    start: str | None = None
    """A preset or the directory of a trained model: bridge and adapter learn on."""
    records: bool | None = None
    """Of a `start` model: whether it goes on to write a record before it answers; absent: as it
    did."""
    omni: OmniTraining | None = None
    media: str = ""
    """Folder of the clips, where rows name media files."""
    bridge: BridgeConfig = dataclasses.field(default_factory=BridgeConfig)
    lora: LoraSettings = dataclasses.field(default_factory=LoraSettings)
    tagged: bool = False
    """Whether values of the record are put right by tags, which the sound encoder must have; a
    `start` model does as it did."""
    align: AlignConfig | None = None
    instruct: ConnectConfig | None = None
    prefer: PreferConfig | None = None
    validate: ValidateConfig | None = None
    world: str = ""
    """What the clips show, in a word or two: named when a clip looks unlike them."""
    card: bool = True
    """Write a model card, as README.md."""
    half: bool = False
    """Write float16 weights: half the size."""
    threads: int | None = None
    """Processor threads; absent: all cores."""

    @property
    def connects(self) -> dict[str, ConnectConfig]:
        """The stages that learn from rows, by name."""
        found: dict[str, ConnectConfig | None] = {"align": self.align, "instruct": self.instruct}
        return {name: config for name, config in found.items() if config}


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: of the YAML file.
        changes: `key.key=value` each, with a value as YAML has it, instead of what is written.

    Raises:
        RecipeError: the file is missing or no YAML, a key is unknown (with a suggestion), a
            value has the wrong type or a needed one is absent; names the place.
    """
    import yaml

    if not path.exists():
        raise RecipeError(f"recipe {path} does not exist")
    try:
        row = yaml.safe_load(path.read_text(encoding="utf-8"))
        for change in changes:
            _change(row, change, yaml.safe_load)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is no YAML: {error}") from error
    recipe = typing.cast(Recipe, build(Recipe, row, str(path)))
    _check(recipe, path)
    return recipe


def _change(row: Any, change: str, parse: Callable[[str], Any]) -> None:
    keys, sign, value = change.partition("=")
    *path, last = keys.split(".")
    for key in path:
        row = row.setdefault(key, {}) if isinstance(row, dict) else None
    if not sign or not isinstance(row, dict):
        raise RecipeError(f"--set {change}: should be KEY.KEY=VALUE, with a block before each dot")
    row[last] = parse(value)


def _check(recipe: Recipe, path: Path) -> None:
    """What no single value shows."""
    starts = [k for k in ("base", "start", "omni") if getattr(recipe, k) is not None]
    starts += ["text and encoders"] if recipe.text and recipe.encoders else []
    if recipe.omni and (recipe.connects or recipe.prefer or recipe.validate):
        raise RecipeError(
            f"{path}: omni is a run of its own: align, instruct, prefer and validate belong to the"
            " others"
        )
    if len(starts) > 1 or (not starts and (recipe.connects or recipe.prefer)):
        raise RecipeError(
            f"{path}: a run starts from one of base, start, omni, or text and encoders; this one"
            f" names {' and '.join(starts) or 'none of them'}"
        )
    if recipe.start:
        usual = {"bridge": BridgeConfig(), "lora": LoraSettings(), "tagged": False}
        for name, value in usual.items():
            if getattr(recipe, name) != value:
                raise RecipeError(
                    f"{path}.{name}: the model in {recipe.start!r} has its own; leave it out"
                )
    _check_stages(recipe, path)


def _check_stages(recipe: Recipe, path: Path) -> None:
    """Of each stage: its clips, its weights, and what it asks of others."""
    known = {wanted.name for wanted in recipe.sets}
    blocks: dict[str, Any] = {"prefer": recipe.prefer, "validate": recipe.validate}
    blocks |= recipe.connects
    for name, block in blocks.items():
        if block is None:
            continue
        if block.features and block.features not in known:
            raise RecipeError(f"{path}.{name}.features: there is no set {block.features!r}")
        if not block.features and not recipe.media:
            raise RecipeError(f"{path}.{name}: name the folder of the clips with `media`")
        loop: LoopConfig | None = getattr(block, "loop", None)
        if loop is not None:
            _check_loop(recipe, loop, f"{path}.{name}")
    if recipe.omni and not recipe.media:
        raise RecipeError(f"{path}.omni: name the folder of the clips with `media`")
    if recipe.lora.rank < 1 or not 0 <= recipe.lora.dropout < 1:
        raise RecipeError(f"{path}.lora: rank is at least 1, dropout from 0 to below 1")
    for name, stage in recipe.connects.items():
        if not 0 <= stage.missing <= 1 or not 0 <= stage.drop < 1 or not 0 <= stage.pair <= 1:
            raise RecipeError(f"{path}.{name}: missing, drop and pair are shares, from 0 to 1")
        silent = recipe.records is False or (recipe.base is not None and not recipe.base.records)
        if not stage.questions and silent and stage.tokens:
            raise RecipeError(
                f"{path}.{name}.questions: 0 learns records alone, and this model writes none; say"
                " how many questions of a clip are learned in a step"
            )
        if not (stage.train_bridge or stage.train_lora):
            raise RecipeError(f"{path}.{name}: neither the bridge nor LoRA is to learn")
        if not recipe.bridge.clues and (stage.grounding or stage.events):
            raise RecipeError(
                f"{path}.{name}: grounding and events are about clues, and bridge.clues is 0; set"
                " both to 0"
            )
        if stage.naming and recipe.bridge.connector not in ("qformer", "projector"):
            raise RecipeError(
                f"{path}.{name}.naming: the tokens of a {recipe.bridge.connector} stand for no"
                " place of the picture that could be named; set it to 0"
            )
        if stage.loop.fsdp and stage.debias and stage.debias.ogm:
            raise RecipeError(f"{path}.{name}.loop.fsdp: OGM needs whole gradients; leave one out")


def _check_loop(recipe: Recipe, loop: LoopConfig, place: str) -> None:
    if loop.fsdp and recipe.base and recipe.base.quantize:
        raise RecipeError(
            f"{place}.loop.fsdp: quantised weights cannot be split over processes; use several"
            " processes without fsdp, or leave quantize out"
        )
    if loop.fsdp and loop.validate_every:
        raise RecipeError(
            f"{place}.loop: validate_every needs the whole model, which fsdp splits; leave one out"
            " (`validate` is asked at the end all the same)"
        )
    if loop.validate_every and recipe.validate is None:
        raise RecipeError(f"{place}.loop.validate_every: there is no block `validate` with rows")


def build(kind: Any, value: Any, place: str) -> Any:
    """A value of YAML as the wanted type: a dataclass, list, tuple, dictionary, optional, plain."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        wanted = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if value is None else build(wanted[0], value, place)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, place)
    if origin is Literal:
        return _one_of(typing.get_args(kind), value, place)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise RecipeError(f"{place}: {value!r} should be a list")
        inner = typing.get_args(kind)[0]
        items = [build(inner, item, f"{place}[{n}]") for n, item in enumerate(value)]
        return items if origin is list else tuple(items)
    if origin is dict:
        if not isinstance(value, dict):
            raise RecipeError(f"{place}: {value!r} should be a block of keys")
        inner = typing.get_args(kind)[1]
        return {str(key): build(inner, item, f"{place}.{key}") for key, item in value.items()}
    return _plain(kind, value, place)


def _build_dataclass(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise RecipeError(f"{place}: {value!r} should be a block of keys")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f": did you mean {close[0]!r}?" if close else f"; known: {', '.join(fields)}"
            raise RecipeError(f"{place}: unknown key {key!r}{hint}")
    for name, field in fields.items():
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and name not in value:
            raise RecipeError(f"{place}: {name!r} is missing")
    return kind(**{key: build(hints[key], item, f"{place}.{key}") for key, item in value.items()})


def _one_of(known: Sequence[Any], value: Any, place: str) -> Any:
    if value not in known:
        close = difflib.get_close_matches(str(value), map(str, known), n=1)
        hint = f": did you mean {close[0]!r}?" if close else ""
        raise RecipeError(f"{place}: {value!r} should be one of {', '.join(map(str, known))}{hint}")
    return value


def _plain(kind: type, value: Any, place: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise RecipeError(f"{place}: {value!r} should be of type {kind.__name__}")
    return value
