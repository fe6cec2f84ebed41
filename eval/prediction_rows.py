"""Reads somebody's predictions from a file, which nobody has checked before.

A file is JSONL, or one JSON list, of rows

    {"video_id": "00000093", "question_id": 12, "answer": "The answer is two."}

with `probability` (0..1 of the answer), `question` or `question_content` (the wording) and `row`
(number in the annotation file, from 1) where they are known. Other fields are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avqa_llm.errors import AnnotationError
from eval.samples import RunError
from instruct_data.sources.fields import Fields, absent, read_rows, short

MAX_BYTES = 1_000_000_000
"""Of a predictions file: MUSIC-AVQA-R has 211,572 rows, which leaves 4,700 characters a row."""
# Where these stand, `answer` is the gold one in the files of several systems.
_OTHER_ANSWERS = (
    *("pred", "predict", "prediction", "predicted_answer", "pred_answer", "model_answer"),
    *("output", "response"),
)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One row of somebody's predictions."""

    line: int
    """Where it stands in the file, from 1."""
    answer: str
    video_id: str | None = None
    question_id: int | str | None = None
    question: str | None = None
    """The wording, where the file gives it."""
    row: int | None = None
    """Number of the annotation's row, from 1."""
    probability: float | None = None

    @property
    def said(self) -> str:
        """For messages."""
        named = {"row": self.row, "video": self.video_id, "question": self.question_id}
        return ", ".join(
            [f"line {self.line}", *(f"{name} {it}" for name, it in named.items() if it is not None)]
        )


def read_predictions(path: Path) -> tuple[list[Prediction], str]:
    """Read a predictions file; returns its rows and its sha-256.

    Raises:
        RunError: it cannot be read, is larger than `MAX_BYTES`, or a row is faulty; names the
            line (of a JSON list: the row) and the field.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise RunError(
                f"{path} has {size / 1e9:.1f} GB, and more than {MAX_BYTES / 1e9:g} GB are not "
                "read: leave out what is not needed (video_id, question_id and answer are)"
            )
        rows, sha256 = read_rows(path)
        found = [_prediction(fields) for fields in rows]
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except AnnotationError as error:
        raise RunError(str(error)) from error
    if not found:
        raise RunError(f"{path} holds no predictions")
    return found, sha256


def _prediction(fields: Fields) -> Prediction:
    raw = fields.raw
    other = next((name for name in _OTHER_ANSWERS if name in raw and "answer" in raw), None)
    if other is not None:
        raise fields.wrong(
            "answer",
            f"stands beside {other!r}, so it may be the gold answer: keep the model's own text "
            "as 'answer' and take the other out",
        )
    one = Prediction(
        line=fields.number,
        answer=_answer(fields),
        video_id=fields.optional_text("video_id"),
        question_id=_question_id(fields),
        question=fields.optional_text("question") or fields.optional_text("question_content"),
        row=_row(fields),
        probability=_probability(fields),
    )
    if one.video_id is None and one.row is None:
        raise fields.wrong("video_id", "is missing: name video_id and question_id, or row")
    return one


def _answer(fields: Fields) -> str:
    """The text as it is; it may be empty."""
    value = fields.raw.get("answer")
    if not isinstance(value, str):
        raise fields.wrong("answer", f"should be text, is {short(value)}")
    if value.strip():
        fields.checked("answer", value)
    return value


def _question_id(fields: Fields) -> int | str | None:
    value = fields.raw.get("question_id")
    if absent(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)  # tables that were JSON once write 12 as 12.0
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise fields.wrong("question_id", f"should be a number or text, is {short(value)}")
    return value if isinstance(value, int) else fields.checked("question_id", value)


def _row(fields: Fields) -> int | None:
    value = fields.raw.get("row")
    if absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise fields.wrong("row", f"should be a whole number from 1, is {short(value)}")
    return value


def _probability(fields: Fields) -> float | None:
    value = fields.raw.get("probability")
    if absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise fields.wrong("probability", f"should be a number from 0 to 1, is {short(value)}")
    return float(value)
