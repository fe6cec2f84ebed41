"""The adapter in stock vLLM: the same words as with transformers and peft, token for token.

Needs an environment of its own, with vLLM (requirements-serve.txt says how), and runs if
AVQA_VLLM_PYTHON names its interpreter. A server is started on the loopback, and stopped.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avqa_llm.exporting import export
from avqa_llm.presets import PRESETS
from avqa_llm.serving.vllm_command import SITE, TARGETS

PYTHON = os.environ.get("AVQA_VLLM_PYTHON")
pytestmark = [
    pytest.mark.skipif(
        not PYTHON,
        reason="set AVQA_VLLM_PYTHON to the interpreter of an environment with vLLM, made as "
        "requirements-serve.txt says",
    ),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]
TINY = PRESETS["tiny"]
PROMPTS = (
    "Events: piano l1 s0 e14 l9",
    "Question: How many violins are in the video? Answer:",
    "Is the flute louder than the drum?",
    "Sound: Picture: Events: cello",
)
STARTS_WITHIN_S = 600
NEW = 24


def serve(folder: Path, log: Path, *more: str) -> tuple[subprocess.Popen[bytes], str]:
    """A server for a checkpoint, once it answers; and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enforce-eager", "--max-model-len", "256", "--dtype", "float32", *more]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", **os.environ}
    environment.setdefault("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", "1800")  # it compiles first
    environment["PYTHONPATH"] = str(SITE)  # without it, processors with AMX end the server
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    end = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(1)
        else:
            return process, f"http://127.0.0.1:{port}"
    stop(process)
    raise AssertionError(f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded model's base with its adapter as a LoRA module."""
    more = ["--enable-lora", "--max-lora-rank", "16", "--lora-modules", f"av={TINY}"]
    more += ["--lora-target-modules", *TARGETS]
    process, address = serve(TINY / "llm", tmp_path_factory.mktemp("log") / "log", *more)
    yield address
    stop(process)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The exported checkpoint, served without any adapter."""
    out = tmp_path_factory.mktemp("merged") / "out"
    export("tiny", out, merge=True, dtype="float32")
    process, address = serve(out / "llm", out.parent / "log")
    yield out / "llm", address
    stop(process)


def asked(address: str, model: str, ids: list[int]) -> list[int]:
    """Ids that the server writes after `ids`, one request at a time: on a processor, rows of one
    batch would all get the adapter (https://github.com/vllm-project/vllm/pull/48421)."""
    body: dict[str, Any] = {"model": model, "prompt": ids, "max_tokens": NEW, "temperature": 0}
    data = json.dumps(body | {"return_token_ids": True}).encode()
    request = urllib.request.Request(
        f"{address}/v1/completions", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        return list(json.load(reply)["choices"][0]["token_ids"])


def written(model: Any, ids: list[int]) -> list[int]:
    """Ids that transformers writes."""
    given = torch.tensor([ids])
    out = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=NEW, do_sample=False
    )
    return list(out[0, len(ids) :].tolist())


def prompts(folder: Path) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [
        [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        for text in PROMPTS
    ]


def base_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_base_and_adapter_write_the_same_ids_as_transformers_and_peft(server: str) -> None:
    from peft import PeftModel

    base = base_model(TINY / "llm")
    plain = [written(base, ids) for ids in prompts(TINY / "llm")]
    adapted = PeftModel.from_pretrained(base, str(TINY)).eval()
    tuned = [written(adapted, ids) for ids in prompts(TINY / "llm")]
    assert plain != tuned, "the adapter changes what is written"
    assert [asked(server, "base", ids) for ids in prompts(TINY / "llm")] == plain
    assert [asked(server, "av", ids) for ids in prompts(TINY / "llm")] == tuned


def test_the_merged_checkpoint_writes_the_same_ids_as_the_adapter(
    merged: tuple[Path, str],
) -> None:
    from peft import PeftModel

    folder, address = merged
    adapted = PeftModel.from_pretrained(base_model(TINY / "llm"), str(TINY)).eval()
    tuned = [written(adapted, ids) for ids in prompts(folder)]
    assert [asked(address, "base", ids) for ids in prompts(folder)] == tuned
