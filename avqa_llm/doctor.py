"""`avqa doctor`: what is installed, what it runs on, and whether `avqa ask` would work.

The findings are one plain dict (`examine`), printed as a table for people or as JSON for
programs. Versions come from package metadata, so that a broken package is reported, not hit;
only PyAV (for its FFmpeg) and torch (for its GPUs, last) are imported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import struct
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 10)
GIB = 2**30
# Vector units that decide how fast the model runs on a CPU.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "amx_tile")


@dataclass(frozen=True, kw_only=True)
class Need:
    """A package, what it is for, and the extra that brings it (None: always needed)."""

    package: str
    purpose: str
    extra: str | None = None


NEEDS = (
    Need(package="torch", purpose="the model"),
    Need(package="transformers", purpose="LLM and frozen encoders"),
    Need(package="accelerate", purpose="training on one or many processors"),
    Need(package="peft", purpose="LoRA adapters"),
    Need(package="safetensors", purpose="weights and cached features"),
    Need(package="tokenizers", purpose="the LLM's vocabulary"),
    Need(package="numpy", purpose="frames and sound"),
    Need(package="av", purpose="decoding and encoding media"),
    Need(package="pyyaml", purpose="recipes"),
    Need(package="pydantic", purpose="instruction records"),
    Need(package="tqdm", purpose="progress bars"),
    Need(package="opencv-python-headless", purpose="resizing and drawing frames"),
    Need(package="scipy", purpose="resampling and acoustic measures"),
    Need(package="bitsandbytes", purpose="QLoRA", extra="train"),
    Need(package="tensorboard", purpose="curves of a training run", extra="train"),
    Need(package="ray", purpose="features on many machines", extra="ray"),
    Need(package="decord2", purpose="--reader decord", extra="decord"),
    Need(package="faster-whisper", purpose="transcripts", extra="speech"),
    Need(package="gradio", purpose="the chat page", extra="app"),
    Need(package="openai", purpose="the chat page with models behind a server", extra="app"),
    Need(package="langchain", purpose="the agent", extra="agent"),
    Need(package="langchain-openai", purpose="the agent", extra="agent"),
    Need(package="fastapi", purpose="avqa serve", extra="serve"),
    Need(package="uvicorn", purpose="avqa serve", extra="serve"),
    Need(package="python-multipart", purpose="uploads of avqa serve", extra="serve"),
    Need(package="prometheus-client", purpose="/metrics of avqa serve", extra="serve"),
    Need(package="matplotlib", purpose="figures of reports", extra="eval"),
)


def run(args: argparse.Namespace) -> int:
    """Print the findings; return 0 if `avqa ask` would work, 1 if not. Reads `args.json`."""
    findings = examine()
    print(json.dumps(findings, indent=2) if args.json else as_table(findings))
    return 0 if findings["ok"] else 1


def examine(adapters: Path = CHECKOUT / "adapters") -> dict[str, Any]:
    """Return everything `avqa doctor` knows, as JSON-ready values.

    `ok` is true where `avqa ask` would work with the embedded model of the `adapters` folder,
    and `to_do` holds the sentences that say what to do: for what stands in its way if `ok` is
    false, else empty.
    """
    packages = [look_up(need) for need in NEEDS]
    findings: dict[str, Any] = {
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "platform": platform.platform(),
        },
        "packages": packages,
        "model": look_at_model(adapters / "tiny"),
        "cache": look_at_caches(),
        "ffmpeg": look_at_ffmpeg(),
        "devices": look_at_devices(),
    }
    findings["to_do"] = what_to_do(findings)
    findings["ok"] = not findings["to_do"]
    return findings


def look_up(need: Need) -> dict[str, Any]:
    """Return the package's row; `version` is None and `install` a command where it is missing."""
    try:
        found = version(need.package)
    except PackageNotFoundError:
        found = None
    return {
        "name": need.package,
        "version": found,
        "purpose": need.purpose,
        "extra": need.extra,
        "install": None if found else install_command(need.extra),
    }


def install_command(extra: str | None) -> str:
    """Return the pip command, to be given in the checkout, that brings the base or one extra."""
    what = f"'.[{extra}]'" if extra else "."
    return f"pip install -c requirements.txt -e {what}"


def look_at_ffmpeg() -> dict[str, Any]:
    """Return the versions of the FFmpeg libraries inside PyAV, or `error`: why PyAV won't load."""
    try:
        import av
    except (ImportError, OSError) as error:
        return {"error": str(error)}
    return {name: ".".join(map(str, parts)) for name, parts in av.library_versions.items()}


def look_at_model(folder: Path) -> dict[str, Any]:
    """Return path, file sizes in bytes, and `problem` (None if the weights are whole)."""
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    weights = [name for name in files if name.endswith(".safetensors")]
    damaged = [name for name in weights if not is_whole(folder / name)]
    problem = None
    if not weights:
        problem = f"no weights (*.safetensors) in {folder}"
    elif damaged:
        problem = f"cut short or replaced by a pointer: {', '.join(damaged)} in {folder}"
    return {
        "preset": "tiny",
        "path": str(folder),
        "files": files,
        "bytes": sum(files.values()),
        "problem": problem,
    }


