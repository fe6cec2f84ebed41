"""The model card of a trained directory: what it is, what it saw, how right it is, how to load it.

No number is made here: all of them come from the recipe, the data and `results.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CARD, BESIDE = "README.md", "MODEL_CARD.md"
MARK = "<!-- written by avqa train -->"
"""Says that a card may be written over."""
STAGES = ("text", "encoders", "align", "instruct", "prefer")
PATHS = ("rows", "features", "media", "pairs", "source", "arrays")
"""Values that are files and folders: only their last part is anybody's business."""
BRIDGED = (
    "A bridge turns the tokens of frozen sound and picture encoders into soft tokens for a frozen"
    " language model with LoRA."
)
OMNI = "LoRA on the frozen language model of an omni model, which hears and sees by itself."
HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def write_card(
    folder: Path,
    recipe: Mapping[str, Any],
    results: Mapping[str, Any] | None,
    data: Mapping[str, Any],
) -> Path:
    """Write the card of a model directory; a README.md of someone's own is left alone.

    Args:
        folder: the model directory.
        recipe: the resolved recipe, as plain values.
        results: what `results.json` holds: estimates are blocks with `accuracy` (0..1), `n`,
            `low` and `high`, at any depth; None: the model was not evaluated.
        data: `license` (of the whole, if known), `sets` (each with `name` and what is known of
            it: `rows`, `clips`, `sha256`, `licenses` with counts, ...), `parameters` (of trained
            groups), `longest_s`. Absent ones are said to be unknown.

    Returns:
        The file: `README.md`, or `MODEL_CARD.md` beside one that was not written here.
    """
    parts = [
        _front(recipe, data),
        MARK,
        f"# {folder.resolve().name}",
        "Answers questions about a video with its sound. "
        + (OMNI if recipe.get("omni") else BRIDGED),
        _section("Made from", _bases(recipe)),
        _section("Data", _data(data)),
        _section("Training", _training(recipe, data)),
        _section("Results", _results(results)),
        _section("Limits", _limits(recipe, results, data)),
        _section("Use", _use(recipe)),
        f"Recipe: `recipe.yaml`, sha256 of its values `{recipe_hash(recipe)}`.",
    ]
    path = folder / CARD
    if path.is_file() and MARK not in path.read_text(encoding="utf-8"):
        path = folder / BESIDE
    aside = path.with_name(f"{path.name}.writing")
    aside.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    os.replace(aside, path)
    return path


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """A name for exactly these settings; where the files lie is no part of it."""
    plain = {key: value for key, value in recipe.items() if key not in ("out", "work", "threads")}
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _section(title: str, lines: Iterator[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines)


# -- what it is made from ----------------------------------------------------------------------


def _front(recipe: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    import yaml

    row: dict[str, Any] = {"library_name": "peft", "pipeline_tag": "video-text-to-text"}
    if data.get("license"):
        row["license"] = data["license"]
    llm = _base(recipe).get("llm", "")
    if _on_hub(llm):
        row |= {"base_model": llm, "base_model_relation": "adapter"}
    row["tags"] = ["audio-visual-question-answering", "avqa-llm", "lora"]
    return f"---\n{yaml.safe_dump(row, sort_keys=False)}---"


def _base(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    return recipe.get("base") or {}


def _bases(recipe: Mapping[str, Any]) -> Iterator[str]:
    base, omni = _base(recipe), recipe.get("omni") or {}
    named = {
        "language model": (base.get("llm"), base.get("llm_revision")),
        "picture encoder": _part(base, "picture"),
        "sound encoder": _part(base, "sound"),
        "omni model": (omni.get("base"), omni.get("revision")),
        "earlier run": (recipe.get("start"), None),
    }
    found = {name: both for name, both in named.items() if both[0]}
    if not found:
        yield "- nothing: encoders and language model were trained by the same recipe"
    for name, (source, revision) in found.items():
        yield f"- {name}: {_known(str(source), revision)}, frozen"


def _part(base: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    part = base.get(name) or {}
    return part.get("source"), part.get("revision")


def _on_hub(name: str) -> bool:
    return bool(HUB.fullmatch(name)) and not Path(name).is_dir()


def _known(source: str, revision: Any) -> str:
    if not _on_hub(source):
        return f"`{Path(source).name}`, a local directory"
    return f"`{source}`, {f'revision `{revision}`' if revision else 'revision not pinned'}"


# -- data and training -------------------------------------------------------------------------


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    sets = data.get("sets") or []
    if not sets:
        yield "Not recorded."
    for one in sets:
        known = {key: value for key, value in one.items() if key != "name"}
        yield f"- **{one.get('name', 'unnamed')}**: {_settings(known) or 'nothing recorded'}"
    yield ""
    yield f"License of the data: {data.get('license') or 'not known'}."


def _training(recipe: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
    parameters = data.get("parameters") or {}
    for name, count in parameters.items():
        yield f"- trained: {name}, {count:,} parameters"
    for name in ("bridge", "lora"):
        if recipe.get(name):
            yield f"- {name}: {_settings(recipe[name])}"
    for name in STAGES:
        if recipe.get(name):
            yield f"- stage `{name}`: {_settings(recipe[name])}"
    quantized = _base(recipe).get("quantize")
    if quantized not in (None, "none"):
        yield f"- frozen weights of the language model were stored as {quantized} while it learned"


def _settings(values: Mapping[str, Any]) -> str:
    """What is set, in one line; what is switched off is left out."""
    said = []
    for key, value in values.items():
        if value in (None, "", 0, [], (), {}) or value is False:
            continue
        if isinstance(value, Mapping):
            said.append(f"{key} ({_settings(value)})")
        elif isinstance(value, list | tuple):
            said.append(f"{key} {', '.join(map(str, value))}")
        elif value is True:
            said.append(key)
        else:
            said.append(f"{key} {_named(key, value)}")
    return "; ".join(said)


def _named(key: str, value: Any) -> Any:
    return Path(value).name if key in PATHS and isinstance(value, str) else value


# -- results -----------------------------------------------------------------------------------


def _results(results: Mapping[str, Any] | None) -> Iterator[str]:
    found = list(_estimates(results)) if results else []
    if not found:
        yield "**Not evaluated.**"
        return
    yield "Percent right, with 95 % intervals where there are any. All figures: `results.json`."
    yield ""
    yield "| | right | low | high | n |"
    yield "|---|---|---|---|---|"
    for name, one in found:
        values = (_percent(one.get(key)) for key in ("accuracy", "low", "high"))
        yield f"| {name} | {' | '.join(values)} | {one['n']} |"
    floor = results.get("floor") if results else None
    if isinstance(floor, Mapping) and floor.get("overall") is not None:
        yield ""
        yield f"Blind floor (no sound, no picture): {_percent(floor['overall'])}."


def _estimates(block: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Blocks that hold an accuracy and of how many, with the way to them."""
    if block.get("accuracy") is not None and block.get("n"):
        yield name or "all", block
    for key, value in block.items():
        if isinstance(value, Mapping) and key not in ("templates", "confusion"):
            yield from _estimates(value, f"{name} · {key}" if name else str(key))


def _percent(share: Any) -> str:
    return "–" if share is None else f"{100 * share:.2f}"


# -- limits and use ----------------------------------------------------------------------------


def _limits(
    recipe: Mapping[str, Any], results: Mapping[str, Any] | None, data: Mapping[str, Any]
) -> Iterator[str]:
    world = recipe.get("world")
    what = f"clips of {world}" if world else "the clips named under Data"
    yield f"- It learned from {what} and from no others; what it says about others is not known."
    if data.get("longest_s"):
        yield f"- Clips beyond {data['longest_s']:g} s were never seen in training."
    if not results:
        yield "- How often it is right was not measured."
    if recipe.get("prefer") is None:
        yield "- No preferences were learned: nothing kept it from vague answers but its rows."
    yield "- Its evidence is where its attention was, not proof."


def _use(recipe: Mapping[str, Any]) -> Iterator[str]:
    llm = _base(recipe).get("llm", "")
    yield "```"
    yield 'avqa ask FILE "How many instruments are sounding?" --model DIR'
    yield "```"
    yield ""
    yield "The adapter alone, for text, in plain peft (and in vLLM as a LoRA module):"
    yield ""
    yield "```python"
    yield "from peft import PeftModel"
    yield "from transformers import AutoModelForCausalLM"
    yield ""
    shown = llm if _on_hub(llm) else "DIR/llm"
    yield f'base = AutoModelForCausalLM.from_pretrained("{shown}")'
    yield 'model = PeftModel.from_pretrained(base, "DIR")'
    yield "```"
