"""Answers with a language model in a stock vLLM; encoders, bridge and words are in this process.

Whole prompts go there as vectors, what the bridge made and the words looked up here, so that the
server reads the very prompt that `LocalEngine` reads. A request gives the steps and, of the
answer that the model says by itself, the chances of all closed answers on the way; what is still
open of their tree is asked for one token at a time.

Legend: L tokens of a prompt, E width of the language model.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avqa_llm import engine as local
from avqa_llm.encoders.cache import FeatureCache
from avqa_llm.encoders.store import FeatureStore
from avqa_llm.encoders.tags import Tags
from avqa_llm.engine import Engine, Outcome, Reading
from avqa_llm.errors import AVQAError
from avqa_llm.generation import Written
from avqa_llm.model import AVQAModel
from avqa_llm.presets import find_model
from avqa_llm.prompt import Turn
from avqa_llm.questions import Questions
from avqa_llm.serving.contract import Delta, Done, Token
from avqa_llm.serving.label_tree import LabelTree
from avqa_llm.serving.label_tree import Path as Node
from avqa_llm.serving.vllm_client import WANTED, Completion, VLLMClient, Wish

LABEL_TOKENS = 8
"""An answer that the model says by itself is followed so far in the request of the steps."""


class VLLMEngine(Engine):
    """As `LocalEngine`: read, encode, digest, ask, answer, answer_many, and a `Session`.

    Calls block; what one call asks the server goes there at once. Threads may share it.
    All that asks the server raises RetryableError where it is away.
    """

    def __init__(
        self,
        model: AVQAModel,
        client: VLLMClient,
        *,
        name: str,
        cache: FeatureCache | None = None,
        features: FeatureStore | None = None,
    ) -> None:
        """Take a model over.

        Args:
            model: of which encoders, bridge and words are used (`AVQAModel.without_llm`).
            client: of the server with its language model.
            name: under which the server knows the language model with this model's LoRA.
            cache: where encoder tokens of clips are kept on disk; none: in memory only.
            features: where those of many clips are already (`avqa features`).
        """
        super().__init__(model, cache=cache, features=features)
        self.client, self.name = client, name
        self._eos = tuple(model.prompt.eos)

    @classmethod
    def load(
        cls,
        model: str | Path,
        client: VLLMClient,
        *,
        name: str,
        cache: bool = False,
        features: Path | None = None,
        words: tuple[Any, Any] | None = None,
    ) -> VLLMEngine:
        """Load a preset or a model directory without its language model's layers.

        Args:
            model: the preset or directory.
            client: as of the constructor, like `name`.
            name: of the language model on the server.
            cache: whether encoder tokens are kept on disk.
            features: a folder of `avqa features`.
            words: `(engine.model.llm, engine.model.prompt.tokenizer)` of another of the same base.

        Raises:
            CheckpointError: there is none of that name, it is incomplete, or the features are
                not those of its encoders.
        """
        loaded = AVQAModel.without_llm(find_model(model), words=words)
        kept = FeatureCache(local.cache_folder(), local.CACHE_BYTES) if cache else None
        store = None if features is None else FeatureStore(features)
        return cls(loaded, client, name=name, cache=kept, features=store)

    # -- what the language model does --------------------------------------------------------

    def _watch(
        self, embeds: Sequence[Tensor], tags: Sequence[Tags] | None
    ) -> tuple[list[Tensor], Written]:
        if not self.model.config.records:
            return list(embeds), Written([[] for _ in embeds], [[] for _ in embeds])
        said = self.client.complete_all([self._wish(one, local.RECORD_LIMIT) for one in embeds])
        written = _written(said, set(self._eos))
        if tags is None:
            ids = [[*one.ids] for one in said]
        else:
            written = self._corrected(written, tags)
            ids = [one + list(self._eos) for one in written.ids]
        return [self._with(*both) for both in zip(embeds, ids, strict=True)], written

    def _outcomes(
        self,
        reading: Reading,
        questions: Questions,
        numbers: Sequence[int],
        offered: Sequence[tuple[str, ...]] | None,
        runners_up: int,
    ) -> list[Outcome]:
        before = [reading.chances[questions.clips[n]] for n in numbers]
        prompts = [self._asked(reading, questions, n) for n in numbers]
        if offered is None:
            said = self.client.complete_all([self._wish(one, local.OPEN_LIMIT) for one in prompts])
            return self._said(_written(said, set(self._eos)), before)
        texts = self._texts(offered)
        rows = [
            _Row(embeds, LabelTree(own, keep=1 + runners_up), _tokens(own))
            for embeds, own in zip(prompts, texts, strict=True)
        ]
        steps = self._steps(rows)
        records = [reading.records[questions.clips[n]] for n in numbers]
        if right := self._misquoted(steps, records):
            steps = replace(steps, ids=[right.get(n, ids) for n, ids in enumerate(steps.ids)])
            for n, ids in right.items():
                rows[n].embeds_LE = self._with(prompts[n], ids + self.model.prompt.steps_end)
                rows[n].tree = LabelTree(texts[n], keep=1 + runners_up)
        self._grow(rows)
        scores = torch.full((len(rows), max(map(len, texts))), -torch.inf)
        for n, row in enumerate(rows):
            scores[n, : len(texts[n])] = torch.tensor(row.tree.scores())
        return self._judged(scores, steps, before, offered, runners_up)

    def _steps(self, rows: Sequence[_Row]) -> Written:
        """Write steps, and what is said after them as far as it is one of the answers."""
        stops, limit = {self.model.prompt.steps_end[-1], *self._eos}, local.STEPS_LIMIT
        most = limit + LABEL_TOKENS
        said = self.client.complete_all(
            [self._wish(row.embeds_LE, most, wanted=row.tokens[:WANTED]) for row in rows]
        )
        cuts = [_end(one.ids[:limit], stops) for one in said]
        for row, one, cut in zip(rows, said, cuts, strict=True):
            row.embeds_LE = self._with(row.embeds_LE, one.ids[:cut])
            row.tree.learn_along(one.ids[cut:], one.tops[cut:])
        until = [
            replace(one, ids=one.ids[:cut], chances=one.chances[:cut])
            for one, cut in zip(said, cuts, strict=True)
        ]
        return _written(until, stops)

    def _grow(self, rows: Sequence[_Row]) -> None:
        """Ask for what is not known of the trees, until their scores stand."""
        while asked := [(row, node) for row in rows for node in row.tree.missing()]:
            wishes = [
                (row, node, some)
                for row, node in asked
                for some in _chunks(row.tree.follow(node), WANTED)
            ]
            said = self.client.complete_all(
                [
                    self._wish(self._with(row.embeds_LE, node), 1, wanted=some)
                    for row, node, some in wishes
                ]
            )
            found: dict[tuple[int, Node], dict[int, float]] = {}
            for (row, node, _), one in zip(wishes, said, strict=True):
                found.setdefault((id(row), node), {}).update(one.tops[0])
            for row, node in asked:
                row.tree.learn(node, found[id(row), node])

    def _asked(self, reading: Reading, questions: Questions, n: int) -> Tensor:
        """The whole prompt (L, E) of a question."""
        placed, _ = questions.place(self.model, [n])
        whole: Tensor = torch.cat([reading.context[questions.clips[n]], placed[0]])
        return whole

    def _with(self, embeds_LE: Tensor, ids: Sequence[int]) -> Tensor:
        """Vectors with those of further words after them."""
        if not ids:
            return embeds_LE
        words = self.model.llm.get_input_embeddings()(torch.tensor([ids], device=embeds_LE.device))
        return torch.cat([embeds_LE, words[0].detach().to(embeds_LE.dtype)])

    def _wish(self, embeds_LE: Tensor, most: int, **more: Any) -> Wish:
        longest = self.client.longest
        if longest is not None:
            if len(embeds_LE) >= longest:
                raise AVQAError(
                    f"clip, conversation and question have {len(embeds_LE)} tokens, {self.name}"
                    f" takes {longest - 1}: begin a new conversation or ask a shorter question"
                )
            most = min(most, longest - len(embeds_LE))
        return Wish(model=self.name, embeds_LE=embeds_LE, most=most, stops=self._eos, **more)

    # -- as it is written -----------------------------------------------------------------------

    def stream(
        self,
        reading: Reading,
        question: str,
        *,
        history: Sequence[Turn] = (),
        most_tokens: int | None = None,
        logprobs: int = 0,
        evidence: bool = True,
    ) -> Iterator[Delta | Done]:
        """An open answer about the one clip of a reading, as it is written.

        Steps are not part of the answer, so nothing comes before they are over. `Done.answer` is
        what `ask` would give, without what `session.finished` adds. Close the iterator to end
        the request.

        Args:
            reading: of one clip.
            question: about it.
            history: what was said before.
            most_tokens: of the answer; none, or more than an open answer may have: that limit.
            logprobs: how many runners-up each token comes with; 0: no tokens come.
            evidence: whether the answer cites places.

        Raises:
            RetryableError: the server is away, or went away in the middle.
        """
        with torch.inference_mode():
            questions = Questions.of(self.model, reading.keys, [(0, question)], history)
            embeds = self._asked(reading, questions, 0)
        most = min(most_tokens or local.OPEN_LIMIT, local.OPEN_LIMIT)
        teller = _Teller(self.model, steps=self.model.config.records, tokens=logprobs > 0)
        for piece in self.client.stream(self._wish(embeds, most, top=logprobs)):
            delta = teller.hear(piece)
            if delta is not None:
                yield delta
        said = teller.whole()
        if (delta := teller.rest()) is not None:
            yield delta
        (outcome,) = self._said(_written([said], set(self._eos)), reading.chances)
        (answer,) = self._answers(reading, questions, [outcome], evidence=evidence)
        yield Done(answer=answer, completion_tokens=len(said.ids), finish_reason=said.finish)

    async def astream(
        self, reading: Reading, question: str, **how: Any
    ) -> AsyncIterator[Delta | Done]:
        """`stream` for an event loop: a thread reads, and stops when this is closed."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Any]()
        stop = threading.Event()

        def put(event: Any) -> None:
            with suppress(RuntimeError):  # the loop has ended, nobody listens
                loop.call_soon_threadsafe(events.put_nowait, event)

        def pump() -> None:
            try:
                for event in self.stream(reading, question, **how):
                    if stop.is_set():
                        break
                    put(event)
                put(None)
            except BaseException as error:  # it is raised where the events are awaited
                put(error)

        threading.Thread(target=pump, name="vllm-stream", daemon=True).start()
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            stop.set()


