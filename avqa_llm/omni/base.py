"""Loading an omni base: the thinker alone, its tokenizer, its preparation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avqa_llm.errors import CheckpointError
from avqa_llm.model import located
from avqa_llm.omni.config import OmniConfig
from avqa_llm.omni.families import Family, find_family
from avqa_llm.omni.inputs import Preparation, read_settings
from avqa_llm.quiet import quiet_loading

TOWERS = ("lm_head", "model.audio_tower", "model.visual")
"""What is never stored in few bits: names count from the front."""


def load_base(
    config: OmniConfig, folder: Path, *, device: str | None = None
) -> tuple[Any, dict[str, Any]]:
    """The frozen thinker, and the other arguments of `OmniModel`.

    A checkpoint of a whole model (thinker, talker, vocoder) is fine: transformers reads the
    weights below `thinker.` and leaves the others where they are.

    Args:
        config: names the base.
        folder: where a base that is a relative directory is looked for first.
        device: where it goes; None: the processor.

    Raises:
        CheckpointError: it is neither a directory nor to be had from the hub, no omni model, or
            weights are missing.
    """
    import transformers as t
    from safetensors import SafetensorError

    source = located(config.base, folder)
    try:
        row, _ = t.PreTrainedConfig.get_config_dict(source, revision=config.revision)
        family = find_family(str(row.get("model_type")), source)
        tokenizer = t.AutoTokenizer.from_pretrained(
            source, revision=config.revision, trust_remote_code=False
        )
        settings = read_settings(source, config.revision)
        thinker = _weights(config, source, family, device)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"omni base {source!r} cannot be loaded: {error}. Name a directory, or a hub name"
            " while the hub can be reached"
        ) from error
    preparation = Preparation(config, family, thinker.config, settings)
    parts = {"tokenizer": tokenizer, "family": family, "preparation": preparation}
    return thinker.requires_grad_(False), parts


def _weights(config: OmniConfig, source: str, family: Family, device: str | None) -> Any:
    """The thinker. Raises CheckpointError where weights are missing."""
    import transformers as t

    with quiet_loading(source):
        thinker, report = getattr(t, family.model).from_pretrained(
            source,
            revision=config.revision,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **_options(config, device),
        )
    # transformers fills what is missing with random numbers and goes on.
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(f"{source} lacks {len(missing)} weights, such as {missing[0]}")
    return thinker


def _options(config: OmniConfig, device: str | None) -> dict[str, Any]:
    how: dict[str, Any] = {"dtype": config.dtype}
    if device is not None:
        how["device_map"] = {"": device}
    if config.quantize is None:
        return how
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    from avqa_llm.llm import QUANTIZED

    if find_spec("bitsandbytes") is None:
        raise CheckpointError(
            f"quantize {config.quantize!r} needs bitsandbytes: pip install 'avqa-llm[train]'"
        )
    stored = {**QUANTIZED[config.quantize], "llm_int8_skip_modules": list(TOWERS)}
    return {**how, "quantization_config": BitsAndBytesConfig(**stored)}
