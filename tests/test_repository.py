"""The rules of the house, as tests: what may import what, how big a file is, what is banned."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from avqa_llm import doctor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
# Which of our folders each may import; one that is not named here may import no other.
MAY_IMPORT = {
    "instruct_data": {"avqa_llm"},
    "eval": {"avqa_llm", "instruct_data"},
    "app": {"avqa_llm"},
    "bench": {"avqa_llm", "instruct_data", "eval", "app"},
    "tests": {"avqa_llm", "instruct_data", "eval", "app", "bench"},
}
OURS = {"avqa_llm", *MAY_IMPORT}
LONGEST_FILE = 500
LONGEST_README = 60
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".sh", ""}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def ours_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, but for hidden folders and what .gitignore names."""
    lines = (ROOT / ".gitignore").read_text().splitlines()
    ignored = [line.rstrip("/") for line in lines if line and not line.startswith("#")]
    for path in sorted(folder.iterdir()):
        if path.name == ".git" or any(fnmatch(path.name, pattern) for pattern in ignored):
            continue
        if path.is_dir():
            yield from ours_below(path)
        else:
            yield path


FILES = [path.relative_to(ROOT) for path in ours_below(ROOT)]
PYTHON_FILES = [path for path in FILES if path.suffix == ".py"]
TEXT_FILES = [path for path in FILES if path.suffix in TEXT]
READMES = [path for path in FILES if path.name == "README.md"]


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=str)


# --- imports --------------------------------------------------------------------------------


def imports_against_the_arrows(source: str, folder: str) -> set[str]:
    """Return the folders of ours that a file of `folder` imports although it may not."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.partition(".")[0])
    return (imported & OURS) - MAY_IMPORT.get(folder, set()) - {folder}


@each(PYTHON_FILES)
def test_imports_point_one_way(path: Path) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert imports_against_the_arrows(source, path.parts[0]) == set()


def test_an_import_against_the_arrows_is_seen() -> None:
    source = "def late():\n    from instruct_data.bandstand import scene\nimport eval.metrics as m"
    assert imports_against_the_arrows(source, "avqa_llm") == {"instruct_data", "eval"}
    assert imports_against_the_arrows(source, "app") == {"instruct_data", "eval"}
    assert imports_against_the_arrows(source, "bench") == set()
    assert imports_against_the_arrows("from . import eval", "avqa_llm") == set()


# --- banned ---------------------------------------------------------------------------------


def is_true(call: ast.Call, keyword: str) -> bool:
    return any(
        item.arg == keyword and isinstance(item.value, ast.Constant) and item.value.value is True
        for item in call.keywords
    )


def banned_calls(call: ast.Call) -> Iterator[str]:
    """Yield what is wrong with one call: it can run code that came as data."""
    name = ast.unparse(call.func)
    if name in {"eval", "exec"}:
        yield f"{name}() runs text as code"
    if name == "torch.load" and not is_true(call, "weights_only"):
        yield "torch.load without weights_only=True can run code from the file"
    if name in {"yaml.load", "yaml.full_load", "yaml.unsafe_load"}:
        yield f"{name}: use yaml.safe_load"
    if is_true(call, "allow_pickle"):
        yield "allow_pickle=True can run code from the file"
    if is_true(call, "trust_remote_code"):
        yield "trust_remote_code=True runs code from the hub"
    if is_true(call, "shell"):
        yield "shell=True hands file names to a shell"


def banned(source: str) -> list[str]:
    """Return everything in a Python source that can run code that came as data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            found += banned_calls(node)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [
            f"import {name}"
            for name in names
            if name.partition(".")[0] in {"pickle", "cPickle", "cloudpickle", "dill", "joblib"}
        ]
    return found


@each(PYTHON_FILES)
def test_data_cannot_run_code(path: Path) -> None:
    assert banned((ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1 + 1')",
        "torch.load('a.pt')",
        "torch.load('a.pt', weights_only=False)",
        "yaml.load(text)",
        "np.load('a.npy', allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_what_is_banned_is_seen(source: str) -> None:
    assert len(banned(source)) == 1


def test_what_is_allowed_passes() -> None:
    assert banned("model.eval(); torch.load('a.pt', weights_only=True); np.load('a.npy')") == []


# Folders of one person's machine; a path that goes on from a word or a host name is none.
MACHINE_PATH = re.compile(r"(?<![\w.:~/-])(?:/(?:home|Users|root|work|mnt)/\w|[A-Z]:\\\\?Users)")


@each(TEXT_FILES)
def test_no_path_of_the_authors_machine(path: Path) -> None:
    assert MACHINE_PATH.findall((ROOT / path).read_text(encoding="utf-8")) == []


# --- size and READMEs -----------------------------------------------------------------------


@each([path for path in TEXT_FILES if path.suffix])
def test_no_file_is_too_long(path: Path) -> None:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{path} has {lines} lines: it is two files"


@pytest.mark.parametrize(
    "folder",
    sorted({path.parts[0] for path in FILES if len(path.parts) > 1 and path.parts[0][0] != "."}),
)
def test_each_folder_has_a_readme_of_one_screen(folder: str) -> None:
    readme = ROOT / folder / "README.md"
    assert readme.is_file(), f"{folder}/ needs a README.md: its job and its door"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@each(READMES)
def test_make_commands_of_the_readmes_exist(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    named = re.findall(r"(?:^\s*\$? *|`|&& *)make +([a-z][a-z-]*)", text, re.MULTILINE)
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(named) <= set(targets)


# --- recipes and requirements ---------------------------------------------------------------


@each([path for path in FILES if path.parts[0] == "adapters" and path.suffix in {".yaml", ".yml"}])
def test_recipes_are_yaml_mappings(path: Path) -> None:
    assert isinstance(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")), dict)


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def ranges() -> dict[str, list[Requirement]]:
    """Return each extra's requirements but for references to other extras; "" is the base."""
    groups = {"": project()["dependencies"], **project()["optional-dependencies"]}
    parsed = {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}
    return {
        extra: [wanted for wanted in group if wanted.name != project()["name"]]
        for extra, group in parsed.items()
    }


def pins() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("python", PYTHONS)
def test_each_range_holds_exactly_one_pin(python: str) -> None:
    chosen = [
        pin for pin in pins() if not pin.marker or pin.marker.evaluate({"python_version": python})
    ]
    for wanted in [wanted for group in ranges().values() for wanted in group]:
        matching = [pin for pin in chosen if pin.name == wanted.name.lower()]
        assert len(matching) == 1, f"{wanted} has {len(matching)} pins for Python {python}"
        (held,) = matching[0].specifier
        assert held.operator == "=="
        assert wanted.specifier.contains(held.version), f"{matching[0]} is outside {wanted}"


def test_pins_do_not_choose_between_cpu_and_gpu() -> None:
    for pin in pins():
        assert "+" not in str(pin.specifier), f"{pin}: the index chooses the build"
        assert not pin.name.startswith(("nvidia-", "triton")), f"{pin}: torch brings it"


def test_doctor_knows_every_package_a_user_can_ask_for() -> None:
    declared = {
        (wanted.name, extra or None)
        for extra, group in ranges().items()
        if extra != "dev"
        for wanted in group
    }
    assert {(need.package, need.extra) for need in doctor.NEEDS} == declared
