"""What a set consists of: counts, floors, overlaps and losses, as JSON, as text and as plots."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avqa_llm.folders import sha256_of
from instruct_data.balance import Counts, Trim, blind_floor, most_frequent
from instruct_data.mixing import given_with
from instruct_data.records import Record, Turn
from instruct_data.templates import TEMPLATES, fill

OPEN = "(open answer)"
NO_TEMPLATE = "(no template)"
NO_TYPE = "(no type)"
FOLDER_FILES = ("truth.json", "avqa.json", "avqa-reworded.json", "instruct.jsonl")
"""What is read of a source that is a folder."""

_QUESTIONS = ("source", "type", "template", "answer", "given_with", "wording", "step")
_RECORDS = ("source", "kind", "given_with", "licence")
_SAID = {"given_with": "what the model is given"}


@dataclass(kw_only=True)
class Tally:
    """Counts of what is written, taken in as it is written."""

    by_record: dict[str, Counter[str]] = field(
        default_factory=lambda: {key: Counter() for key in _RECORDS}
    )
    by_question: dict[str, Counter[str]] = field(
        default_factory=lambda: {key: Counter() for key in _QUESTIONS}
    )
    answers: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Per template, how often each label is the answer."""
    sources_of: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Per licence, the sources that have it."""
    questions: int = 0

    def add(self, record: Record, steps: Sequence[str]) -> None:
        """Take in a record; `steps` says what was done to its questions, a word each time."""
        whole = {
            "source": record.source,
            "kind": record.kind,
            "given_with": given_with(record),
            "licence": record.licence,
        }
        for key, value in whole.items():
            self.by_record[key][value] += 1
        self.sources_of[record.licence].add(record.source)
        if record.kind != "caption":
            self._add_questions(record, whole)
        self.by_question["step"].update(steps)

    def _add_questions(self, record: Record, whole: Mapping[str, str]) -> None:
        counts = self.by_question
        for turn in record.turns:
            self.questions += 1
            counts["source"][whole["source"]] += 1
            counts["given_with"][whole["given_with"]] += 1
            counts["type"][turn.type or NO_TYPE] += 1
            counts["template"][turn.template or NO_TEMPLATE] += 1
            counts["answer"][turn.label or OPEN] += 1
            counts["wording"][_wording(turn)] += 1
            if turn.template and turn.label:
                self.answers[turn.template][turn.label] += 1

    def as_json(self) -> dict[str, Any]:
        """All counts, the largest first."""
        return {
            "records": self.by_record["kind"].total(),
            "questions": self.questions,
            "records_by": {key: largest_first(counts) for key, counts in self.by_record.items()},
            "questions_by": {
                key: largest_first(counts) for key, counts in self.by_question.items()
            },
            "licences": {
                licence: {"records": n, "sources": sorted(self.sources_of[licence])}
                for licence, n in largest_first(self.by_record["licence"]).items()
            },
        }


def _wording(turn: Turn) -> str:
    """Whose words the question is asked in."""
    if turn.template is None:
        return "the source's"
    # Questions that a benchmark gives filled have a template, but no slots to fill it with.
    fits = len(turn.slots) == len(TEMPLATES[turn.template].slots)
    own = fits and turn.question == fill(turn.template, turn.slots)
    return "the template's" if own else "other words"


def largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    """By number, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def floors(after: Counts, trims: Sequence[Trim]) -> dict[str, Any]:
    """The blind floor before and after balancing, whole and per template. Shares are 0..1.

    What the dial took is all that differs, so before is after with that put back.
    """
    dropped = {trim.template: trim.dropped for trim in trims}
    before = {text: Counter(answers) for text, answers in after.items()}
    for trim in trims:
        before.setdefault(trim.template, Counter())[trim.answer] += trim.dropped
    return {
        "before": _whole(before),
        "after": _whole(after),
        "templates": {
            text: {
                "before": _of_template(before[text]),
                "after": _of_template(after.get(text)),
                "dropped": dropped.get(text, 0),
            }
            for text in TEMPLATES
            if text in before
        },
    }


def _whole(counts: Counts) -> dict[str, Any]:
    floor = blind_floor(counts)
    share = None if floor.share is None else round(floor.share, 6)
    return {"questions": floor.questions, "right": floor.right, "share": share}


def _of_template(answers: Counter[str] | None) -> dict[str, Any] | None:
    if not answers:
        return None
    answer = most_frequent(answers)
    share = round(answers[answer] / answers.total(), 6)
    return {"questions": answers.total(), "answer": answer, "share": share}


def input_files(path: Path) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of what is read: a file, or the known files of a folder."""
    files = [path / name for name in FOLDER_FILES] if path.is_dir() else [path]
    return [
        {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in files
        if file.is_file()
    ]


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json, report.md and, where matplotlib is installed, the plots beside them."""
    report["plots"] = draw(folder, report)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")


# --- text -------------------------------------------------------------------------------------


