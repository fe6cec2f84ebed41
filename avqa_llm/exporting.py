"""`avqa export DIR --out OUT [--merge]`: a model directory in the shape that other software reads.

Without `--merge`: the adapter is plain peft, with a base that peft finds by itself. With it: LoRA
is merged into the weights, and `OUT/llm` is a plain checkpoint of transformers and vLLM. It has a
folder of its own because servers read every safetensors file of theirs, and the bridge is one.
Both can be asked as before: `avqa ask FILE QUESTION --model OUT`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from avqa_llm.errors import CheckpointError

LLM, PARTS = "llm", ("picture", "sound")
BESIDE = ("recipe.yaml", "results.json")
"""Files that go along where they are."""
CARD = "README.md"
BASES = ("float", "dequantized")
MERGED_NOTE = """
## Exported

LoRA is merged into the weights of `llm/`, which is a plain checkpoint: `AutoModelForCausalLM`,
`vllm serve llm`. With sound and picture: `avqa ask FILE QUESTION --model .`
"""


def run(args: argparse.Namespace) -> int:
    """The command."""
    export(args.model, args.out, merge=args.merge, dtype=args.dtype, base=args.base)
    print(f"{args.out} can be asked with `avqa ask FILE QUESTION --model {args.out}`")
    if args.merge:
        print(f"its language model alone: `vllm serve {args.out / LLM}`")
    return 0


def export(
    model: str | Path,
    out: Path,
    *,
    merge: bool = False,
    dtype: str | None = None,
    base: str | None = None,
) -> None:
    """Write a model directory anew, whole or not at all.

    Args:
        model: a preset or a model directory.
        out: is made; must not hold anything.
        merge: add the LoRA weights to the language model's, in float32.
        dtype: of merged weights; None: as the base stores them. Of the embedded model, on four
            texts, the next word's probabilities moved by at most 1e-6 with float32, 0.0009 with
            float16, 0.0076 with bfloat16.
        base: for an adapter that was trained over quantised weights: merge it into the base's
            own `float` weights, as `avqa ask` does, or into `dequantized` ones, as in training.

    Raises:
        CheckpointError: `out` is not empty; the directory is incomplete or that of an omni model;
            nothing to merge, or no way to merge that was not chosen.
    """
    from avqa_llm.model import config_text, read_config
    from avqa_llm.presets import find_model

    folder = find_model(model)
    _refuse_omni(folder)
    if (dtype or base) and not merge:
        raise CheckpointError("dtype and base are about merged weights: say --merge too")
    config = read_config(folder)
    with _written_whole(out) as aside:
        if merge:
            config = _write_merged(config, folder, aside, dtype, base)
        else:
            config = _write_adapter(config, folder, aside, out)
        config = _write_parts(config, folder, aside)
        (aside / "avqa.json").write_text(config_text(config.to_json()), encoding="utf-8")
        _write_card(folder, aside, merged=merge)


# -- what is refused ---------------------------------------------------------------------------


def _refuse_omni(folder: Path) -> None:
    try:
        row = json.loads((folder / "avqa.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # whoever reads it next says what is wrong
    if isinstance(row, dict) and row.get("kind") == "omni":
        raise CheckpointError(
            f"{folder} is an omni model: it has no bridge, and is a plain peft adapter of"
            f" {row.get('base')!r} as it is. To merge it, load that model's thinker with"
            f" transformers, then PeftModel.from_pretrained(thinker, {str(folder)!r})"
            ".merge_and_unload()"
        )


@contextmanager
def _written_whole(out: Path) -> Iterator[Path]:
    """A folder beside `out`, which takes its place at the end; removed if that is not reached."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise CheckpointError(f"{out} is not empty: name a directory that does not exist yet")
    aside = out.absolute().with_name(f".{out.name}.writing-{os.getpid()}")
    aside.mkdir(parents=True)
    try:
        yield aside
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


# -- the adapter as it is ----------------------------------------------------------------------


def _write_adapter(config: Any, folder: Path, aside: Path, out: Path) -> Any:
    """Copy the adapter, and write into it where its base is; the configuration that fits."""
    from avqa_llm.llm import ADAPTER, ADAPTER_CONFIG

    if config.lora.rank == 0:
        raise CheckpointError(f"{folder} is merged already: there is no adapter to export")
    for name in (ADAPTER, ADAPTER_CONFIG):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} lacks {name}: the LoRA weights are incomplete")
    shutil.copy2(folder / ADAPTER, aside / ADAPTER)
    llm = _take(config.llm, folder, aside / LLM)
    row = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    # peft looks from where it is called; only a whole path is found from everywhere.
    row["base_model_name_or_path"] = str(out.absolute() / LLM) if llm == LLM else llm
    row["revision"] = config.llm_revision
    (aside / ADAPTER_CONFIG).write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    return replace(config, llm=llm)


