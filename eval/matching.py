"""Which question of an annotation file a prediction answers.

Benchmarks name their questions badly: v2 leaves ids out and repeats rows, R gives some 25 wordings
one id. So a prediction is matched by its row number, by its place in the file, by its ids, or by
ids and wording; one that could mean two questions is refused, not guessed.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from eval.benchmarks.base import Question
from eval.prediction_rows import Prediction
from eval.samples import RunError
from instruct_data.sources.fields import short

NAMED = 3
"""How many faults of each kind a message names; the rest are counted."""
CUT = 10
"""A wording that is cut short is still told from another by so many characters."""

Id = tuple[str, "str | None"]


def match(
    predictions: Sequence[Prediction], questions: Sequence[Question], *, partial: bool = False
) -> list[Prediction | None]:
    """Return the prediction of each question, in the order of the questions.

    By `row` where every prediction has one; else by place, where there are as many predictions as
    questions and each names what stands there; else by ids, and by the wording too where ids stand
    for several.

    Args:
        predictions: in the order of their file.
        questions: all of the benchmark's file.
        partial: whether questions without a prediction are None instead of an error.

    Raises:
        RunError: a prediction fits no question, two fit the same, one could mean several, one
            gives the wording of another question, or questions have none. The first of each kind
            are named, and all are counted.
    """
    faults = _Faults()
    if all(one.row is not None for one in predictions):
        found = _by_row(predictions, questions, faults)
    elif _in_place(predictions, questions):
        found = dict(enumerate(predictions))
    else:
        found = _by_ids(predictions, questions, faults)
    missing = [] if partial else [n for n in range(len(questions)) if n not in found]
    faults.missing = [_asked(questions[n]) for n in missing]
    faults.refuse(len(questions))
    return [found.get(place) for place in range(len(questions))]


def _by_row(
    predictions: Sequence[Prediction], questions: Sequence[Question], faults: _Faults
) -> dict[int, Prediction]:
    place_of = {question.number: place for place, question in enumerate(questions)}
    found: dict[int, Prediction] = {}
    for one in predictions:
        place = place_of.get(one.row or 0)
        if place is None or not _agree(one, questions[place]):
            faults.unknown.append(one.said)
        elif place in found:
            faults.double.append(f"{one.said} after line {found[place].line}")
        else:
            found[place] = one
            faults.compare(one, questions[place])
    return found


def _agree(one: Prediction, question: Question) -> bool:
    """Whether the ids that a prediction names are those of the question."""
    return one.video_id in (None, question.video_id) and (
        one.question_id is None or _key(one) == _key(question)
    )


def _in_place(predictions: Sequence[Prediction], questions: Sequence[Question]) -> bool:
    """Whether each prediction names the question at its own place, by ids and by any wording.

    Where there are fewer, nothing says which are left out, and a place shows nothing.
    """
    if len(predictions) != len(questions):
        return False
    return all(
        _key(one) == _key(question) and (one.question is None or _worded(one, question))
        for one, question in zip(predictions, questions, strict=True)
    )


def _worded(one: Prediction, question: Question) -> bool:
    """Whether the wording is the question's own, or its template's."""
    return _plain(one.question or "") in _wordings(question)


def _contradicts(one: Prediction, question: Question) -> bool:
    """Whether a prediction gives a wording, and neither the question's nor a cut of it.

    `acoustic_guitar`, as the files fill it in, may have become two words.
    """
    if one.question is None or _worded(one, question):
        return False
    given = _plain(one.question).replace("_", " ")
    texts = [text.replace("_", " ") for text in _wordings(question)]
    return given not in texts and (
        len(given) < CUT or not any(text.startswith(given) for text in texts)
    )


def _wordings(question: Question) -> list[str]:
    """Its own, and its template's."""
    return [_plain(text) for text in (question.question, question.template) if text]


def _by_ids(
    predictions: Sequence[Prediction], questions: Sequence[Question], faults: _Faults
) -> dict[int, Prediction]:
    worded: defaultdict[Id, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, question in enumerate(questions):
        worded[_key(question)][_plain(question.question)].append(place)
    found: dict[int, Prediction] = {}
    for one in predictions:
        wordings: dict[str, list[int]] = worded.get(_key(one), {})
        if len(wordings) > 1 and one.question is None:
            faults.ambiguous.append(f"{one.said} has {len(wordings)} wordings")
            continue
        # A single question is told by its ids: the wording may be the template's, or cut.
        wording = _plain(one.question or "") if len(wordings) > 1 else next(iter(wordings), "")
        meant = wordings.get(wording, [])
        # The same row may stand in a file twice: the first prediction answers the first of them.
        free = next((place for place in meant if place not in found), None)
        if not meant:
            faults.unknown.append(one.said)
        elif len({questions[place].sound_of for place in meant}) > 1:
            faults.ambiguous.append(f"{one.said} is asked with the sound of several clips")
        elif free is None:
            faults.double.append(f"{one.said} after line {found[meant[-1]].line}")
        else:
            found[free] = one
            faults.compare(one, questions[free])
    return found


def _key(one: Prediction | Question) -> Id:
    """The ids: 12 and "12" are the same one."""
    return one.video_id or "", None if one.question_id is None else str(one.question_id)


def _plain(text: str) -> str:
    """A wording but for case, white space, and the marks at its end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" ?.")


def _asked(question: Question) -> str:
    return f"row {question.number}, video {question.video_id}, question {question.question_id}"


@dataclass
class _Faults:
    """What does not fit, in words."""

    unknown: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def compare(self, one: Prediction, question: Question) -> None:
        """Note where the wording is that of another question."""
        if _contradicts(one, question):
            given, own = short(one.question), short(question.question)
            self.contradicted.append(f"{one.said} gives {given}, the file asks {own}")

    def refuse(self, questions: int) -> None:
        kinds = {
            "answer no question of the file": self.unknown,
            "answer a question again": self.double,
            "could mean several questions (give the question text as `question`, or `row`)": (
                self.ambiguous
            ),
            "give the text of another question (another version of the file, or shifted ids)": (
                self.contradicted
            ),
            f"of {questions} questions have no prediction (--partial scores the rest)": (
                self.missing
            ),
        }
        said = [f"{len(those)} {what}: {_first(those)}" for what, those in kinds.items() if those]
        if said:
            raise RunError("; ".join(said))


def _first(those: Sequence[str]) -> str:
    more = len(those) - NAMED
    named = " | ".join(those[:NAMED])
    return f"{named} | and {more} more" if more > 0 else named
