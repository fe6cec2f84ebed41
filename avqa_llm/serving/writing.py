"""What an asker sees of an open answer while it is written.

A model writes its steps first, then a mark, then the answer (`avqa_llm.prompt`). The steps are no
part of the answer, so nothing is told before the mark; where none comes, all was the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from avqa_llm.engine import OPEN_LIMIT
from avqa_llm.prompt import Prompt
from avqa_llm.serving.contract import Delta, Token

HALF = "\ufffd"
"""What a tokenizer gives for the first bytes of a letter: the rest is to come."""


class Asked(Protocol):
    """What a writer has to know of a question."""

    @property
    def most_tokens(self) -> int | None:
        """Of steps and answer together; None, or more than an open answer may have: that limit."""

    @property
    def logprobs(self) -> int:
        """How many runners-up of each token are told."""

    @property
    def said(self) -> Callable[[Delta], None]:
        """Is told how the answer goes on."""

    @property
    def gone(self) -> Callable[[], bool]:
        """Whether nobody wants the answer any more."""


class Writer:
    """One row of a batch."""

    def __init__(self, prompt: Prompt, asked: Asked) -> None:
        self._prompt, self._asked = prompt, asked
        self.limit = min(asked.most_tokens or OPEN_LIMIT, OPEN_LIMIT)
        self.finish = "stop"
        self._mark = prompt.steps_end[-1]
        self._written = 0
        self._answer: list[int] | None = None  # None: it writes steps yet
        self._told = ""
        self._new: list[Token] = []  # written, and not told yet

    def wrote(self, token: int, chance: float, logits_V: Tensor) -> bool:
        """Take the next token; True: write no more."""
        self._written += 1
        self._new.append(self._token(token, chance, logits_V))
        if self._answer is not None:
            self._answer.append(token)
            self._tell(self._prompt.tokenizer.decode(self._answer).strip(), whole=False)
        elif token == self._mark:
            self._answer, self._new = [], []
        is_full = self._written >= self.limit
        if is_full:
            self.finish = "length"
        return is_full or self._asked.gone()

    def end(self, text: str) -> None:
        """Tell what is not told yet of the whole answer."""
        self._tell(text, whole=True)

    def _tell(self, text: str, *, whole: bool) -> None:
        """Tell how the text goes on."""
        more = text.removeprefix(self._told)
        if not more or (more.endswith(HALF) and not whole):
            return
        self._told, new, self._new = text, self._new, []
        self._asked.said(Delta(text=more, tokens=tuple(new)))

    def _token(self, token: int, chance: float, logits_V: Tensor) -> Token:
        decode = self._prompt.tokenizer.decode
        top: tuple[tuple[str, float], ...] = ()
        if self._asked.logprobs:
            likely = logits_V.log_softmax(-1).topk(min(self._asked.logprobs, len(logits_V)))
            pairs = zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
            top = tuple((decode([other]), value) for other, value in pairs)
        return Token(text=decode([token]), logprob=chance, top=top)