def is_whole(weights: Path) -> bool:
    """Return whether a safetensors file is as long as its own header says.

    The format is an 8-byte little-endian header length, a JSON header with the byte range of
    each tensor, and the tensors. A stopped download or a Git LFS pointer fails.
    """
    size = weights.stat().st_size
    with weights.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > size - 8:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    return bool(8 + length + end == size)


def look_at_caches() -> dict[str, Any]:
    """Return the folder of weights from the hub, and whether the hub may be asked at all."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    hub = os.environ.get("HF_HUB_CACHE") or Path(home) / "hub"
    return {"hub": str(hub), "hub_present": Path(hub).is_dir(), "hub_offline": offline}


def look_at_devices() -> dict[str, Any]:
    """Return usable CPU cores, vector units, memory in GiB, and GPUs as torch sees them.

    `gpus` is empty and `torch_error` a message where torch is missing or does not load.
    """
    devices: dict[str, Any] = {
        "cpu_cores": usable_cores(),
        "cpu_flags": cpu_flags(Path("/proc/cpuinfo")),
        "memory_gib": memory_gib(),
        "gpus": [],
        "torch_error": None,
    }
    try:
        import torch
    except (ImportError, OSError) as error:
        devices["torch_error"] = str(error)
        return devices
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        memory = round(gpu.total_memory / GIB, 1)
        devices["gpus"].append({"name": gpu.name, "memory_gib": memory})
    return devices


def usable_cores() -> int:
    """Return the cores this process may use, which in a container is not what the machine has."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone has it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags(cpuinfo: Path) -> list[str]:
    """Return those of CPU_FLAGS that a Linux `/proc/cpuinfo` lists; empty where it is absent."""
    if not cpuinfo.is_file():
        return []
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    return [flag for flag in CPU_FLAGS if flag in present]


def memory_gib() -> float | None:
    """Return the physical memory in GiB, or None where the system does not tell."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, 1)


def what_to_do(findings: dict[str, Any]) -> list[str]:
    """Return one sentence for each thing that stands between the user and an answer."""
    to_do = []
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        to_do.append(f"Python is {platform.python_version()}; use {wanted} or later.")
    rows = findings["packages"]
    missing = [row["name"] for row in rows if not row["version"] and not row["extra"]]
    if missing:
        names = ", ".join(missing)
        to_do.append(f"Not installed: {names}. In the checkout: {install_command(None)}")
    for package, error in (
        ("av", findings["ffmpeg"].get("error")),
        ("torch", findings["devices"]["torch_error"]),
    ):
        if error and package not in missing:
            to_do.append(
                f"{package} is installed but does not load ({error}). "
                f"Reinstall it: pip install --force-reinstall --no-deps {package}"
            )
    if findings["model"]["problem"]:
        to_do.append(
            f"The embedded model: {findings['model']['problem']}. Clone again, or train it:"
            " avqa train adapters/recipes/tiny.yaml"
        )
    return to_do


def as_table(findings: dict[str, Any]) -> str:
    """Return the findings as lines for a person."""
    python, model, cache = (findings[key] for key in ("python", "model", "cache"))
    devices, ffmpeg = findings["devices"], findings["ffmpeg"]
    lines = [f"Python {python['version']}  {python['executable']}", python["platform"], ""]
    lines += [package_line(row) for row in findings["packages"]]
    libraries = ", ".join(f"{name} {value}" for name, value in sorted(ffmpeg.items()))
    lines += ["", f"FFmpeg   {libraries}"]
    flags = " ".join(devices["cpu_flags"]) or "vector units unknown"
    memory = "unknown" if devices["memory_gib"] is None else f"{devices['memory_gib']} GiB"
    lines += [f"CPU      {devices['cpu_cores']} cores, {flags}", f"Memory   {memory}"]
    gpus = [f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in devices["gpus"]]
    lines += [f"GPU      {', '.join(gpus) or 'none'}"]
    contents = f"{len(model['files'])} files, {model['bytes'] / 2**20:.1f} MiB"
    lines += [f"Model    {model['preset']}: {model['path']} ({contents})"]
    reach = "offline (HF_HUB_OFFLINE)" if cache["hub_offline"] else "online"
    empty = "" if cache["hub_present"] else ", nothing there yet"
    lines += [f"Hub      {reach}; weights in {cache['hub']}{empty}", ""]
    return "\n".join(lines + (findings["to_do"] or ["Ready: avqa ask FILE QUESTION"]))


def package_line(row: dict[str, Any]) -> str:
    """Return one package as a line: name, version or how to get it, purpose."""
    state = row["version"] or ("missing" if row["extra"] is None else "-")
    return f"{row['name']:<24}{state:<16}{row['purpose']:<32}{row['install'] or ''}".rstrip()
