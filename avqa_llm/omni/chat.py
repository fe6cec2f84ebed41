"""The turns of a conversation around a clip, as token ids.

    opening (system, start of the user's turn) | clip | what is missing       the prefix
    question | middle (start of the answer)                                   a question
    answer, end of the turn                                                   what is learned

An earlier question and its answer stand before the question, as turns. The template is the
tokenizer's own where it has one, else ChatML, which all Qwen models use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avqa_llm.errors import CheckpointError
from avqa_llm.prompt import Turn, spoken

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SOUND, NO_PICTURE = "The clip has no sound.\n", "The clip has no picture.\n"
_USER, _ASSISTANT = "\x02user\x02", "\x02assistant\x02"


class Chat:
    """Builds ids for one tokenizer. Training and answering both go through here."""

    def __init__(self, tokenizer: Any, *, instruction: str = "") -> None:
        """Raises CheckpointError on a template without a mark at the end of an answer."""
        self.tokenizer = tokenizer
        template = getattr(tokenizer, "chat_template", None) or CHATML
        turn = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ASSISTANT}]
        twice = tokenizer.apply_chat_template(turn + turn, tokenize=False, chat_template=template)
        asked = tokenizer.apply_chat_template(
            turn[:1], tokenize=False, chat_template=template, add_generation_prompt=True
        )
        opening, middle = asked.split(_USER)
        self.opening, self.middle = self._special(opening), self._special(middle)
        between = self._special(twice.split(_ASSISTANT)[1].split(_USER)[0])
        if not between or between[0] not in tokenizer.all_special_ids:
            raise CheckpointError(
                "the chat template ends an answer with no special word: nothing would tell where"
                " an answer ends"
            )
        self.end, self.between = between[:1], between[1:]
        self.instruction = f"\n{instruction}" if instruction else ""

    def text(self, text: str) -> list[int]:
        """Ids of plain text; special words in it stay plain text."""
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return [int(i) for i in encoded["input_ids"]]

    def _special(self, text: str) -> list[int]:
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)
        return [int(i) for i in encoded["input_ids"]]

    def prefix(self, clip: Sequence[int], *, sound: bool, picture: bool) -> list[int]:
        """The clip's prefix: what every question about it goes on from."""
        missing = ("" if sound else NO_SOUND) + ("" if picture else NO_PICTURE)
        return [*self.opening, *clip, *self.text(missing)]

    def question(self, question: str, history: Sequence[Turn] = ()) -> list[int]:
        """Earlier turns and the question, up to where the answer starts."""
        ids: list[int] = []
        for turn in history:
            ids += self._asked(turn.question) + self.answer(turn.answer) + self.between
        return ids + self._asked(question)

    def _asked(self, question: str) -> list[int]:
        return self.text(spoken(question) + self.instruction) + self.middle

    def answer(self, answer: str) -> list[int]:
        """An answer with the end of its turn: all that is learned."""
        return self.text(spoken(answer)) + self.end
