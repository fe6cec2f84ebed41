"""Questions of several requests in one batch of an engine, and readings one by one.

What `Engine.ask` does for questions about one reading after one history, for questions that came
from anywhere: each has its own reading, history, choices and limit, and the asker of an open
answer is told of it while it is written. Readings of a batch are taken apart to be kept.

Legend: N tokens, Q timeline tokens, D bridge width, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from avqa_llm.answer import Answer
from avqa_llm.bridge import ClipKeys
from avqa_llm.engine import Engine, Outcome, Reading
from avqa_llm.generation import apart, greedy, together
from avqa_llm.prompt import Turn
from avqa_llm.questions import Questions
from avqa_llm.serving.contract import Delta
from avqa_llm.serving.writing import Writer

RUNNERS_UP = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question."""

    reading: Reading
    """Of one clip."""
    question: str
    history: tuple[Turn, ...] = ()
    choices: tuple[str, ...] = ()
    open_ended: bool = False
    most_tokens: int | None = None
    logprobs: int = 0
    said: Callable[[Delta], None] = lambda delta: None
    """Is told how an open answer goes on, in the thread that writes it."""
    gone: Callable[[], bool] = lambda: False
    """Whether nobody wants the answer any more."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answer to a row."""

    answer: Answer
    tokens: int
    """That were written."""
    finish: str = "stop"


def taken_apart(reading: Reading) -> list[Reading]:
    """A reading of each clip, without the padding of the batch."""
    context = reading.context
    own = [[one] for one in context] if isinstance(context, list) else apart(context)
    return [
        replace(
            reading,
            tokens=reading.tokens[n : n + 1],
            paces=reading.paces[n : n + 1],
            keys=_own_keys(reading.keys, n),
            context=one,
            records=reading.records[n : n + 1],
            chances=reading.chances[n : n + 1],
        )
        for n, one in enumerate(own)
    ]


def put_together(readings: Sequence[Reading]) -> Reading:
    """Readings that were taken apart as one, to ask about."""
    if len(readings) == 1:
        return readings[0]
    contexts = [reading.context for reading in readings]
    is_list = isinstance(contexts[0], list)  # vectors for a server, which are not to be padded
    return Reading(
        tokens=tuple(one for reading in readings for one in reading.tokens),
        paces=tuple(one for reading in readings for one in reading.paces),
        keys=_joined_keys([reading.keys for reading in readings]),
        context=[one for some in contexts for one in some] if is_list else together(contexts),
        records=tuple(one for reading in readings for one in reading.records),
        chances=tuple(one for reading in readings for one in reading.chances),
        timing_s={},
    )


def bytes_of(reading: Reading) -> int:
    """What keeping a reading takes of memory."""
    keys, context = reading.keys, reading.context
    if isinstance(context, list):
        tensors = list(context)
    else:
        tensors = [tensor for layer in context.cache.layers for tensor in layer.own()]
    tensors += [*keys.sound, *keys.picture, keys.sound_BQE, keys.picture_BQE]
    for tokens in reading.tokens:
        tensors += [tokens.sound.values_ND, tokens.picture.values_ND]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def prompt_tokens(engine: Engine, row: Row) -> int:
    """Length of the prompt that a row becomes: soft tokens, record and conversation included."""
    prompt, keys = engine.model.prompt, row.reading.keys
    n_sound, n_picture = int(keys.sound_there_BQ.sum()), int(keys.picture_there_BQ.sum())
    clues = engine.model.config.bridge.clues * (bool(n_sound) + bool(n_picture))
    return (
        len(prompt.clip(n_sound, n_picture, clues))
        + len(row.reading.chances[0])
        + len(prompt.history(row.history))
        + len(prompt.question(row.question, clues, again=bool(row.history)))
    )


