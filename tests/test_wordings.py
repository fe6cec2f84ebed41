"""The question wordings: complete, faithful to their template, and split for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instruct_data import wordings
from instruct_data.bandstand.scene import INSTRUMENTS
from instruct_data.templates import LABELS, SLOT_VALUES, TEMPLATES, fill

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AVQA_TEST_DATA", ROOT / "../shared/data"))
LOUDER = "Is the <Object> louder than the <Object>?"
SIDES = "Is the <Object> on the <LR> louder than the <Object> on the <LR>?"


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    path = DATA / "music-avqa" / "avqa-test.json"
    if not path.is_file():
        pytest.skip(f"no annotation file {path}; set AVQA_TEST_DATA to the folder of the data")
    return json.loads(path.read_text(encoding="utf-8"))


def values_of(text: str, pick: int) -> list[str]:
    """One value per slot; instruments as words."""
    lists = [SLOT_VALUES[slot] for slot in TEMPLATES[text].slots]
    return [
        choices[(pick + 5 * i) % len(choices)].replace("_", " ") for i, choices in enumerate(lists)
    ]


def planted(text: str, wording: str) -> list[str]:
    """What `check` says once one wording is replaced."""
    lines = (wording, *wordings.WORDINGS[text][1:])
    return wordings.check({**wordings.WORDINGS, text: lines})


def test_templates_are_those_of_the_annotation_file(rows: list[dict]) -> None:
    counts = Counter((row["question_content"].strip(), *json.loads(row["type"])) for row in rows)
    assert set(counts) == {(t.text, *t.type) for t in TEMPLATES.values()}
    assert counts[LOUDER, "Audio", "Comparative"] == 307
    full_width = ("How many sounding <Object> in the video\uff1f", "Audio-Visual", "Counting")
    assert counts[full_width] == 427
    assert counts["Where is the performance?", "Visual", "Location"] == 323


def test_slots_values_and_answers_cover_the_annotation_file(rows: list[dict]) -> None:
    kinds = {
        "yes-no": {"yes", "no"},
        "count": {*LABELS[22:33], "more than ten"},
        "instrument": set(INSTRUMENTS),
        "side": {"left", "middle", "right"},
        "which-side": {"left", "middle", "right", "simultaneously"},
        "place": {"indoor", "outdoor"},
    }
    for row in rows:
        template = TEMPLATES[row["question_content"].strip()]
        values = json.loads(row["templ_values"])
        assert len(values) == len(template.slots)
        for slot, value in zip(template.slots, values, strict=True):
            assert value in SLOT_VALUES[slot]
        assert row["anser"] in kinds[template.answers], row


def test_there_are_42_labels_in_the_order_of_the_protocol() -> None:
    assert len(LABELS) == len(set(LABELS)) == 42
    assert LABELS[:2] == ("accordion", "acoustic_guitar")
    assert LABELS[22] == "zero" and LABELS[33] == "more than ten"
    assert LABELS[-5:] == ("indoor", "outdoor", "simultaneously", "yes", "no")


def test_fill_puts_values_in_order() -> None:
    filled = fill(SIDES, ["violin", "left", "cello", "right"])
    assert filled == "Is the violin on the left louder than the cello on the right?"
    with pytest.raises(ValueError, match="2 slots but got 1 values"):
        fill(LOUDER, ["violin"])
    with pytest.raises(ValueError, match="2 values"):
        wordings.fill_wording("Is the {0} loud?", ["violin", "cello"])


def test_every_template_has_thirty_sound_wordings() -> None:
    assert set(wordings.WORDINGS) == set(TEMPLATES)
    assert min(map(len, wordings.WORDINGS.values())) >= 30
    assert wordings.check() == []


def test_split_is_disjoint_and_complete_and_holds_out_a_third_of_its_files() -> None:
    training_alone = wordings._read_training()
    assert set(training_alone) == set(wordings.WORDINGS)
    for text, lines in wordings.WORDINGS.items():
        training, held_out = wordings.split(text)
        assert sorted(training + held_out) == sorted(lines)
        assert set(training_alone[text]) <= set(training)
        assert 0.25 <= len(held_out) / (len(lines) - len(training_alone[text])) <= 0.42
        assert text not in held_out


def test_split_is_the_same_in_another_process() -> None:
    code = f"from instruct_data.wordings import split; print(split({LOUDER!r})[1])"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(wordings.split(LOUDER)[1])


@settings(max_examples=60, deadline=None)
@given(text=st.sampled_from(sorted(TEMPLATES)), pick=st.integers(0, 21), seed=st.integers(0, 999))
def test_filled_wordings_keep_every_value_and_leave_no_marks(
    text: str, pick: int, seed: int
) -> None:
    values = values_of(text, pick)
    known = wordings.vocabulary()
    for held_out in (False, True):
        question = wordings.ask(
            text, values, np.random.default_rng(seed), held_out=held_out, original=0.0
        )
        assert not set("{}<>") & set(question) and "a(n)" not in question
        assert question.isascii() and question[0].isupper() and "  " not in question
        assert all(value in question.lower() for value in values)
        assert "middle-hand" not in question
        words = question.lower().translate(str.maketrans("?.,;:-", "      ")).split()
        assert set(words) <= known


def test_every_wording_can_be_filled_with_every_value() -> None:
    for text, lines in wordings.WORDINGS.items():
        for pick in range(len(INSTRUMENTS)):
            filled = {wordings.fill_wording(line, values_of(text, pick)) for line in lines}
            assert len(filled) == len(lines)


@pytest.mark.parametrize(
    ("wording", "value", "expected"),
    [
        ("Is there a(n) {0}?", "accordion", "Is there an accordion?"),
        ("Is there a(n) {0}?", "electric bass", "Is there an electric bass?"),
        ("Is there a(n) {0}?", "ukulele", "Is there a ukulele?"),
        ("A(n) {0} plays", "erhu", "An erhu plays"),
        ("How many {0:s}?", "electric bass", "How many electric basses?"),
        ("How many {0:s}?", "congas", "How many congas?"),
        ("How many {0:s}?", "acoustic guitar", "How many acoustic guitars?"),
        ("{0} it, what?", "before", "Before it, what?"),
        ("Is it on the {0}-hand side?", "left", "Is it on the left-hand side?"),
        ("Is it on the {0}-hand side?", "middle", "Is it in the middle?"),
        (
            "Is it louder compared to the {0} one?",
            "middle",
            "Is it louder compared to the middle one?",
        ),
        ("Is it to the {0}?", "middle", "Is it in the middle?"),
        ("On the {0} there is what", "middle", "In the middle there is what"),
        ("What is on the {0} of it?", "middle", "What is on the middle of it?"),
    ],
)
def test_articles_plurals_and_the_middle(wording: str, value: str, expected: str) -> None:
    assert wordings.fill_wording(wording, [value]) == expected


def test_ask_mixes_in_the_template_only_in_training() -> None:
    values = ["piano", "violin"]
    own = fill(LOUDER, values)
    rng = np.random.default_rng(0)
    training = [wordings.ask(LOUDER, values, rng, original=0.3) for _ in range(1000)]
    held_out = {wordings.ask(LOUDER, values, rng, held_out=True) for _ in range(400)}
    assert 0.25 < training.count(own) / 1000 < 0.35
    assert held_out == {wordings.fill_wording(w, values) for w in wordings.split(LOUDER)[1]}
    assert not held_out & set(training)


@pytest.mark.parametrize(
    ("text", "wording", "complaint"),
    [
        (LOUDER, "Is the {0} the louder one?", "lost slots [1]"),
        (LOUDER, "Is the {0} louder than the {1} or the {2}?", "unknown slots [2]"),
        (LOUDER, "Is the {0} quieter than the {1}?", "polarity"),
        (LOUDER, "Isn't the {0} louder than the {1}?", "polarity"),
        (LOUDER, "Is the {1} louder than the {0}?", "order of comparison"),
        (SIDES, "Compared with the {1} {0}, is the {3} {2} louder?", "order of comparison"),
        (LOUDER, "does the {0} sound louder than the {1} does", "no capital"),
        (LOUDER, "Is the {0}  louder in sound than the {1}?", "stray spaces"),
        (LOUDER, "Is the {0} louder in sound than the {1}\uff1f", "not ASCII"),
        (LOUDER, "is the {0} louder than the {1}", "duplicate of the template's own text"),
        (LOUDER, "Does the {0}, play more loudly than the {1}", "duplicate in"),
        (LOUDER, "Is the {0} more rhythmic than the {1}?", "the same question under"),
        ("Where is the <FL> sounding instrument?", "Where is the {0} and last one?", "order words"),
        (
            "What is the instrument on the <LR> of <Object>?",
            "On the left, {0}, {1}?",
            "order words",
        ),
        (
            "How many instruments in the video did not sound from beginning to end?",
            "How many instruments sound from beginning to end?",
            "the negation is lost",
        ),
    ],
)
def test_check_finds_a_planted_fault(text: str, wording: str, complaint: str) -> None:
    assert any(complaint in problem for problem in planted(text, wording))


def test_check_finds_too_few_missing_and_unknown_templates() -> None:
    few = {**wordings.WORDINGS, LOUDER: wordings.WORDINGS[LOUDER][:24], "Who is it?": ()}
    del few[SIDES]
    problems = "\n".join(wordings.check(few))
    assert "has 24 wordings" in problems
    assert f"no wordings for {SIDES!r}" in problems
    assert "'Who is it?' is no template" in problems
