"""A benchmark as a task of lmms-eval, with our models as one of its models.

    OUT/TASK.yaml, utils.py, choices.py, clusters.py    the task, for `--include_path OUT`
    OUT/data/test.jsonl                                 the questions
    OUT/model/                                          a package for `pip install OUT/model`

Names and signatures are those of lmms-eval 0.7.3 (`lmms_eval.api.task.TaskConfig`,
`lmms_eval.api.model.lmms`, entry points `lmms_eval.models`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from eval.benchmarks.base import QuestionSet
from eval.exports.hf import NEVER, refuse_public
from eval.exports.rows import TEST, Rows, files_below, rows_of, whole_folder, write_rows

HERE = Path(__file__).resolve().parent
COPIES = {
    "utils.py": HERE / "lmms_task.py",
    "choices.py": HERE.parent / "choices.py",
    "clusters.py": HERE.parent / "statistics.py",
    "model/avqa_lmms_eval/model.py": HERE / "lmms_model.py",
}
"""Files of this project that go into the folder as they are."""


def task_name(benchmark: str) -> str:
    """What `--tasks` calls a benchmark."""
    return f"avqa_{benchmark.replace('-', '_')}"


def export_lmms(asked: QuestionSet, media: Path, out: Path, *, private: bool = False) -> list[Path]:
    """Write the folder, and return its files; `private` as in `export_hf`.

    Raises:
        RunError: the set may not be passed on, the folder is there already, or there is no
            media file for any question.
    """
    import yaml

    refuse_public(asked, private=private)
    with whole_folder(out) as aside:
        rows = rows_of(asked, media)
        write_rows(aside / TEST, rows.rows)
        for name, source in COPIES.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, aside / name)
        (aside / "model/pyproject.toml").write_text(_PYPROJECT, encoding="utf-8")
        (aside / "model/avqa_lmms_eval/__init__.py").write_text(_MANIFEST, encoding="utf-8")
        text = yaml.dump(_task(asked, rows, media), Dumper=_dumper(), sort_keys=False, width=100)
        name = task_name(asked.benchmark)
        (aside / f"{name}.yaml").write_text(text, encoding="utf-8")
        (aside / "README.md").write_text(_readme(asked, rows, name), encoding="utf-8")
    return files_below(out)


class _Function(str):
    """A name of `utils.py`, which lmms-eval looks up: `!function utils.NAME`."""


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Knows functions."""

    Dumper.add_representer(
        _Function, lambda dumper, name: dumper.represent_scalar("!function", f"utils.{name}")
    )
    return Dumper


def _task(asked: QuestionSet, rows: Rows, media: Path) -> dict[str, Any]:
    """The YAML file: keys of `TaskConfig`."""
    metrics = [_metric("accuracy", "mean"), _metric("accuracy_low", "low")]
    metrics += [_metric("accuracy_high", "high"), _metric("no_answer", "mean", better=False)]
    kinds = sorted({row["type"] for row in rows.rows})
    metrics += [_metric(kind.lower().replace(" ", "_").replace("-", "_"), "mean") for kind in kinds]
    subsets = sorted({row["subset"] for row in rows.rows if row["subset"]})
    metrics += [_metric(subset, "mean") for subset in subsets]
    functions = ("doc_to_visual", "doc_to_text", "doc_to_target", "process_results")
    return {
        "task": task_name(asked.benchmark),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": TEST}},
        "test_split": "test",
        "output_type": "generate_until",
        **{name: _Function(name) for name in functions},
        "generation_kwargs": {"max_new_tokens": 32, "temperature": 0, "do_sample": False},
        "metric_list": metrics,
        "cluster_key": "video_id",
        "score_key": "score",
        "lmms_eval_specific_kwargs": {"default": {"media": str(media.resolve())}},
        "metadata": {
            "version": 1,
            "benchmark": asked.benchmark,
            "annotations": asked.version,
            "sha256": dict(asked.sha256),
        },
    }


def _metric(name: str, aggregation: str, *, better: bool = True) -> dict[str, Any]:
    return {"metric": name, "aggregation": _Function(aggregation), "higher_is_better": better}


def _readme(asked: QuestionSet, rows: Rows, name: str) -> str:
    lines = [
        f"# {asked.benchmark} for lmms-eval",
        "",
        f"{len(rows.rows):,} questions about {len(rows.files):,} clips. From `{asked.path.name}`"
        + (f" ({asked.version})." if asked.version else "."),
        *(["", *(f"- {said}" for said in rows.said)] if rows.left_out else []),
        "",
        "    pip install lmms_eval avqa-llm",
        f"    lmms-eval eval --model MODEL --tasks {name} --include_path THIS_FOLDER",
        "",
        "`avqa-llm` is needed by every model: its scorer (`avqa_llm.labels`) decides. Clips are "
        f"looked for in `media` of `{name}.yaml`, or in the folder that the environment variable "
        "AVQA_MEDIA names.",
        "",
        "- `accuracy`, with `accuracy_low` and `accuracy_high`: all questions; 95 % interval of "
        "1000 resamples of whole videos",
        "- `no_answer`: answers that give none of the closed answers; they count as wrong",
        "- further names: the types of questions, `head` and `tail`",
        "",
        "A model must be given the sound of the video: many of lmms-eval look at its frames only. "
        "What reached the model is not checked here.",
        "",
        "Models of avqa-llm:",
        "",
        "    pip install THIS_FOLDER/model",
        f"    lmms-eval eval --model avqa --model_args model=tiny --tasks {name} "
        "--include_path THIS_FOLDER",
    ]
    if asked.benchmark in NEVER:
        lines += ["", f"**For your own use only:** {NEVER[asked.benchmark]}"]
    return "\n".join(lines) + "\n"


_PYPROJECT = """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "avqa-lmms-eval"
version = "0.1.0"
description = "The models of avqa-llm for lmms-eval."
requires-python = ">=3.10"
dependencies = ["avqa-llm", "lmms_eval>=0.7"]

[project.entry-points."lmms_eval.models"]
avqa = "avqa_lmms_eval:manifest"

[tool.setuptools]
packages = ["avqa_lmms_eval"]
"""
_MANIFEST = '''\
"""Tells lmms-eval about the models of avqa-llm."""


def manifest():
    """Return what `--model avqa` stands for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="avqa", simple_class_path="avqa_lmms_eval.model.AVQA")
'''