def _take(source: str, folder: Path, to: Path) -> str:
    """Copy a part that lies in the model directory; the name under which it is found now."""
    from avqa_llm.model import located

    found = Path(located(source, folder)).expanduser()
    if not found.is_dir():
        return source  # a hub name
    if folder.resolve() in found.resolve().parents:
        shutil.copytree(found, to)
        return to.name
    return str(found.resolve())


# -- merged ------------------------------------------------------------------------------------


def _write_merged(
    config: Any, folder: Path, aside: Path, dtype: str | None, base: str | None
) -> Any:
    """Write the language model with LoRA in its weights; the configuration that names it."""
    import torch
    from transformers import AutoTokenizer

    from avqa_llm.llm import load_adapter
    from avqa_llm.model import located
    from avqa_llm.quiet import quiet_loading

    if config.lora.rank == 0:
        raise CheckpointError(f"{folder} is merged already")
    source = located(config.llm, folder)
    llm = _base(source, config, _trained_over(config, folder), base)
    stored = dtype or _stored_dtype(source, config.llm_revision)
    with quiet_loading(source):
        merged = load_adapter(llm, folder).merge_and_unload(safe_merge=True)
        merged.to(getattr(torch, stored)).save_pretrained(aside / LLM)
    # Loaded anew, for what `load_llm` sets in it is for training.
    tokenizer = AutoTokenizer.from_pretrained(
        source, revision=config.llm_revision, trust_remote_code=False
    )
    tokenizer.save_pretrained(aside / LLM)
    lora = replace(config.lora, rank=0)
    return replace(config, llm=LLM, llm_revision=None, lora=lora)


def _base(source: str, config: Any, trained_over: str | None, base: str | None) -> Any:
    """The language model in float32, as it is to be merged into."""
    from avqa_llm.llm import load_llm

    if base is not None and base not in BASES:
        raise CheckpointError(f"base {base!r}: choose one of {', '.join(BASES)}")
    if trained_over and base is None:
        raise CheckpointError(
            f"this adapter was trained over {trained_over} weights. Choose what it is merged into:"
            f" --base float (the weights of {config.llm}, as `avqa ask` uses them) or"
            " --base dequantized (those weights as they were rounded in training)"
        )
    if not trained_over and base == "dequantized":
        raise CheckpointError("this adapter was not trained over quantised weights: leave out base")
    rounded = trained_over if base == "dequantized" else None
    llm, _ = load_llm(source, config.llm_revision, quantize=rounded)
    if rounded is None and getattr(llm.config, "quantization_config", None):
        raise CheckpointError(
            f"the weights of {config.llm} are stored quantised: merged there, what was learned"
            " would be rounded away. Name the model that they were made from in avqa.json"
        )
    return llm.dequantize().float() if rounded else llm


def _trained_over(config: Any, folder: Path) -> str | None:
    """How the base was quantised in training: the model says it, or the recipe beside it."""
    if (said := getattr(config, "quantize", None)) not in (None, "none"):
        return str(said)
    path = folder / "recipe.yaml"
    if not path.is_file():
        return None
    import yaml

    try:
        row = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no YAML: {error}") from error
    block = row.get("base") if isinstance(row, dict) else None
    said = block.get("quantize") if isinstance(block, dict) else None
    return None if said in (None, "none") else str(said)


def _stored_dtype(source: str, revision: str | None) -> str:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    return str(config.dtype or "float32").removeprefix("torch.")


# -- both --------------------------------------------------------------------------------------


def _write_parts(config: Any, folder: Path, aside: Path) -> Any:
    """Copy the bridge, the encoders that lie beside it, and what is known of the run."""
    from avqa_llm.model import BRIDGE

    if not (folder / BRIDGE).is_file():
        raise CheckpointError(f"{folder} lacks {BRIDGE}: the bridge's weights are missing")
    shutil.copy2(folder / BRIDGE, aside / BRIDGE)
    for name in BESIDE:
        if (folder / name).is_file():
            shutil.copy2(folder / name, aside / name)
    found: dict[str, Any] = {}
    for name in PARTS:
        part = getattr(config, name)
        found[name] = replace(part, source=_take(part.source, folder, aside / name))
    return replace(config, **found)


def _write_card(folder: Path, aside: Path, *, merged: bool) -> None:
    if (folder / CARD).is_file():
        text = (folder / CARD).read_text(encoding="utf-8")
    else:
        text = f"# {folder.resolve().name}\n"
    if merged:
        head, mark, rest = text.partition("library_name: peft\n")
        text = f"{head}{mark.replace('peft', 'transformers')}{rest}{MERGED_NOTE}"
    (aside / CARD).write_text(text, encoding="utf-8")
