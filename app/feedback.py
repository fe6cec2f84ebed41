"""What people say about answers, kept on this machine and turned into preference pairs.

Nothing is kept without consent, which is recorded first; whoever gave it can have everything
forgotten. `preferences` makes pairs of it.

    python -m app.feedback export OUT --store FILE
    python -m app.feedback forget --session ID --store FILE
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.preferences import pairs_of
from avqa_llm.answer import Answer
from avqa_llm.errors import AVQAError
from avqa_llm.media.changes import Cut

SCHEMA = 1
"""Version of the store, in SQLite's `user_version`."""
LONGEST = {"session": 128, "question": 2000, "correction": 2000, "model": 200, "consent": 2000}
"""Characters of each text; longer ones are refused."""
LONGEST_ANSWER = 4000
"""Characters of a model's answer; what is longer cannot be judged here."""
MOST_PER_SESSION = 500
MOST_ROWS = 200_000
WAIT_S = 10.0
"""For another thread or process that writes."""
SHA256 = re.compile(r"[0-9a-f]{64}")
TABLES = """
CREATE TABLE consent (session TEXT PRIMARY KEY, words TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE feedback (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  session TEXT NOT NULL REFERENCES consent (session) ON DELETE CASCADE,
  clip TEXT NOT NULL, cut TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL,
  label TEXT NOT NULL, probability REAL, thumb INTEGER NOT NULL CHECK (thumb IN (-1, 1)),
  correction TEXT NOT NULL, model TEXT NOT NULL, at REAL NOT NULL
);
CREATE INDEX feedback_of_session ON feedback (session);
"""


class FeedbackError(AVQAError):
    """Feedback that cannot be kept, or a store that cannot be used."""


class Feedback:
    """A store of feedback in one SQLite file, for any number of threads and processes.

    Each call has a connection of its own; writers wait for each other.

    Raises:
        FeedbackError: the file is no store of ours, or is of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as store:
            store.execute("PRAGMA journal_mode = WAL")
            store.execute("BEGIN IMMEDIATE")
            self._settle(store)

    def consent(self, session: str, words: str) -> None:
        """Record that a session agreed, and to which words."""
        _bounded(session=session, consent=words)
        if not session:
            raise FeedbackError("consent without a session: give the session's id")
        with self._open() as store:
            store.execute(
                "INSERT INTO consent VALUES (?, ?, ?) "
                "ON CONFLICT (session) DO UPDATE SET words = excluded.words, at = excluded.at",
                (session, words, time.time()),
            )

    def has_consent(self, session: str) -> bool:
        """Whether a session agreed."""
        with self._open() as store:
            return _count(store, "consent WHERE session = ?", session) > 0

    def add(
        self,
        session: str,
        clip: str,
        question: str,
        answer: Answer,
        thumb: int,
        correction: str = "",
        model: str = "",
        *,
        cut: Cut | None = None,
    ) -> int:
        """Keep a thumb (+1 or -1) and, if given, the right answer; returns the row's id.

        `clip` is the file's SHA-256, `cut` what was done to it before it was asked about.

        Raises:
            FeedbackError: the session has not agreed, a text is too long, or the store is full.
        """
        correction = " ".join(correction.split())
        _bounded(session=session, question=question, correction=correction, model=model)
        if thumb not in (-1, 1):
            raise FeedbackError(f"a thumb of {thumb}: give +1 or -1")
        if not SHA256.fullmatch(clip):
            raise FeedbackError(f"clip {clip[:70]!r} is no SHA-256 of a file, 64 digits of 0-9a-f")
        if len(answer.answer) > LONGEST_ANSWER:
            raise FeedbackError(
                f"an answer of {len(answer.answer)} characters, at most {LONGEST_ANSWER}: "
                "ask for a shorter one"
            )
        with self._open() as store:
            store.execute("BEGIN IMMEDIATE")
            _room(store, session)
            row = (session, clip, _cut_json(cut or Cut()), question, answer.answer, answer.label)
            more = (answer.probability, thumb, correction, model, time.time())
            done = store.execute(
                "INSERT INTO feedback (session, clip, cut, question, answer, label, probability, "
                "thumb, correction, model, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, *more),
            )
            return int(done.lastrowid or 0)

    def forget(self, session: str) -> int:
        """Delete everything of a session, its consent too; returns how many thumbs it had."""
        with self._open() as store:
            store.execute("BEGIN IMMEDIATE")
            count = _count(store, "feedback WHERE session = ?", session)
            store.execute("DELETE FROM consent WHERE session = ?", (session,))
        with self._open() as store:  # what was deleted is in the log until it is written back
            store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def count(self) -> int:
        """Thumbs in the store."""
        with self._open() as store:
            return _count(store, "feedback")

    def export_pairs(self, out: Path) -> int:
        """Write preference pairs as JSONL, aside first; returns how many.

        A line is a `Pair` as `python -m instruct_data` reads it. Its clip is named by the SHA-256
        of the file: a folder of media for it holds SHA256.mp4.
        """
        with self._open() as store:
            rows = store.execute("SELECT * FROM feedback ORDER BY id").fetchall()
        pairs = list(pairs_of([dict(row) for row in rows]))
        out.parent.mkdir(parents=True, exist_ok=True)
        writing = out.with_name(f"{out.name}.writing")
        try:
            lines = (json.dumps(pair, ensure_ascii=False) for pair in pairs)
            writing.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            os.replace(writing, out)
        finally:
            writing.unlink(missing_ok=True)
        return len(pairs)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are kept if all went well."""
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=WAIT_S)) as store:
                store.row_factory = sqlite3.Row
                store.execute("PRAGMA foreign_keys = ON")
                store.execute("PRAGMA secure_delete = ON")
                with store:
                    yield store
        except sqlite3.Error as error:
            raise FeedbackError(
                f"the feedback store {self.path} cannot be used ({error}): free it, or give another"
            ) from error

    def _settle(self, store: sqlite3.Connection) -> None:
        version = store.execute("PRAGMA user_version").fetchone()[0]
        tables = _count(store, "sqlite_master")
        if version == 0 and tables == 0:
            for statement in filter(str.strip, TABLES.split(";")):
                store.execute(statement)
            store.execute(f"PRAGMA user_version = {SCHEMA}")
        elif version != SCHEMA:
            raise FeedbackError(
                f"{self.path} has version {version} of the feedback store, this program knows "
                f"{SCHEMA}: give another file"
            )


