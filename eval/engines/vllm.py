"""A model of ours whose language model runs in a stock vLLM: started for the run, or given."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.engines.local import MODES, Local
from eval.samples import RunError


@dataclass(frozen=True, kw_only=True)
class VLLM(Local):
    """`Local`, but the answers are the server's."""

    server: str = ""
    """Its address, and version where it was started here."""

    @classmethod
    def start(
        cls,
        model: str,
        *,
        mode: str = "rank",
        features: str | None = None,
        base_url: str | None = None,
        key_env: str = "",
    ) -> VLLM:
        """Load encoders and bridge here, and start a vLLM or take the one that is named.

        Args:
            model: a preset or a model directory.
            mode: one of `MODES`.
            features: a folder of `avqa features`.
            base_url: of a vLLM that runs already, with the model's adapter under its own name; it
                needs `--enable-prompt-embeds --max-logprobs 256`. None: one is started.
            key_env: environment variable with that server's key.

        Raises:
            RunError: there is no such mode, or the server has no such model.
            AVQAError: there is no environment with vLLM, or it does not start.
        """
        if mode not in MODES:
            raise RunError(f"mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
        from avqa_llm.devices import prepare_cpu
        from avqa_llm.presets import find_model
        from avqa_llm.remote import VLLMEngine

        prepare_cpu()
        folder = find_model(model)
        name = folder.resolve().name
        if base_url is None:
            client, server = _started(folder, name)
        else:
            key = os.environ.get(key_env, "").strip() if key_env else ""
            client, server = _given(base_url, key, name), base_url
        store = Path(features) if features else None
        engine: Any = VLLMEngine.load(folder, client, name=name, features=store)
        return cls(engine=engine, model=f"vllm:{model}", mode=mode, server=server)

    def describe(self) -> dict[str, Any]:
        """What answers, for the record of a run."""
        return {**super().describe(), "server": self.server}


def _started(folder: Path, name: str) -> tuple[Any, str]:
    from avqa_llm.serving.vllm_process import VLLMProcess, VLLMSettings

    process = VLLMProcess(VLLMSettings.for_model(folder, name=name))
    atexit.register(process.stop)
    process.start()
    return process.client, f"vLLM {process.env.version}"


def _given(base_url: str, key: str, name: str) -> Any:
    from avqa_llm.serving.vllm_client import VLLMClient

    client = VLLMClient(base_url, key=key)
    served = client.models()
    if name not in served:
        raise RunError(
            f"{base_url} serves {', '.join(served)}, not {name}: start it with"
            f" --lora-modules {name}=DIR"
        )
    return client
