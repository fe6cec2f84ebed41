"""From a model's text to a label, and what the rules of published results make of the same texts.

The canonical scorer decides every figure of this project. The published rules are here by name
only to show how far their figures lie apart on the same predictions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from avqa_llm.labels import COUNT_LABELS, LABELS, to_label
from eval.benchmarks.base import Question
from eval.choices import to_choice
from eval.samples import Sample

Scorer = Callable[[str, Question], str]
"""From a text and its question to a label, or `no_answer`."""

_REMEMBERED = 1 << 18  # texts; MUSIC-AVQA-R has 211,572 questions
_SHORT = 200  # characters; longer texts are not remembered, which bounds the memory


def canonical(text: str, question: Question) -> str:
    """Return one of the 42 answers, or one of the question's choices, or `no_answer`.

    Nothing is guessed: `avqa_llm.labels.to_label` for the 42, `to_choice` for multiple choice.
    """
    if question.choices:
        return to_choice(text, question.choices)
    return _remembered_label(text) if len(text) <= _SHORT else to_label(text)


_remembered_label = lru_cache(maxsize=_REMEMBERED)(to_label)


# --- published rules ------------------------------------------------------------------------

Judge = Callable[[str, str, tuple[str, ...]], "bool | None"]
"""From text, gold answer and the answers of the benchmark to right, wrong, or None: left out."""


@dataclass(frozen=True, kw_only=True)
class PublishedRule:
    """How someone decides whether a prediction is right."""

    judge: Judge
    used_by: str
    wrong: str
    """What is wrong with it."""
    source: str
    ranked: bool = False
    """Whether it takes the label that the engine ranked highest in place of the text."""

    def __call__(self, sample: Sample, question: Question) -> bool | None:
        """Whether the answer is right; None if the rule leaves it out, or cannot be applied."""
        text = ranked_label(sample) if self.ranked else sample.answer
        return None if text is None else self.judge(text, question.gold, question.choices or LABELS)


def ranked_label(sample: Sample) -> str | None:
    """The answer that the engine ranked highest of all; None where it did not rank them.

    An engine that writes text has a label too, but no runners-up: that is no argmax.
    """
    return sample.engine_label if sample.alternatives else None


def _argmax(label: str, gold: str, answers: tuple[str, ...]) -> bool:
    """Whether the highest of 42 scores is that of the gold answer."""
    return label == gold


def _exact_upper(text: str, gold: str, answers: tuple[str, ...]) -> bool:
    """Whether both are the same in upper case, without dots and spaces at the text's end."""
    return text.rstrip(" .").upper() == gold.upper()


def _gold_in_prediction(text: str, gold: str, answers: tuple[str, ...]) -> bool:
    """Whether the gold answer's letters occur in the text, inside another word too."""
    return gold.strip().lower() in text.lower()


_DIGITS = {digits: word for word, digits in zip(COUNT_LABELS, map(str, range(11)), strict=False)}


def _either_way(text: str, gold: str, answers: tuple[str, ...]) -> bool:
    """Whether one occurs in the other; a text that is a number from 0 to 10 is its word first."""
    text, gold = _DIGITS.get(text, text).strip().lower(), gold.strip().lower()
    return gold in text or text in gold


def _answer_tag_drop(text: str, gold: str, answers: tuple[str, ...]) -> bool | None:
    """Whether the gold answer's letters occur in the one <answer> tag; other texts are left out.

    Left out are: no tag, several tags, and a tag that holds none of the benchmark's answers.
    """
    tags = list(_tags(text))
    if len(tags) != 1 or (given := tags[0].strip().lower()) not in _lowered(answers):
        return None
    return gold.lower() in given


@lru_cache(maxsize=4096)
def _lowered(answers: tuple[str, ...]) -> frozenset[str]:
    return frozenset(answer.lower() for answer in answers)


def _tags(text: str) -> Iterator[str]:
    """What stands between <answer> and the next </answer> on the same line."""
    start = text.find(_OPEN)
    while start >= 0 and (end := text.find(_CLOSE, start + len(_OPEN))) >= 0:
        line = text.rfind("\n", start, end)
        if line < 0:
            yield text[start + len(_OPEN) : end]
        start = text.find(_OPEN, end + len(_CLOSE) if line < 0 else line)


_OPEN, _CLOSE = "<answer>", "</answer>"


def _evalai_exact(text: str, gold: str, answers: tuple[str, ...]) -> bool:
    """Whether both are the same after the answer processing of the VQA challenge."""
    return _evalai(text) == _evalai_gold(gold)


def _evalai(text: str) -> str:
    """Lower case; dots but in decimals and commas in numbers go; all other punctuation but
    apostrophe and colon becomes a space; number words become digits; articles go;
    contractions get their apostrophe.
    """
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|(?<=\d),(?=\d)", "", text.lower())
    words = re.sub(r"[^\w\s':.]|_", " ", text).split()
    words = [_WORDS.get(word, word) for word in words if word not in ("a", "an", "the")]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words)