def _count(store: sqlite3.Connection, of: str, *values: str) -> int:
    return int(store.execute(f"SELECT COUNT(*) FROM {of}", values).fetchone()[0])


def _room(store: sqlite3.Connection, session: str) -> None:
    if not _count(store, "consent WHERE session = ?", session):
        raise FeedbackError("nothing is kept before you agree: give consent first")
    if _count(store, "feedback WHERE session = ?", session) >= MOST_PER_SESSION:
        raise FeedbackError(
            f"this session has given {MOST_PER_SESSION} thumbs, the most that are kept of one: "
            "start another"
        )
    if _count(store, "feedback") >= MOST_ROWS:
        raise FeedbackError(f"the store holds {MOST_ROWS} thumbs, its most: export, then empty it")


def _bounded(**texts: str) -> None:
    for name, text in texts.items():
        if len(text) > LONGEST[name]:
            raise FeedbackError(
                f"a {name} of {len(text)} characters, at most {LONGEST[name]}: shorten it"
            )


def _cut_json(cut: Cut) -> str:
    """What `Clip` of instruct_data says beside the video, but for its defaults."""
    whole = vars(Cut())
    return json.dumps({name: value for name, value in vars(cut).items() if value != whole[name]})


# -- the door ----------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Export pairs, or forget a session."""
    parser = argparse.ArgumentParser(
        prog="python -m app.feedback", description="What people said about answers."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    export = commands.add_parser("export", help="write preference pairs as JSONL")
    export.add_argument("out", type=Path, metavar="OUT")
    forget = commands.add_parser("forget", help="delete everything of a session")
    forget.add_argument("--session", required=True, metavar="ID")
    for command in (export, forget):
        command.add_argument("--store", type=Path, required=True, metavar="FILE")
    args = parser.parse_args(argv)
    try:
        if not args.store.is_file():
            raise FeedbackError(f"{args.store} is no file: give the store of the page")
        store = Feedback(args.store)
        if args.command == "export":
            print(f"{store.export_pairs(args.out)} pairs of {store.count()} thumbs: {args.out}")
        else:
            print(f"{store.forget(args.session)} thumbs forgotten")
    except (AVQAError, OSError) as error:
        print(f"python -m app.feedback: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