@torch.inference_mode()
def answer_rows(engine: Engine, rows: Sequence[Row]) -> list[Answered]:
    """Answer rows in one batch, in order; either all of them are open questions or none is."""
    started = time.perf_counter()
    readings = list({id(row.reading): row.reading for row in rows}.values())
    place = {id(reading): n for n, reading in enumerate(readings)}
    whole = put_together(readings)
    questions = Questions.of(
        engine.model,
        whole.keys,
        [(place[id(row.reading)], row.question) for row in rows],
        histories=[row.history for row in rows],
    )
    outcomes: dict[int, tuple[Outcome, int, str]] = {}
    for numbers in questions.batches(len(rows)):
        some = [rows[n] for n in numbers]
        found = (_open if rows[0].open_ended else _closed)(engine, whole, questions, numbers, some)
        outcomes.update(zip(numbers, found, strict=True))
    done = [outcomes[n] for n in range(len(rows))]
    answers = engine._answers(whole, questions, [one for one, _, _ in done], evidence=True)
    seconds = (time.perf_counter() - started) / len(rows)
    return [
        Answered(
            answer=replace(answer, timing_s={**row.reading.timing_s, "answer": seconds}),
            tokens=tokens,
            finish=finish,
        )
        for answer, row, (_, tokens, finish) in zip(answers, rows, done, strict=True)
    ]


def _closed(
    engine: Engine,
    whole: Reading,
    questions: Questions,
    numbers: Sequence[int],
    rows: Sequence[Row],
) -> list[tuple[Outcome, int, str]]:
    offered = [row.choices for row in rows]
    outcomes = engine._outcomes(whole, questions, numbers, offered, RUNNERS_UP)
    prompt = engine.model.prompt
    sizes = [len(prompt.answer(one.steps.removesuffix(":"), one.text)) for one in outcomes]
    return [(one, size, "stop") for one, size in zip(outcomes, sizes, strict=True)]


def _open(
    engine: Any,
    whole: Reading,
    questions: Questions,
    numbers: Sequence[int],
    rows: Sequence[Row],
) -> list[tuple[Outcome, int, str]]:
    """As `LocalEngine._outcomes`, each row with its own limit and listener."""
    writers = [Writer(engine.model.prompt, row) for row in rows]

    def watch(rows: list[int], ids: list[int], chances: list[float], logits: Tensor) -> list[int]:
        told = zip(rows, ids, chances, logits, strict=True)
        return [row for row, *new in told if writers[row].wrote(*new)]

    context, logits = engine._begin(whole, questions, numbers)
    said, _, _ = greedy(
        engine.decoder,
        context,
        logits,
        stops=set(engine.model.prompt.eos),
        limit=max(writer.limit for writer in writers),
        watch=watch,
    )
    outcomes = engine._said(said, [whole.chances[questions.clips[n]] for n in numbers])
    for writer, outcome in zip(writers, outcomes, strict=True):
        writer.end(outcome.text)
    sizes = [len(chances) for chances in said.chances]
    ends = [writer.finish for writer in writers]
    return list(zip(outcomes, sizes, ends, strict=True))


def _own_keys(keys: ClipKeys, n: int) -> ClipKeys:
    def cut(values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        found = there[n].nonzero()[:, 0]
        length = int(found[-1]) + 1 if len(found) else 1
        return values[n : n + 1, :length].clone(), there[n : n + 1, :length].clone()

    sound, sound_there = cut(keys.sound_BQE, keys.sound_there_BQ)
    picture, picture_there = cut(keys.picture_BQE, keys.picture_there_BQ)
    return ClipKeys(
        sound=cut(*keys.sound),
        picture=cut(*keys.picture),
        sound_BQE=sound,
        picture_BQE=picture,
        sound_there_BQ=sound_there,
        picture_there_BQ=picture_there,
    )


def _joined_keys(every: Sequence[ClipKeys]) -> ClipKeys:
    def join(parts: Sequence[Tensor]) -> Tensor:
        longest = max(part.shape[1] for part in parts)
        wide = [[0, 0] * (p.dim() - 2) + [0, longest - p.shape[1]] for p in parts]
        padded = [torch.nn.functional.pad(p, w) for p, w in zip(parts, wide, strict=True)]
        return torch.cat(padded)

    return ClipKeys(
        sound=(join([k.sound[0] for k in every]), join([k.sound[1] for k in every])),
        picture=(join([k.picture[0] for k in every]), join([k.picture[1] for k in every])),
        sound_BQE=join([k.sound_BQE for k in every]),
        picture_BQE=join([k.picture_BQE for k in every]),
        sound_there_BQ=join([k.sound_there_BQ for k in every]),
        picture_there_BQ=join([k.picture_there_BQ for k in every]),
    )