_WORDS = {"none": "0"} | {word: digits for digits, word in _DIGITS.items()}
_CONTRACTIONS = {
    stem + end.replace("'", ""): stem + end
    for end, stems in {
        "n't": "ai are ca could did do does had has have is might must need should was were wo "
        "would",
        "'s": "he she that there what when where who how let",
        "'ve": "could i might should they we would you",
        "'re": "they you",
        "'m": "i",
    }.items()
    for stem in stems.split()
}

_evalai_gold = lru_cache(maxsize=4096)(_evalai)

PUBLISHED: dict[str, PublishedRule] = {
    "argmax": PublishedRule(
        judge=_argmax,
        used_by="AVST and the classifiers after it: LAVisH, PSTP-Net, TSPM, QA-TIGER",
        wrong="cannot be compared with text: it always gives one of the 42, never 'I do not know'",
        source="Li et al. 2022 and the repository of AVST",
        ranked=True,
    ),
    "exact-upper": PublishedRule(
        judge=_exact_upper,
        used_by="VideoLLaMA 2",
        wrong="refuses 'acoustic guitar' for acoustic_guitar, '2' for two, and every sentence",
        source="repository of VideoLLaMA 2, videollama2/eval/eval_audio_video_AVQA.py",
    ),
    "gold-in-prediction": PublishedRule(
        judge=_gold_in_prediction,
        used_by="PAVE and MAVEN",
        wrong="finds no in piano, one in saxophone, ten in more than ten; 'I do not know' is right "
        "wherever the answer is no, and a text that lists all answers is always right",
        source="repository of FortisAVQA, models/avqa_test.py",
    ),
    "either-way": PublishedRule(
        judge=_either_way,
        used_by="MissRAG",
        wrong="all of gold-in-prediction; and an empty answer, or the letter o, is right almost "
        "everywhere",
        source="repository of MissRAG, answer_mapping/eval_music_avqa.py",
    ),
    "answer-tag-drop": PublishedRule(
        judge=_answer_tag_drop,
        used_by="MokA and Crab",
        wrong="leaves answers that it cannot read out of the denominator, so failing to answer "
        "raises the accuracy; and finds no in piano inside the tag",
        source="repository of MokA, AudioVisualText/scripts/evaluation/avqa_eval.py",
    ),
    "evalai-exact": PublishedRule(
        judge=_evalai_exact,
        used_by="scorers taken over from image question answering",
        wrong="refuses every sentence; 'none' is zero, and a refusal is an ordinary wrong answer",
        source="visualqa.org/evaluation.html (Antol et al. 2015), with one gold answer, not ten",
    ),
}


# --- the same predictions, by every rule ----------------------------------------------------


def spread(samples: Sequence[Sample], questions: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """Accuracy of the same answers by the canonical scorer and by each published rule.

    `questions` are those of the samples, in the same order. Each entry has `accuracy` (0..1, None
    where there is nothing to count), `n` (rows counted), `dropped` (rows left out), and `says`:
    what is wrong with the rule, or why it cannot be applied. Raises ValueError if the two do not
    belong together.
    """
    asked: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
    ranked: Counter[tuple[str | None, str, tuple[str, ...]]] = Counter()
    first: dict[tuple[str, str, tuple[str, ...]], Question] = {}
    for sample, question in zip(samples, questions, strict=True):
        if sample.row != question.number:
            raise ValueError(f"sample of row {sample.row} beside question {question.number}")
        key = (sample.answer, question.gold, question.choices)
        first.setdefault(key, question)
        asked[key] += 1
        ranked[(ranked_label(sample), question.gold, question.choices)] += 1
    found = {
        "canonical": _counted(
            ((canonical(key[0], first[key]) == key[1], n) for key, n in asked.items()),
            "one label or no_answer, which is wrong; no row is left out",
        )
    }
    for name, rule in PUBLISHED.items():
        if rule.ranked and any(label is None for label, _, _ in ranked):
            says = "cannot be applied: the answers were not ranked, there is text only"
            found[name] = {"accuracy": None, "n": 0, "dropped": len(samples), "says": says}
            continue
        given = ranked if rule.ranked else asked
        found[name] = _counted(
            (
                (rule.judge(text or "", gold, choices or LABELS), n)
                for (text, gold, choices), n in given.items()
            ),
            rule.wrong,
        )
    return found


def _counted(verdicts: Iterator[tuple[bool | None, int]], says: str) -> dict[str, Any]:
    outcomes: Counter[bool | None] = Counter()
    for verdict, n in verdicts:
        outcomes[verdict] += n
    counted = outcomes[True] + outcomes[False]
    return {
        "accuracy": outcomes[True] / counted if counted else None,
        "n": counted,
        "dropped": outcomes[None],
        "says": says if counted else f"leaves all {outcomes[None]} rows out",
    }
