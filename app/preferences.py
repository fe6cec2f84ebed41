"""Preference pairs from what people said about answers.

A thumb down with a correction makes a pair at once: the correction is preferred to what the model
said. Without one, the answer is paired with answers that somebody liked to the same question about
the same clip. Pairs on which people disagree are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from avqa_llm.labels import NO_ANSWER, to_label

Pair = dict[str, Any]
"""A line as `python -m instruct_data` reads pairs."""


def pairs_of(rows: Sequence[dict[str, Any]]) -> Iterator[Pair]:
    """Preference pairs from rows of the store, each once, without those that are disputed."""
    liked: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        right = row["correction"] or (row["answer"] if row["thumb"] > 0 else "")
        if right.strip():
            liked.setdefault(_asked(row), []).append(right.strip())
    found: dict[tuple[str, ...], Pair] = {}
    for row in rows:
        for chosen in _better(row, liked.get(_asked(row), [])):
            found.setdefault((*_asked(row), chosen, row["answer"].strip()), _pair(row, chosen))
    for (*asked, chosen, rejected), pair in found.items():
        if (*asked, rejected, chosen) not in found:
            yield pair


def _asked(row: dict[str, Any]) -> tuple[str, ...]:
    return row["clip"], row["cut"], " ".join(row["question"].casefold().split())


def _better(row: dict[str, Any], liked: Sequence[str]) -> list[str]:
    """What is preferred to the answer of a row: its own correction, else what others liked."""
    said = row["answer"].strip()
    if row["thumb"] > 0 and not row["correction"]:
        return []
    wanted = [row["correction"]] if row["correction"] else dict.fromkeys(liked)
    return [text for text in wanted if said and text.casefold() != said.casefold()]


def _pair(row: dict[str, Any], chosen: str) -> Pair:
    label = to_label(chosen)
    pair = {
        "record": f"feedback-{row['id']}",
        "clip": {"video": row["clip"], **json.loads(row["cut"])},
        "question": row["question"],
        "chosen": chosen,
        "rejected": row["answer"].strip(),
        "tag": "mined",
        "source": "feedback",
        "split": "train",
        "licence": "given with consent for training",
        "provenance": [f"thumb {row['thumb']:+d}, row {row['id']}", f"model {row['model']}"],
    }
    return pair if label == NO_ANSWER else {**pair, "label": label}
