"""Language models: loading them, choosing what LoRA changes in them, putting LoRA weights in.

Only configuration, tokenizer and safetensors files are read: no pickle, no code of a checkpoint.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from avqa_llm.errors import CheckpointError, RecipeError
from avqa_llm.quiet import quiet_loading

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
ALL_LINEAR: Literal["all-linear"] = "all-linear"
DTYPES = ("float32", "bfloat16", "float16")
QUANTIZED: dict[str, dict[str, Any]] = {
    # NF4, scales quantised again: Dettmers et al. 2023 (QLoRA), section 3.
    "nf4": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
    },
    # Vector-wise 8 bit with outlier columns apart: Dettmers et al. 2022 (LLM.int8()), section 3.
    "int8": {"load_in_8bit": True},
}
"""How frozen weights can be stored while LoRA is trained, as options of bitsandbytes."""


def load_llm(
    source: str,
    revision: str | None,
    *,
    dtype: str = "float32",
    attention: str = "eager",
    quantize: str | None = None,
    device: str | None = None,
    config: Any = None,
) -> tuple[Any, Any]:
    """Causal language model (frozen by the caller) and tokenizer.

    Args:
        source: a directory or a hub name.
        revision: of a hub name: a commit, so that the weights cannot change behind one's back.
        dtype: of the weights, one of `DTYPES`; of those that stay unquantised, if `quantize`.
        attention: how transformers attends: `eager`, `sdpa`, ...
        quantize: None or a key of `QUANTIZED`. The head and the embeddings are never quantised.
        device: where it goes; None: the processor.
        config: another configuration than its own.

    Returns:
        Both. A tokenizer without a padding token that the embeddings know gets its end token as
        one: for filling only. What is learned is decided by labels, so the end of an answer is
        learned all the same.

    Raises:
        CheckpointError: it is neither a directory nor to be had from the hub; weights are
            missing; it is no text decoder; bitsandbytes is absent; the tokenizer has no end.
    """
    from transformers import AutoTokenizer

    how = _options(dtype, quantize, device) | ({} if config is None else {"config": config})
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=False
        )
        llm, report = _weights(source, revision, attn_implementation=attention, **how)
    # A damaged file surfaces as an error of safetensors, of json, of torch or of transformers.
    except (OSError, ValueError, KeyError, RuntimeError, _safetensor_error()) as error:
        raise CheckpointError(
            f"language model {source!r} cannot be loaded: {error}. Name a directory, or a hub"
            " name while the hub can be reached"
        ) from error
    # transformers fills what is missing with random numbers and goes on.
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"language model {source!r} lacks {len(missing)} weights, such as {missing[0]}"
        )
    if llm.config.get_text_config() is not llm.config:
        raise CheckpointError(
            f"{source!r} is a {llm.config.model_type} model, of which text is one part only: LoRA "
            "on it would not load in vLLM. Name its text-only variant"
        )
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"the tokenizer of {source!r} has no end token: answers cannot end")
    rows = llm.get_input_embeddings().weight.shape[0]
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.eos_token
    if device is not None and quantize is None:
        llm = llm.to(device)
    return llm, tokenizer


def load_words(source: str, revision: str | None, *, dtype: str = "float32") -> tuple[Any, Any]:
    """As `load_llm`, for those who only want its words: of its layers there is but one.

    Raises:
        CheckpointError: as `load_llm`.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        config.num_hidden_layers = 1
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:1]
    except (OSError, ValueError, AttributeError):  # no such config, or an unusual one: as it is
        return load_llm(source, revision, dtype=dtype)
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it would list the layers that are left out
    try:
        return load_llm(source, revision, dtype=dtype, config=config)
    finally:
        logging.set_verbosity(before)


def _options(dtype: str, quantize: str | None, device: str | None) -> dict[str, Any]:
    """What `from_pretrained` is told about the numbers of the weights."""
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    if quantize is None:
        return {"dtype": dtype}
    from importlib.util import find_spec

    if quantize not in QUANTIZED:
        raise CheckpointError(f"quantize {quantize!r}: choose one of {', '.join(QUANTIZED)}")
    if find_spec("bitsandbytes") is None:
        raise CheckpointError(
            f"quantize {quantize!r} needs bitsandbytes: pip install 'avqa-llm[train]'"
        )
    from transformers import BitsAndBytesConfig

    stored = BitsAndBytesConfig(**QUANTIZED[quantize])
    return {"dtype": dtype, "quantization_config": stored, "device_map": {"": device or "cpu"}}


def _weights(source: str, revision: str | None, **how: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    with quiet_loading(source):
        loaded: tuple[Any, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **how,
        )
    return loaded


def _safetensor_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError


def recompute_activations(decoder: Any) -> None:
    """Compute the layers' activations again in the backward pass instead of keeping them."""
    how = {"use_reentrant": False}
    if hasattr(decoder, "activation_checkpointing_enable"):  # since transformers 5.23
        decoder.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:
        decoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)