@dataclass
class _Row:
    """A question on its way."""

    embeds_LE: Tensor
    """The prompt; after `_steps`, with the steps."""
    tree: LabelTree
    tokens: tuple[int, ...]
    """All ids that its answers have, first ones first."""


class _Teller:
    """Makes pieces of text of the ids of an open answer."""

    def __init__(self, model: AVQAModel, *, steps: bool, tokens: bool) -> None:
        self._prompt, self._tokens = model.prompt, tokens
        self._mark = model.prompt.steps_end[-1]
        self._silent = steps
        self._heard: list[Completion] = []
        self._ids: list[int] = []
        self._late: list[Token] = []  # said, and not yet told
        self._told = ""

    def hear(self, piece: Completion) -> Delta | None:
        """The piece as far as it belongs to the answer and is whole letters."""
        self._heard.append(piece)
        for token, chance, top in zip(piece.ids, piece.chances, piece.tops, strict=True):
            if token in self._prompt.eos:
                continue
            self._ids.append(token)
            self._late.append(self._token(token, chance, top))
            if self._silent and token == self._mark:
                self._silent, self._ids, self._late = False, [], []
        return None if self._silent else self._delta()

    def rest(self) -> Delta | None:
        """What was held back: the end of a letter, or all of it where there were no steps."""
        return self._delta(whole=True)

    def _delta(self, *, whole: bool = False) -> Delta | None:
        text = self._prompt.tokenizer.decode(self._ids).lstrip()
        if len(text) <= len(self._told) or (text.endswith("\ufffd") and not whole):
            return None
        new, self._told = text[len(self._told) :], text
        late, self._late = self._late, []
        return Delta(text=new, tokens=tuple(late) if self._tokens else ())

    def _token(self, token: int, chance: float, top: dict[int, float]) -> Token:
        decode = self._prompt.tokenizer.decode
        others = sorted(top.items(), key=lambda both: -both[1])
        return Token(
            text=decode([token]),
            logprob=chance,
            top=tuple((decode([other]), likely) for other, likely in others),
        )

    def whole(self) -> Completion:
        """All that was heard."""
        return Completion(
            ids=tuple(token for piece in self._heard for token in piece.ids),
            chances=tuple(chance for piece in self._heard for chance in piece.chances),
            tops=(),
            finish=next((p.finish for p in reversed(self._heard) if p.finish), "stop"),
        )


def _written(said: Sequence[Completion], stops: set[int]) -> Written:
    """As `generation.greedy` gives it: ids without the stop, chances with it."""
    ids = [[*one.ids[:-1]] if one.ids and one.ids[-1] in stops else [*one.ids] for one in said]
    return Written(ids, [list(one.chances) for one in said])


def _end(ids: Sequence[int], stops: set[int]) -> int:
    """How many tokens there are up to the first stop, which counts."""
    return next((n + 1 for n, token in enumerate(ids) if token in stops), len(ids))


def _tokens(answers: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """All ids of answers, those at the start of one first."""
    longest = max(len(ids) for ids in answers)
    return tuple(dict.fromkeys(ids[n] for n in range(longest) for ids in answers if len(ids) > n))


def _chunks(ids: Sequence[int], most: int) -> list[tuple[int, ...]]:
    return [tuple(ids[at : at + most]) for at in range(0, len(ids), most)]
