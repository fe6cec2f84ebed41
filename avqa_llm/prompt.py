"""The order of a prompt, as text pieces and places for soft tokens.

From what changes least to what changes most, so that a second question about the same
clip reuses everything before it:

    opening | Sound: <soft> | Picture: <soft> | Clues: <soft> | Events: record    the clip
    earlier questions and answers                                  the conversation
    Clues: <soft> | Question: ... | Answer:                              this question

The first clues answer the standing question "Events:", for which the model writes down what
happens in the clip: its event record. Later clues depend on the question, hence their place
beside it and not before the conversation.
A tokenizer with a chat template wraps the same pieces in its own turns.

Shapes: ids are plain lists; soft tokens are the negative ids below, one for each vector
that `avqa_llm.model` puts there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SOUND, PICTURE, CLUE = -1, -2, -3
"""Ids that stand for one soft token of the sound, of the picture, of the clues."""
STEPS_END = ":"
"""Between the steps that an answer may show and the answer itself."""
_USER, _ASSISTANT = "\x02user\x02", "\x02assistant\x02"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One earlier question with its answer."""

    question: str
    answer: str


class Prompt:
    """Builds token ids for one tokenizer. Training and inference both go through here."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos = [int(tokenizer.eos_token_id)]
        first, again = _turn_texts(tokenizer)
        bos = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self.opening = bos + self._turn(first[0], after=bos)
        self.turn_open = self._turn(again[0], after=self.eos)
        self.turn_middle, self.turn_close = self._turn(again[1]), self._turn(again[2])
        self.sound, self.picture = self.text("Sound:"), self.text("Picture:")
        self.events, self.clues = self.text("Events:"), self.text("Clues:")
        self.ask, self.reply = self.text("Question:"), self.text("Answer:")
        self.steps_end = self.text(STEPS_END)

    def text(self, text: str) -> list[int]:
        """Ids of a piece of text, without special tokens; special words in it stay plain text."""
        if not text:
            return []
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return [int(i) for i in encoded["input_ids"]]

    def _turn(self, text: str, *, after: Sequence[int] = ()) -> list[int]:
        """Ids around a turn: special words of the template are special here.

        Many templates write BOS and EOS themselves; one that stands in `after` is not repeated.
        """
        if not text:
            return []
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)
        ids = [int(i) for i in encoded["input_ids"]]
        return ids[len(after) :] if after and ids[: len(after)] == list(after) else ids

    def clip(self, n_sound: int, n_picture: int, n_clues: int = 0) -> list[int]:
        """The clip's prefix up to where its record is written. Missing modalities are absent."""
        ids = list(self.opening)
        if n_sound:
            ids += self.sound + [SOUND] * n_sound
        if n_picture:
            ids += self.picture + [PICTURE] * n_picture
        if n_clues:
            ids += self.clues + [CLUE] * n_clues
        return ids + self.events

    def record(self, record: str) -> list[int]:
        """The event record as it stands in the prefix, with the mark that ends it."""
        return self.text(spoken(record)) + self.eos

    def question(self, question: str, n_clues: int, *, again: bool = False) -> list[int]:
        """Clues and question, up to where the answer starts. `again`: not the first turn."""
        return self.question_ids(self.text(spoken(question)), n_clues, again=again)

    def question_ids(self, words: list[int], n_clues: int, *, again: bool = False) -> list[int]:
        """`question`, whose text is given as ids."""
        ids = list(self.turn_open) if again else []
        if n_clues:
            ids += self.clues + [CLUE] * n_clues
        return ids + self.ask + words + self.turn_middle + self.reply

    def answer(self, steps: str, answer: str) -> list[int]:
        """What the model is to say: steps, mark, answer, end."""
        return self.text(spoken(steps)) + self.steps_end + self.text(spoken(answer)) + self.eos

    def steps_in(self, ids: Sequence[int]) -> int:
        """How many tokens of what the model said are steps, with the mark that ends them.

        The first mark counts: an answer in free words may hold a colon of its own.
        """
        return next((n + 1 for n, token in enumerate(ids) if token == self.steps_end[-1]), 0)

    def history(self, turns: Sequence[Turn]) -> list[int]:
        """Earlier turns, without their clues."""
        ids: list[int] = []
        for n, turn in enumerate(turns):
            ids += self.question(turn.question, 0, again=n > 0) + self.answer("", turn.answer)
            ids += self.turn_close
        return ids


def spoken(label: str) -> str:
    """A label as it is written in text: `acoustic_guitar` is `acoustic guitar`."""
    return label.replace("_", " ")


def _turn_texts(tokenizer: Any) -> tuple[list[str], list[str]]:
    """Texts around a user's and an assistant's words: for the first turn and for later ones."""
    if not getattr(tokenizer, "chat_template", None):
        return ["", "", ""], ["", "", ""]
    turn = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ASSISTANT}]
    once = tokenizer.apply_chat_template(turn, tokenize=False)
    twice = tokenizer.apply_chat_template(turn + turn, tokenize=False)
    opening, rest = once.split(_USER, 1)
    middle, _ = rest.split(_ASSISTANT, 1)
    between = twice.split(_ASSISTANT, 1)[1].split(_USER, 1)[0]
    return [opening, middle, ""], [between, middle, ""]
