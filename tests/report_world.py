"""Finished runs to report on, and a reader of the page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from avqa_llm.answer import Alternative, Consumed, Evidence
from eval.benchmarks.base import Question
from eval.floors import fit_floor
from eval.report import browser
from eval.results import summarise
from eval.samples import PROBES, RESULTS, SAMPLES, ProbeSample, Sample, write_json

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> & | \u2028\u2029 \x00 \ud800"
)
VOID = {"meta", "br", "img", "input", "link", "hr"}
TYPES = {
    "Audio Counting": ("Is there a <Object> sound?", "Is there a cello sound?", ("yes", "no")),
    "Visual Location": ("Where is the performance?", "Where is it?", ("indoor", "outdoor")),
}


def questions(clips: int) -> list[Question]:
    asked: list[Question] = []
    for clip in range(clips):
        for kind, (template, text, golds) in TYPES.items():
            number = len(asked) + 1
            asked.append(
                Question(
                    number=number,
                    video_id=f"{clip:08d}",
                    question_id=number,
                    type=kind,
                    question=text,
                    gold=golds[clip % 2],
                    template=template,
                )
            )
    return asked


def answered(one: Question, label: str, **more: Any) -> Sample:
    known: dict[str, Any] = {
        "answer": label,
        "engine_label": label,
        "probability": 0.75,
        "alternatives": (Alternative(label="piano", probability=0.1),),
        "consumed": Consumed(sound=True, picture=True, sound_tokens=3, picture_tokens=2),
        "evidence": (
            Evidence(modality="sound", start_s=1, end_s=2, region=None, weight=0.5),
            Evidence(modality="picture", start_s=0, end_s=1, region=(0, 0, 0.5, 0.5), weight=0.5),
        ),
    }
    return Sample(
        row=one.number,
        video_id=one.video_id,
        question_id=one.question_id,
        template=one.template,
        type=one.type,
        question=one.question,
        gold=one.gold,
        label=label,
        **(known | more),
    )


def mostly_right(asked: Sequence[Question]) -> list[Sample]:
    """Every third answer is wrong."""
    return [answered(one, "violin" if one.number % 3 == 0 else one.gold) for one in asked]


def muted(samples: Sequence[Sample]) -> list[ProbeSample]:
    return [
        ProbeSample(
            probe=name,
            row=one.row,
            question=one.question,
            expected=None if one.type.startswith("Audio") else one.gold,
            answer="yes",
            label="yes",
            probability=None,
            consumed=one.consumed,
        )
        for name in ("mute", "noise-20", "noise-0")
        for one in samples
    ]


def finished(
    folder: Path,
    samples: Sequence[Sample],
    asked: Sequence[Question],
    *,
    probes: Sequence[ProbeSample] = (),
    floor: bool = True,
    **changes: Any,
) -> Path:
    """A folder as a run leaves it behind."""
    folder.mkdir(parents=True)
    (folder / SAMPLES).write_text("".join(one.to_line() for one in samples))
    if probes:
        (folder / PROBES).write_text("".join(one.to_line() for one in probes))
    results = summarise(
        samples,
        asked,
        benchmark=None,
        floor=fit_floor(asked) if floor else None,
        fit=None,
        seen=None,
        probes=probes,
        left_out={"mute": {"the clip has no sound": 2}} if probes else {},
    )
    results["benchmark"] = "bandstand"
    results["integrity"] = {
        "valid": True,
        "checks": {
            "no gold leak": {"state": "pass", "says": "0 of 9 planted answers came back"},
            "train overlap": {"state": "unproven", "says": "no training file was named"},
        },
    }
    results["provenance"] = {
        "benchmark": "bandstand",
        "model": "tiny",
        "engine": "local",
        "mode": "rank",
        "files": {"test.json": "0123456789abcdef" * 4},
        "missing_clips": {},
        "missing_questions": 0,
        "clips": len({one.video_id for one in samples}),
        "questions": len(samples),
        "media": str(folder.parent / "clips"),
    }
    write_json(folder / RESULTS, results | changes)
    return folder


# --- reading the page back ------------------------------------------------------------------


class Page(HTMLParser):
    """Elements with their attributes, and the text in scripts; every end must fit its start."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace("\u00a0", " ").split())

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.scripts[0])
        return data

    def named(self, name: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = attributes.items()
        return [found for tag, found in self.elements if tag == name and wanted <= found.items()]


def assert_tables_fit(markdown: str) -> int:
    """Each row of a table has as many cells as its head; returns the number of tables."""
    tables, width = 0, 0
    for line in markdown.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        assert line.endswith("|")
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1
        tables += width == 0
        width = width or cells
        assert cells == width, line
    return tables


def browser_field(name: str) -> int:
    """The place of a field in a row, as the script of the page knows it."""
    script = (Path(browser.__file__).parent / "browser.js").read_text()
    listed = re.search(r"FIELDS = \[(.*?)\]", script, re.DOTALL)
    assert listed is not None
    return re.findall(r'"(\w+)"', listed[1]).index(name)
