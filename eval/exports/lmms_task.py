"""Functions of this task for lmms-eval. Needs `pip install avqa-llm`: its scorer decides.

A text gives exactly one of the closed answers, or none: nothing is guessed, nothing is dropped.
Intervals are 95 % percentiles of 1000 resamples of whole videos. `choices.py` and `clusters.py`
beside this file are those of the project that wrote it, unchanged.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    from avqa_llm.labels import LABELS, NO_ANSWER, to_label
except ImportError as error:
    raise ImportError("this task scores with avqa-llm: pip install avqa-llm") from error

HERE = Path(__file__).resolve().parent


def _beside(name: str) -> ModuleType:
    """A module that lies beside this file; lmms-eval puts neither on the path."""
    known = f"_avqa_export_{abs(hash(HERE))}_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, HERE / f"{name}.py")
        if spec is None or spec.loader is None:
            raise ImportError(f"{name}.py is missing beside {__file__}")
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


choices, clusters = _beside("choices"), _beside("clusters")


def doc_to_visual(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None
) -> list[str]:
    """The clip's file. The folder is AVQA_MEDIA, or `media` of the YAML file."""
    settings = lmms_eval_specific_kwargs or {}
    folder = os.environ.get("AVQA_MEDIA") or settings.get("media") or "."
    path = Path(folder) / doc["video"]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: set AVQA_MEDIA to the folder of clips")
    return [str(path)]


def doc_to_text(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None
) -> str:
    """The question with its answers."""
    answers = doc["choices"] or [label.replace("_", " ") for label in LABELS]
    mark = "; " if any("," in answer for answer in answers) else ", "
    return (
        "Look at the video and listen to its sound, then answer the question.\n"
        f"Question: {doc['question']}\n"
        "Answer with one of the following, in the same words and with nothing else: "
        f"{mark.join(answers)}."
    )


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """The gold answer."""
    return str(doc["answer"])


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """What one answer counts for: all questions, its type, its head or tail."""
    text = results[0]
    given = tuple(doc["choices"] or ())
    label = choices.to_choice(text, given) if given else to_label(text)
    right = {"score": float(label == doc["answer"]), "video_id": doc["video_id"]}
    none = {"score": float(label == NO_ANSWER), "video_id": doc["video_id"]}
    # Under another name than the YAML file's score_key: a bound has no standard error.
    bound = {"right": right["score"], "video_id": doc["video_id"]}
    counts = {"accuracy": right, "accuracy_low": bound, "accuracy_high": bound, "no_answer": none}
    counts[doc["type"].lower().replace(" ", "_").replace("-", "_")] = right
    if doc["subset"]:
        counts[doc["subset"]] = right
    return counts


def mean(results: Sequence[Mapping[str, Any]]) -> float:
    """Share of questions, 0..1."""
    return sum(one["score"] for one in results) / len(results)


def low(results: Sequence[Mapping[str, Any]]) -> float:
    """Lower end of the interval; NaN with a single video."""
    return float(_estimate(results).low)


def high(results: Sequence[Mapping[str, Any]]) -> float:
    """Upper end of the interval; NaN with a single video."""
    return float(_estimate(results).high)


def _estimate(results: Sequence[Mapping[str, Any]]) -> Any:
    right, videos = zip(*((one["right"], one["video_id"]) for one in results), strict=True)
    return clusters.accuracy(right, videos)