def markdown(report: Mapping[str, Any]) -> str:
    """The report for reading."""
    floor = report["floor"]
    parts = [
        "# What this set consists of",
        f"{report['records']} records with {report['questions']} questions, drawn with seed "
        f"{report['seed']}; `records.jsonl` has sha256 `{report['sha256']}`.",
        "## Read\n" + _table(("source", "file", "rows", "sha256"), _input_rows(report)),
        "## Left out\n"
        + _table(("why", "records"), [(row["why"], row["records"]) for row in report["dropped"]]),
        "## Augmented\n"
        + _table(
            ("change", "drawn and done", "drawn and refused"),
            [(name, row["done"], row["refused"]) for name, row in report["augmented"].items()],
        )
        + "\n\nRefused where the answer would not be known; those stay as they were.",
        "## Wanted and not reached\n" + _list(report["shortfalls"]),
        "## Blind floor\n"
        f"Giving each template's most frequent answer is right for {_percent(floor['before'])} "
        f"before balancing (dial {report['balance']:g}) and {_percent(floor['after'])} in the set. "
        "Negatives and augmentation count in both.\n\n"
        + _table(("template", "before", "after", "dropped"), _floor_rows(floor)),
        "## Overlap with test files\n" + _overlap(report),
        "## Licences\n"
        + _table(
            ("licence", "records", "sources"),
            [
                (name, row["records"], ", ".join(row["sources"]))
                for name, row in report["licences"].items()
            ],
        ),
    ]
    for unit in ("records", "questions"):
        for key, counts in report[f"{unit}_by"].items():
            heading = f"## {unit.capitalize()} by {_SAID.get(key, key)}\n"
            parts.append(heading + _table((key, unit), list(counts.items())))
    parts.append("## Plots\n" + _list(report["plots"]))
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return "\nNone."
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("<", "\\<") for cell in row] for row in lines)
    return "\n".join(["", *(f"| {' | '.join(row)} |" for row in cells)])


def _list(lines: Sequence[str]) -> str:
    return "\n" + ("\n".join(f"- {line}" for line in lines) or "None.")


def _percent(row: Mapping[str, Any]) -> str:
    if row["share"] is None:
        return "none"
    return f"{100 * row['share']:.2f} % of {row['questions']} questions"


def _input_rows(report: Mapping[str, Any]) -> list[tuple[object, ...]]:
    return [
        (part["name"], file["file"], part["read"], file["sha256"][:12])
        for part in report["inputs"]
        for file in part["files"]
    ]


def _floor_rows(floor: Mapping[str, Any]) -> list[tuple[object, ...]]:
    def cell(row: Mapping[str, Any] | None) -> str:
        return f"{row['answer']} {100 * row['share']:.1f} % of {row['questions']}" if row else "-"

    return [
        (text, cell(row["before"]), cell(row["after"]), row["dropped"])
        for text, row in floor["templates"].items()
    ]


def _overlap(report: Mapping[str, Any]) -> str:
    if not report["overlap"]:
        return "\nNo test file was named, so nothing is known."
    forced = "\n\n**Built with --force-overlap.**" if report["overlap_forced"] else ""
    head = ("file", "its rows", "records about its videos", "of these, with its questions")
    rows = [
        (
            f"{row['name']} {row['path']}",
            row["rows"],
            row["records_with_its_videos"],
            row["records_with_its_questions"],
        )
        for row in report["overlap"]
    ]
    return _table(head, rows) + forced


# --- plots ------------------------------------------------------------------------------------


def draw(folder: Path, report: Mapping[str, Any]) -> list[str]:
    """Draw floor.png and answers.png; returns their names, or why there are none."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return ["none: matplotlib is not installed; pip install 'avqa-llm[eval]' for them"]
    names = []
    if report["floor"]["templates"]:
        figure = Figure(figsize=(10, 9), layout="constrained")
        _draw_floor(figure.subplots(), report["floor"]["templates"])
        figure.savefig(folder / "floor.png", dpi=100)
        names.append("floor.png")
    answers = report["questions_by"]["answer"]
    if answers:
        figure = Figure(figsize=(10, 4), layout="constrained")
        axes = figure.subplots()
        axes.bar(list(answers), list(answers.values()), color="#4477aa")
        axes.set_ylabel("questions")
        axes.tick_params(axis="x", rotation=90)
        figure.savefig(folder / "answers.png", dpi=100)
        names.append("answers.png")
    return names


def _draw_floor(axes: Any, templates: Mapping[str, Any]) -> None:
    """Share of each template's most frequent answer, before and after balancing."""
    rows = list(range(len(templates)))
    for key, shift, colour in (("before", 0.2, "#bbbbbb"), ("after", -0.2, "#4477aa")):
        shares = [100 * row[key]["share"] if row[key] else 0 for row in templates.values()]
        axes.barh([-n + shift for n in rows], shares, height=0.4, color=colour, label=key)
    # The full-width mark of one template is in few fonts.
    names = [text.replace("\uff1f", "?") for text in templates]
    axes.set_yticks([-n for n in rows], names, fontsize=8)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the most frequent answer, %")
    axes.legend(loc="lower right")
