"""Compile requirements.txt from the ranges of pyproject.toml: `make requirements`.

pip's own resolver runs once for each Python that is found here. The reference is resolved
first, freely; the others may take the same version or, where that one does not exist for
them, an older one, which becomes a second line with a `python_version` marker.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "3.11"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Held below the newest release: the torch of vLLM 0.32, so that both environments compute alike.
HELD = "torch==2.13.0"
# What a CUDA build of torch brings along; a CPU build has none of it, so it is not pinned here.
BROUGHT_BY_TORCH = re.compile(r"nvidia-|cuda-|triton$")
HEADER = f"""\
# The tested versions of everything in pyproject.toml, every extra included.
# A file of constraints: it holds versions still and installs nothing that was not asked for.
#     pip install -c requirements.txt -e .              what `avqa` needs
#     pip install -c requirements.txt -e '.[dev]'       what `make test` does
#     pip install -c requirements.txt -e '.[all]'       with every extra
# Compiled by `make requirements` on Linux x86-64, for Python {REFERENCE} and, by marker, for
# {PYTHONS[0]} to {PYTHONS[-1]}. To change it: edit a range in pyproject.toml and compile again.
# torch carries no +cpu or +cu suffix: pip's index decides which build it is.
"""


def resolve(python: str, constraints: list[str], work: Path) -> dict[str, str]:
    """Return {package: version} of every extra together, as pip resolves them for `python`."""
    venv, report, held = (work / f"{python}{suffix}" for suffix in ("", ".json", ".txt"))
    held.write_text("\n".join(constraints))
    subprocess.run([f"python{python}", "-m", "venv", str(venv)], check=True)
    install = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--upgrade", "pip"], check=True)
    options = ["--dry-run", "--report", str(report), "--constraint", str(held)]
    subprocess.run([*install, *options, f"{ROOT}[all]", HELD], check=True)
    found = {}
    for item in json.loads(report.read_text())["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        if name != "avqa-llm" and not BROUGHT_BY_TORCH.match(name):
            found[name] = item["metadata"]["version"].partition("+")[0]
    return found


def marked_pins(name: str, versions: list[str | None]) -> list[str]:
    """Return the lines of one package from its version for each of PYTHONS, None where unneeded."""
    lines = []
    runs = [list(run) for _, run in groupby(range(len(PYTHONS)), key=lambda i: versions[i])]
    for run in runs:
        version, bounds = versions[run[0]], []
        if run[0] > 0:
            bounds.append(f'python_version >= "{PYTHONS[run[0]]}"')
        if run[-1] < len(PYTHONS) - 1:
            bounds.append(f'python_version < "{PYTHONS[run[-1] + 1]}"')
        if version is not None:
            lines.append(f"{name}=={version}" + (f" ; {' and '.join(bounds)}" if bounds else ""))
    return lines


def main() -> None:
    """Resolve for each Python and write requirements.txt."""
    missing = [python for python in PYTHONS if shutil.which(f"python{python}") is None]
    if missing:
        raise SystemExit(f"these must be on PATH to compile the pins: {missing} (pyenv has them)")
    with tempfile.TemporaryDirectory() as folder:
        found = {REFERENCE: resolve(REFERENCE, [], Path(folder))}
        at_most = [f"{name}<={version}" for name, version in found[REFERENCE].items()]
        for python in PYTHONS:
            if python != REFERENCE:
                print(f"resolving for Python {python}", flush=True)
                found[python] = resolve(python, at_most, Path(folder))
    names = sorted(set().union(*found.values()))
    lines = [
        line
        for name in names
        for line in marked_pins(name, [found[python].get(name) for python in PYTHONS])
    ]
    (ROOT / "requirements.txt").write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
