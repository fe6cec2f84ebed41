"""The model card says what is known and nothing else: each of its numbers comes from somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from avqa_llm.training.card import MARK, recipe_hash, write_card

RECIPE: dict[str, Any] = {
    "out": "runs/mine",
    "work": "runs/work",
    "base": {
        "llm": "some/model-4B",
        "llm_revision": "0123abc",
        "picture": {"source": "some/eye", "revision": None},
        "sound": {"source": "models/parts/ear", "revision": None},
        "quantize": "nf4",
    },
    "bridge": {"width": 160, "heads": 5},
    "lora": {"rank": 16, "alpha": 32, "targets": ["q_proj", "v_proj"]},
    "align": None,
    "instruct": {
        "rows": "secret/place/rows.jsonl",
        "grounding": 0.1,
        "naming": 0.0,
        "loop": {"steps": 500, "lr": 0.0015},
    },
}
DATA: dict[str, Any] = {
    "license": "cc-by-4.0",
    "sets": [{"name": "mine", "rows": 60, "clips": 20, "sha256": "ab12", "licenses": {"own": 20}}],
    "parameters": {"bridge": 2793604, "lora": 230144},
    "longest_s": 12.5,
}
RESULTS: dict[str, Any] = {
    "overall": {"accuracy": 0.8225, "low": 0.8101, "high": 0.8346, "n": 9591, "videos": 600},
    "types": {"Audio Counting": {"accuracy": 0.5, "low": None, "high": None, "n": 8}},
    "floor": {"overall": 0.3919},
}


def card(folder: Path, results: Any = RESULTS, **changed: Any) -> str:
    return write_card(folder, RECIPE | changed, results, DATA).read_text()


def numbers_in(text: str) -> set[str]:
    return {
        n.replace(",", "").rstrip(".") for n in re.findall(r"(?<![\w.])\d[\d,.]*(?![\w-])", text)
    }


def known_numbers() -> set[str]:
    values: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            list(map(walk, value.values()))
        elif isinstance(value, list):
            list(map(walk, value))
        elif isinstance(value, float):
            values.update({str(value), f"{100 * value:.2f}"})
        else:
            values.update(numbers_in(str(value)))

    for block in (RECIPE, DATA, RESULTS):
        walk(block)
    return values


def test_every_number_comes_from_the_results_the_recipe_or_the_data(tmp_path: Path) -> None:
    found = numbers_in(card(tmp_path))
    assert found - known_numbers() - {"95"} == set(), "95 is the width of all intervals"
    assert {"82.25", "81.01", "83.46", "9591", "39.19", "2793604", "60", "0.0015"} <= found


def test_the_front_matter_is_yaml_and_names_the_base(tmp_path: Path) -> None:
    front = yaml.safe_load(card(tmp_path).split("---")[1])
    assert front["base_model"] == "some/model-4B" and front["license"] == "cc-by-4.0"
    assert front["library_name"] == "peft" and "lora" in front["tags"]
    local = RECIPE["base"] | {"llm": "models/parts/llm"}
    assert "base_model" not in yaml.safe_load(card(tmp_path, base=local).split("---")[1])


def test_it_names_parts_with_revisions_and_no_folders(tmp_path: Path) -> None:
    text = card(tmp_path)
    assert "`some/model-4B`, revision `0123abc`" in text
    assert "`some/eye`, revision not pinned" in text
    assert "`ear`, a local directory" in text
    assert "rows.jsonl" in text and "secret" not in text
    assert "grounding 0.1" in text and "naming" not in text, "what is switched off is not listed"
    assert "stored as nf4" in text and "stage `align`" not in text


def test_without_results_it_says_so_plainly(tmp_path: Path) -> None:
    for nothing in (None, {}, {"overall": {"accuracy": None, "n": 0}}):
        text = card(tmp_path, results=nothing)
        assert "**Not evaluated.**" in text and "| right |" not in text
    assert "82.25" not in text


def test_missing_intervals_and_deep_estimates_are_shown_as_they_are(tmp_path: Path) -> None:
    text = card(tmp_path, results={"validation": RESULTS})
    assert "| validation · types · Audio Counting | 50.00 | – | – | 8 |" in text
    assert "| validation · overall | 82.25 | 81.01 | 83.46 | 9591 |" in text


def test_a_readme_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("written by hand")
    assert write_card(tmp_path, RECIPE, None, {}).name == "MODEL_CARD.md"
    assert (tmp_path / "README.md").read_text() == "written by hand"
    (tmp_path / "README.md").unlink()
    for _ in range(2):
        assert write_card(tmp_path, RECIPE, None, {}).name == "README.md"
    text = (tmp_path / "README.md").read_text()
    assert MARK in text and "Not recorded." in text and "not known" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["MODEL_CARD.md", "README.md"]


def test_the_hash_is_of_the_settings_and_not_of_the_places(tmp_path: Path) -> None:
    assert recipe_hash(RECIPE) == recipe_hash(RECIPE | {"out": "elsewhere", "threads": 4})
    assert recipe_hash(RECIPE) != recipe_hash(RECIPE | {"lora": {"rank": 8}})
    assert recipe_hash(json.loads(json.dumps(RECIPE))) == recipe_hash(RECIPE)
    assert recipe_hash(RECIPE) in card(tmp_path)
