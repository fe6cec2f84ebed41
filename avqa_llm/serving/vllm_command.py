"""The command line of a vLLM server, from a model directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avqa_llm.errors import AVQAError, CheckpointError
from avqa_llm.llm import ADAPTER_CONFIG
from avqa_llm.model import located, read_config
from avqa_llm.serving.vllm_client import WANTED

SITE = Path(__file__).with_name("vllm_site")
"""What our servers have beside stock vLLM."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that `--max-lora-rank` takes."""
# vLLM names fused layers its own way. Without the list it also wraps the embeddings, and prompt
# embeddings then fail (https://github.com/vllm-project/vllm/issues/51122).
TARGETS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    *("qkv_proj", "gate_up_proj"),
)
LONGEST = 8192
"""Tokens of a prompt with its answer, where the model could take more: memory is set aside."""
SMALL_BYTES = 4 << 30
"""Weights up to here are served in float32 unless told otherwise, as they are offline."""
OURS = ("--host", "--port", "--uds", "--api-key", "--middleware")
"""Options that nobody else may set: the server would be open to others."""
ADAPTERS_AT_ONCE, ADAPTERS_KEPT = 4, 32
"""LoRA adapters in one batch, and in memory."""


@dataclass(frozen=True, kw_only=True)
class VLLMSettings:
    """How vLLM is started."""

    base: str
    """Directory or hub name of the language model."""
    revision: str | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapters (model directories) that are there from the start, by their names."""
    base_name: str = "base"
    """The name of the language model without an adapter."""
    python: Path | None = None
    """Interpreter with vLLM; None: where `vllm_env.find_python` finds one."""
    port: int = 0
    """0: a free one."""
    dtype: str | None = None
    """Of weights and sums; None: float32 on a processor and for small models, for then answers
    are those of `LocalEngine`; else what the checkpoint has."""
    max_model_len: int | None = None
    """Tokens; None: what the model can, at most `LONGEST`."""
    max_lora_rank: int = 16
    """Adapters that are added later may have this rank, or that of the largest here."""
    lora: bool = True
    """Whether adapters can be there at all."""
    native: bool = False
    """An omni model that vLLM serves with its own inputs: no prompt embeddings, no LoRA."""
    more: tuple[str, ...] = ()
    """Further options of vLLM, such as `--tensor-parallel-size 2`; they come last."""
    log: Path | None = None
    """None: in the user's cache folder."""
    starts_within_s: float = 900.0
    """From the start to the first answers, in seconds."""

    @classmethod
    def for_model(cls, folder: Path, *, name: str, **how: Any) -> VLLMSettings:
        """For a model directory of ours, whose adapter, if it has one, is served as `name`.

        Raises:
            CheckpointError: it is none.
        """
        config = read_config(folder)
        if config.lora.rank:
            how = {"adapters": {name: folder}, **how}
        else:
            how = {"base_name": name, **how}
        base = located(config.llm, folder)
        return cls(base=base, revision=config.llm_revision, **how)


def command(settings: VLLMSettings, *, python: Path, port: int, cpu: bool) -> list[str]:
    """What is run.

    Raises:
        CheckpointError: an adapter's settings cannot be read, or its rank is beyond vLLM's.
        AVQAError: an option that is not for others to set.
    """
    for option in settings.more:
        if option.split("=")[0] in OURS:
            raise AVQAError(f"{option}: vLLM stays on the loopback, behind a key; leave it out")
    base = str(Path(settings.base).resolve()) if Path(settings.base).is_dir() else settings.base
    line = [str(python), str(SITE / "avqa_vllm.py"), "--model", base]
    if settings.revision:
        line += ["--revision", settings.revision]
    line += ["--served-model-name", settings.base_name, "--host", "127.0.0.1", "--port", str(port)]
    line += ["--middleware", "avqa_vllm.Guard", "--disable-uvicorn-access-log"]
    line += ["--generation-config", "vllm", "--max-logprobs", str(WANTED)]
    line += ["--dtype", settings.dtype or _dtype(settings.base, cpu=cpu)]
    line += ["--max-model-len", str(settings.max_model_len or _length(settings.base))]
    if cpu:
        line.append("--enforce-eager")  # compiling takes minutes there, and gains little
    if not settings.native:
        line.append("--enable-prompt-embeds")
        if settings.lora:
            line += _lora(settings)
    return [*line, *settings.more]


def environment(settings: VLLMSettings, *, key: str, cpu: bool) -> dict[str, str]:
    """Its variables: ours without those that would lead it to our packages."""
    ours = ("PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "VIRTUAL_ENV")
    found = {name: value for name, value in os.environ.items() if name not in ours}
    if "VLLM_PLUGINS" in found:  # the only ones that are loaded
        found["VLLM_PLUGINS"] += ",avqa_vllm"
    found |= {
        "PYTHONPATH": str(SITE),
        "PYTHONSAFEPATH": "1",  # not what lies in the current folder
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if cpu:
        small = _bytes(settings.base) <= SMALL_BYTES // 8
        found.setdefault("VLLM_CPU_KVCACHE_SPACE", "1" if small else "4")  # GiB
        # The first step compiles; on a busy machine beyond the 300 s after which vLLM ends itself.
        found.setdefault("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", "1800")
    return found


def hidden_size(base: str) -> int:
    """The width of a language model."""
    return int(_config(base).hidden_size)


def rank_of(folder: Path) -> int:
    """The rank of an adapter. Raises CheckpointError."""
    row = _adapter(folder)
    return max([int(row.get("r", 0)), *map(int, (row.get("rank_pattern") or {}).values())])


def _lora(settings: VLLMSettings) -> list[str]:
    ranks = {name: rank_of(folder) for name, folder in settings.adapters.items()}
    largest = max([settings.max_lora_rank, *ranks.values()])
    if largest > RANKS[-1]:
        raise CheckpointError(
            f"LoRA rank {largest}: vLLM takes at most {RANKS[-1]}; merge the adapter with"
            " `avqa export DIR --out OUT --merge`"
        )
    targets = dict.fromkeys(TARGETS)
    for folder in settings.adapters.values():
        targets |= dict.fromkeys(_adapter(folder).get("target_modules") or ())
    line = ["--enable-lora", "--max-lora-rank", str(next(r for r in RANKS if r >= largest))]
    line += ["--max-loras", str(ADAPTERS_AT_ONCE), "--max-cpu-loras", str(ADAPTERS_KEPT)]
    line += ["--lora-target-modules", *targets]
    if settings.adapters:
        line += ["--lora-modules"]
        line += [f"{name}={folder.resolve()}" for name, folder in settings.adapters.items()]
    return line


def _adapter(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        row = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): there is no adapter") from error
    if not isinstance(row, dict):
        raise CheckpointError(f"{path} holds a {type(row).__name__}, not an object")
    return row


def _dtype(base: str, *, cpu: bool) -> str:
    small = 0 < _bytes(base) <= SMALL_BYTES
    return "float32" if cpu or small else "auto"


def _bytes(base: str) -> int:
    """Of the weights of a directory; 0 for a hub name."""
    return sum(path.stat().st_size for path in Path(base).glob("*.safetensors"))


def _length(base: str) -> int:
    most = getattr(_config(base), "max_position_embeddings", None)
    return min(int(most or LONGEST), LONGEST)


def _config(base: str) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"language model {base!r} cannot be read: {error}") from error
    return config.get_text_config()
