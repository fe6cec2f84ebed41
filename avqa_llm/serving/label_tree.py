"""Log-likelihoods of closed answers from a server that is asked for few tokens at a time.

The answers' token ids make a tree. A node is what was said so far of an answer; what is learned
there are the log-probabilities of the tokens that can follow. The scores are those of
`avqa_llm.generation.rank`, which reads all answers in this process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from avqa_llm.generation import HOPELESS

Path = tuple[int, ...]
FAINT = 24.0
"""An answer e^24 times less likely than the best one changes no figure that is reported: margins
count up to e^15 (`calibrator.SUREST`)."""


class LabelTree:
    """The answers to one question, as far as they are known."""

    def __init__(self, answers: Sequence[Sequence[int]], *, keep: int) -> None:
        """`keep`: how many of the best ones must be exact, however unlikely they are."""
        self._answers = [tuple(ids) for ids in answers]
        self._keep = keep
        self._known: dict[Path, Mapping[int, float]] = {}

    def follow(self, path: Path) -> list[int]:
        """The tokens that answers have after `path`."""
        n = len(path)
        found = {ids[n]: None for ids in self._answers if len(ids) > n and ids[:n] == path}
        return list(found)

    def learn(self, path: Path, chances: Mapping[int, float]) -> None:
        """Log-probabilities after `path`; of no use unless all that can follow are among them."""
        if all(token in chances for token in self.follow(path)):
            self._known[path] = chances

    def learn_along(self, said: Sequence[int], tops: Sequence[Mapping[int, float]]) -> None:
        """What the server said by itself, and the log-probabilities at each place of it."""
        for n, chances in enumerate(tops):
            path = tuple(said[:n])
            if not self.follow(path):
                break
            self.learn(path, chances)

    def missing(self) -> list[Path]:
        """Nodes to ask for next; none: the scores stand."""
        if () not in self._known:
            return [()]
        scores = self.scores()
        order = sorted(range(len(scores)), key=lambda n: -scores[n])
        bar = scores[order[0]] - FAINT
        wanted: dict[Path, None] = {}
        for place, n in enumerate(order):
            if place < self._keep or scores[n] > bar:
                wanted.update(dict.fromkeys(self._unknown(n)))
        return list(wanted)

    def scores(self) -> list[float]:
        """Log-likelihoods; of answers that are not read to their end, of their known start."""
        first = self._known[()]
        single = [first[ids[0]] for ids in self._answers if len(ids) == 1]
        self._bar = max(single, default=-float("inf")) - HOPELESS
        return [self._score(ids) for ids in self._answers]

    def _score(self, ids: Path) -> float:
        total = self._known[()][ids[0]]
        if total <= self._bar:
            return total
        for n in range(1, len(ids)):
            if ids[:n] not in self._known:
                break
            total += self._known[ids[:n]][ids[n]]
        return total

    def _unknown(self, number: int) -> list[Path]:
        """Nodes of an answer that are not known, unless it is hopeless."""
        ids = self._answers[number]
        if self._known[()][ids[0]] <= self._bar:
            return []
        return [ids[:n] for n in range(1, len(ids)) if ids[:n] not in self._known]
