"""A training recipe: one YAML file, one run; checked in full before anything is loaded."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avqa_llm.bridge import BridgeConfig
from avqa_llm.errors import RecipeError
from avqa_llm.model import LoraSettings
from avqa_llm.training.connect import ConnectConfig
from avqa_llm.training.encoders import EncodersConfig
from avqa_llm.training.text import TextConfig


@dataclass(frozen=True, kw_only=True)
class BandstandSet:
    """A Bandstand set that the run makes for itself, under `data/NAME`."""

    name: str
    clips: int
    seed: int
    arrays: bool = True
    """Render the clips; otherwise their texts only."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that one run needs. Stages run in the order of these fields, absent ones not."""

    out: str
    """Where the finished model goes."""
    work: str
    """Where data, features and checkpoints of the run go."""
    sets: list[BandstandSet] = dataclasses.field(default_factory=list)
    text: TextConfig | None = None
    """The small language model, from nothing."""
    encoders: EncodersConfig | None = None
    """Both encoders, from nothing."""
    bridge: BridgeConfig = dataclasses.field(default_factory=BridgeConfig)
    lora: LoraSettings = dataclasses.field(default_factory=LoraSettings)
    align: ConnectConfig | None = None
    instruct: ConnectConfig | None = None
    threads: int | None = None
    """Processor threads; absent: all cores."""


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: the file is missing or no YAML, a key is unknown (with a suggestion), a
            value has the wrong type or a needed one is absent; names the place.
    """
    import yaml

    if not path.exists():
        raise RecipeError(f"recipe {path} does not exist")
    try:
        row = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is no YAML: {error}") from error
    return typing.cast(Recipe, build(Recipe, row, str(path)))


def build(kind: Any, value: Any, place: str) -> Any:
    """A value of YAML as the wanted type: dataclasses, lists, tuples, optionals, plain values."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        wanted = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if value is None else build(wanted[0], value, place)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, place)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise RecipeError(f"{place}: {value!r} should be a list")
        inner = typing.get_args(kind)[0]
        items = [build(inner, item, f"{place}[{n}]") for n, item in enumerate(value)]
        return items if origin is list else tuple(items)
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