# -- LoRA --------------------------------------------------------------------------------------


def lora_targets(llm: Any, wanted: Sequence[str] | Literal["all-linear"]) -> list[str]:
    """Names for peft's `target_modules`: linear layers inside the decoder's layers.

    Embeddings and the head are never among them: vLLM refuses LoRA there unless it is told, and
    tied weights would change both.

    Args:
        llm: a causal language model, not yet wrapped by peft.
        wanted: last parts of names, such as `q_proj`; or `all-linear`.

    Returns:
        Last parts of names in the order of the layers.

    Raises:
        RecipeError: a name that no linear layer has (says what there is); layers that are not
            linear (GPT-2's transposed ones), whose LoRA vLLM does not load.
    """
    inside = _linear_names(llm)
    if isinstance(wanted, str) and wanted == ALL_LINEAR:
        return inside
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in inside:
            close = difflib.get_close_matches(name, inside, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise RecipeError(
                f"lora target {name!r}: the layers of this {llm.config.model_type} model have "
                f"{', '.join(inside)}{hint} (`{ALL_LINEAR}` takes all of them)"
            )
    if not names:
        raise RecipeError(f"no lora targets: name some of {', '.join(inside)}, or {ALL_LINEAR!r}")
    return [name for name in inside if name in names]


def _linear_names(llm: Any) -> list[str]:
    from transformers.pytorch_utils import Conv1D

    kind, layers = llm.config.model_type, _layers(llm)
    found: dict[str, None] = {}
    for name, module in layers.named_modules():
        if isinstance(module, Conv1D):
            raise RecipeError(
                f"{kind} models keep their weights in transposed Conv1D layers: vLLM does not load"
                " LoRA on them. Take a Llama, Qwen, Mistral or Phi model"
            )
        if isinstance(module, nn.Linear):  # bitsandbytes' layers are of this kind too
            found[name.rpartition(".")[2]] = None
    own = {id(module) for module in layers.modules()}
    for name, module in llm.named_modules():
        last = name.rpartition(".")[2]
        if last in found and isinstance(module, nn.Linear) and id(module) not in own:
            raise RecipeError(
                f"{kind} models have a layer {name} outside of their {len(layers)} decoder layers"
                f" that is named like one inside: peft would change it too"
            )
    return list(found)


def _layers(llm: Any) -> nn.ModuleList:
    """The decoder's layers."""
    depth = llm.config.num_hidden_layers
    for module in llm.get_decoder().children():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise RecipeError(f"{llm.config.model_type} models have no list of {depth} decoder layers")


class Merged(nn.Module):
    """A causal language model into whose weights LoRA was merged before, in the shape of peft's.

    Gives what `AVQAModel` and the engines ask a peft model for; there is no adapter to switch off.
    """

    def __init__(self, llm: Any) -> None:
        super().__init__()
        self.llm = llm

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model itself."""
        return self.llm(*args, **kwargs)

    def get_base_model(self) -> Any:
        """The model itself."""
        return self.llm

    def get_input_embeddings(self) -> Any:
        """Of the model itself."""
        return self.llm.get_input_embeddings()

    def merge_adapter(self) -> None:
        """Nothing is left to merge."""

    @property
    def peft_config(self) -> dict[str, Any]:
        """Refuse: there is no adapter that could be saved or learned on.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            "the adapter of this model was merged into its weights, there is none to save or to"
            " train on; take the directory that it was exported from"
        )


def load_adapter(base: Any, folder: Path, *, rank: int | None = None) -> Any:
    """The language model with the LoRA weights of a model directory.

    Args:
        base: a causal language model.
        folder: the model directory.
        rank: what `avqa.json` says; 0: LoRA is merged into the weights of `base` already.

    Raises:
        CheckpointError: a file is missing or damaged, or weights are missing or foreign. (peft
            only warns about that and goes on with fresh ones.)
    """
    from peft import PeftModel
    from safetensors import safe_open

    if rank == 0:
        return Merged(base.requires_grad_(False))
    for name in (ADAPTER, ADAPTER_CONFIG):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} lacks {name}: the LoRA weights are incomplete")
    path = folder / ADAPTER
    try:
        llm = PeftModel.from_pretrained(base, str(folder), use_safetensors=True)
        with safe_open(path, "pt") as file:
            found = set(file.keys())
    except Exception as error:  # safetensors, torch and peft each raise their own
        raise CheckpointError(
            f"{folder}: {ADAPTER_CONFIG} and {ADAPTER} do not fit this model: {error}"
        ) from error
    wanted = {key.replace(".default", "") for key in llm.state_dict() if "lora_" in key}
    if odd := sorted(wanted ^ found):
        raise CheckpointError(
            f"{path} does not fit this model: {len(odd)} weights are missing or foreign, such as"
            f" {odd[0]}"
        )
    return llm
