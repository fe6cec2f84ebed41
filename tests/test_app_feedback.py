"""Feedback: kept with consent only, forgotten on demand, exported as pairs that training reads."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app import feedback
from app.feedback import Feedback, FeedbackError
from avqa_llm.answer import Answer
from avqa_llm.media.changes import Cut
from instruct_data.pairs import read_pairs
from instruct_data.records import Clip

ROOT = Path(__file__).resolve().parent.parent
CLIP = "a1" * 32
WORDS = "I agree that my thumbs are kept."


def said(text: str, label: str = "no_answer") -> Answer:
    return Answer(answer=text, label=label, probability=0.7, consumed=None)


@pytest.fixture
def store(tmp_path: Path) -> Feedback:
    kept = Feedback(tmp_path / "new" / "feedback.sqlite")
    for session in ("ann", "bob"):
        kept.consent(session, WORDS)
    return kept


def pairs(store: Feedback) -> list[tuple[str, str, str]]:
    out = store.path.with_name("pairs.jsonl")
    count = store.export_pairs(out)
    read = [(pair.question, pair.chosen, pair.rejected) for pair in read_pairs(out)]
    assert len(read) == count
    return read


def test_nothing_is_kept_without_consent(tmp_path: Path) -> None:
    store = Feedback(tmp_path / "feedback.sqlite")
    with pytest.raises(FeedbackError, match="before you agree"):
        store.add("eve", CLIP, "Who is it?", said("me"), 1)
    assert store.count() == 0 and not store.has_consent("eve")
    store.consent("eve", WORDS)
    store.consent("eve", WORDS + " Really.")
    assert store.has_consent("eve") and not store.has_consent("ann")
    store.add("eve", CLIP, "Who is it?", said("me"), 1)
    store.consent("eve", WORDS)  # to agree once more deletes nothing
    assert store.count() == 1


def test_a_correction_becomes_a_pair_that_training_reads(store: Feedback, tmp_path: Path) -> None:
    cut = Cut(start_s=2.0, end_s=5.5, mirrored=True, sound=False)
    store.add(
        "ann", CLIP, "Is it <loud>?", said("no", "no"), -1, "  yes, \n it is ", "tiny", cut=cut
    )
    assert store.export_pairs(tmp_path / "out" / "pairs.jsonl") == 1
    (pair,) = read_pairs(tmp_path / "out" / "pairs.jsonl")
    assert (pair.question, pair.chosen, pair.rejected) == ("Is it <loud>?", "yes, it is", "no")
    assert pair.clip == Clip(video=CLIP, start_s=2.0, end_s=5.5, mirrored=True, sound=False)
    assert (pair.label, pair.tag, pair.source) == ("yes", "mined", "feedback")
    assert pair.provenance[1] == "model tiny"
    assert not list(tmp_path.glob("out/*.writing"))


def test_a_thumb_down_is_paired_with_what_others_liked(store: Feedback) -> None:
    store.add("ann", CLIP, "How  many?", said("two"), -1)
    assert pairs(store) == []  # nobody has said yet what is right
    store.add("bob", CLIP, "how many?", said("three"), 1)
    store.add("bob", "b2" * 32, "how many?", said("four"), 1)  # another clip
    assert pairs(store) == [("How  many?", "three", "two")]
    store.add("bob", CLIP, "How many?", said("two"), -1)  # the same again: one pair
    assert pairs(store) == [("How  many?", "three", "two")]


def test_what_people_disagree_on_is_left_out(store: Feedback) -> None:
    store.add("ann", CLIP, "Left or right?", said("left"), -1, "right")
    store.add("bob", CLIP, "Left or right?", said("right"), -1, "left")
    store.add("ann", CLIP, "Is it?", said("yes"), -1, "Yes")  # no correction at all
    assert pairs(store) == []


def test_a_session_is_forgotten_wholly(store: Feedback) -> None:
    store.add("ann", CLIP, "secret question", said("no"), -1, "unmistakable correction")
    store.add("bob", CLIP, "Is it?", said("no"), -1, "yes")
    with contextlib.closing(sqlite3.connect(store.path)) as other:  # it keeps the log alive
        other.execute("SELECT * FROM consent").fetchall()
        assert store.forget("ann") == 1 and store.forget("ann") == 0
        kept = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    assert b"unmistakable" not in kept and b"secret question" not in kept
    assert store.count() == 1 and not store.has_consent("ann") and store.has_consent("bob")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"question": "q" * 2001}, "a question of 2001 characters, at most 2000"),
        ({"correction": "c" * 2001}, "a correction of 2001 characters, at most 2000"),
        ({"session": "s" * 129}, "a session of 129 characters, at most 128"),
        ({"answer": said("a" * 4001)}, "an answer of 4001 characters, at most 4000"),
        ({"thumb": 0}, r"a thumb of 0: give \+1 or -1"),
        ({"clip": "../../etc/passwd"}, "is no SHA-256"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_a_sentence(
    store: Feedback, change: dict, message: str
) -> None:
    given = {"session": "ann", "clip": CLIP, "question": "q", "answer": said("a"), "thumb": -1}
    with pytest.raises(FeedbackError, match=message):
        store.add(**{**given, **change})
    assert store.count() == 0


def test_a_session_cannot_fill_the_store(store: Feedback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "MOST_PER_SESSION", 2)
    monkeypatch.setattr(feedback, "MOST_ROWS", 3)
    for session in ("ann", "ann", "bob"):
        store.add(session, CLIP, "q", said("a"), 1)
    with pytest.raises(FeedbackError, match="the most that are kept of one"):
        store.add("ann", CLIP, "q", said("a"), 1)
    with pytest.raises(FeedbackError, match="the store holds 3 thumbs"):
        store.add("bob", CLIP, "q", said("a"), 1)


def test_many_threads_and_stores_lose_nothing(store: Feedback) -> None:
    def one(number: int) -> int:
        return Feedback(store.path).add("ann", CLIP, f"q{number}", said("a"), -1, f"c{number}")

    with ThreadPoolExecutor(12) as pool:
        ids = list(pool.map(one, range(60)))
    assert len(set(ids)) == store.count() == len(pairs(store)) == 60


def test_a_foreign_or_newer_file_is_left_alone(tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    Feedback(newer)
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(FeedbackError, match="version 99"):
        Feedback(newer)
    text = tmp_path / "notes.txt"
    text.write_text("my notes, which are precious" * 50)
    with pytest.raises(FeedbackError, match="cannot be used"):
        Feedback(text)
    assert text.read_text().startswith("my notes")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(FeedbackError, match="version 0"):
        Feedback(foreign)


def door(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.feedback", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_door_exports_and_forgets(store: Feedback, tmp_path: Path) -> None:
    store.add("ann", CLIP, "Is it?", said("no"), -1, "yes")
    out = tmp_path / "p.jsonl"
    done = door("export", str(out), "--store", str(store.path))
    assert done.returncode == 0 and done.stdout.startswith("1 pairs of 1 thumbs")
    assert [pair.chosen for pair in read_pairs(out)] == ["yes"]
    assert door("forget", "--session", "ann", "--store", str(store.path)).stdout.startswith("1 ")
    assert store.count() == 0
    absent = door("export", str(out), "--store", str(tmp_path / "absent"))
    assert absent.returncode == 2 and absent.stderr.count("\n") == 1
    assert not (tmp_path / "absent").exists()
