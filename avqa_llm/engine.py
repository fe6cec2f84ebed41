"""The local engine: answers questions about clips with a model in this process.

A clip is encoded, bridged and written down (its event record) once; then any number of
questions go on from there, in one batch.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from avqa_llm.aggregator import Clues
from avqa_llm.answer import Alternative, Answer, Consumed, Evidence
from avqa_llm.bridge import ClipKeys
from avqa_llm.encoders.cache import FeatureCache, feature_key, identity
from avqa_llm.evidence import picture_evidence, sound_evidence
from avqa_llm.generation import Context, greedy, rank, read
from avqa_llm.labels import LABELS, to_label
from avqa_llm.media import Clip, MediaLimits, read_clip
from avqa_llm.model import AVQAModel, ClipTokens
from avqa_llm.presets import find_model
from avqa_llm.prompt import CLUE, PICTURE, SOUND, Turn, spoken
from avqa_llm.world import unlike_world

RECORD_LIMIT, STEPS_LIMIT, OPEN_LIMIT = 120, 48, 128
"""Most tokens of a record, of an answer's steps, of an open answer."""
CACHE_BYTES = 2**30
CHUNK = 64
"""Questions that are answered as one batch."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Clips that the model has read: everything that no question changes. B clips."""

    tokens: tuple[ClipTokens, ...]
    keys: ClipKeys
    context: Context
    records: tuple[str, ...]
    timing_s: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out for one question."""

    text: str
    label: str
    probability: float
    others: tuple[Alternative, ...] = ()
    steps: str = ""


class LocalEngine:
    """Answers with a model directory, on this machine."""

    def __init__(self, model: AVQAModel, *, cache: FeatureCache | None = None) -> None:
        """`cache`: where encoder tokens of clips are kept; none: they are computed every time."""
        self.model, self.cache = model, cache
        if not any(getattr(part, "merged", False) for part in model.llm.modules()):
            model.llm.merge_adapter()  # the same function in fewer products: faster
        self._encoders = (identity(model.picture), identity(model.sound)) if cache else ("", "")
        prompt = model.prompt
        self.labels = LABELS
        self._label_ids = [prompt.text(spoken(label)) for label in LABELS]

    @classmethod
    def load(cls, model: str | Path, *, cache: bool = False) -> LocalEngine:
        """Load a preset or a model directory.

        Raises:
            CheckpointError: there is none of that name, or it is incomplete.
        """
        kept = FeatureCache(cache_folder(), CACHE_BYTES) if cache else None
        return cls(AVQAModel.from_pretrained(find_model(model)), cache=kept)

    # -- reading ---------------------------------------------------------------------------

    def read(
        self,
        path: str | Path,
        *,
        reader: str = "pyav",
        limits: MediaLimits | None = None,
    ) -> Clip:
        """Read a media file with the frames that this model wants."""
        picture = self.model.picture
        return read_clip(
            path,
            sampling=picture.config.sampling(),
            max_side=max(picture.size),
            limits=limits or MediaLimits(),
            reader=reader,
        )

    def encode(self, clip: Clip) -> ClipTokens:
        """Run the frozen encoders, or take what they made of these frames and this sound before.

        Values are rounded to half precision either way, so that both are the same.
        """
        if self.cache is None:
            return _rounded(self.model.encode(clip))
        key = feature_key(_content(clip), *self._encoders, self.model.config.picture.sampling())
        kept = self.cache.get(key)
        if kept is None:
            tokens = _rounded(self.model.encode(clip))
            self.cache.put(key, tokens.picture, tokens.sound)
            return tokens
        picture, sound = kept
        return ClipTokens(sound=sound, picture=picture, seconds=clip.duration_s)

    @torch.no_grad()
    def digest(self, clips: Sequence[ClipTokens]) -> Reading:
        """Bridge clips and let the model write down what happens in them."""
        started = time.perf_counter()
        model, prompt = self.model, self.model.prompt
        keys = model.keys(clips)
        soft, exists, _ = model.clues(keys, [prompt.events] * len(clips))
        embeds = [self._prefix(keys, soft, exists, n) for n in range(len(clips))]
        context, logits = read(model.llm, embeds)
        bridged = time.perf_counter()
        records: list[list[int]] = [[] for _ in clips]
        if model.config.records:
            stops = set(prompt.eos)
            records, _ = greedy(model.llm, context, logits, stops=stops, limit=RECORD_LIMIT)
        texts = tuple(prompt.tokenizer.decode(ids).strip() for ids in records)
        timing = {"bridge": bridged - started, "record": time.perf_counter() - bridged}
        return Reading(
            tokens=tuple(clips), keys=keys, context=context, records=texts, timing_s=timing
        )

    def _prefix(self, keys: ClipKeys, soft: Tensor, exists: Tensor, n: int) -> Tensor:
        sound, picture = keys.sound_there_BQ[n : n + 1], keys.picture_there_BQ[n : n + 1]
        ids = self.model.prompt.clip(int(sound.sum()), int(picture.sum()), int(exists[n].sum()))
        placed = self.model.place(
            torch.tensor([ids]),
            {
                SOUND: (keys.sound_BQE[n : n + 1], sound),
                PICTURE: (keys.picture_BQE[n : n + 1], picture),
                CLUE: (soft[n : n + 1], exists[n : n + 1]),
            },
        )
        return placed[0]

    # -- answering -------------------------------------------------------------------------

    def answer(
        self,
        clip: Clip,
        questions: Sequence[str],
        *,
        history: Sequence[Turn] = (),
        evidence: bool = False,
        open_ended: bool = False,
    ) -> list[Answer]:
        """Answer several questions about one clip, each by itself after the same history."""
        session = Session(self, clip)
        answers: list[Answer] = []
        for at in range(0, len(questions), CHUNK):
            answers += session.answer(
                questions[at : at + CHUNK],
                history=history,
                evidence=evidence,
                open_ended=open_ended,
            )
        return answers

    @torch.no_grad()
    def ask(
        self,
        reading: Reading,
        rows: Sequence[tuple[int, str]],
        *,
        history: Sequence[Turn] = (),
        evidence: bool = False,
        open_ended: bool = False,
        runners_up: int = 3,
    ) -> list[Answer]:
        """Answer (clip number, question) pairs about clips that were digested, as one batch."""
        started = time.perf_counter()
        index = torch.tensor([clip for clip, _ in rows])
        keys = reading.keys.rows(index)
        questions = [question for _, question in rows]
        pieces, clues = self._put(keys, questions, history)
        context, logits = read(self.model.llm, pieces, reading.context.rows(index))
        if open_ended:
            outcomes = self._free(context, logits)
        else:
            outcomes = self._closed(context, logits, runners_up)
        seconds = (time.perf_counter() - started) / len(rows)
        answers = []
        for n, (clip, _) in enumerate(rows):
            outcome, tokens = outcomes[n], reading.tokens[clip]
            answers.append(
                Answer(
                    answer=outcome.text,
                    label=outcome.label,
                    probability=round(outcome.probability, 4),
                    alternatives=outcome.others,
                    evidence=_cited(tokens, clues, n) if evidence else (),
                    consumed=_consumed(keys, tokens, n),
                    steps=outcome.steps,
                    record=reading.records[clip],
                    timing_s={**reading.timing_s, "answer": seconds},
                )
            )
        return answers

    def _put(
        self, keys: ClipKeys, questions: Sequence[str], history: Sequence[Turn]
    ) -> tuple[list[Tensor], Clues]:
        """Questions after the same history as embeddings, each with its own clues."""
        model, prompt = self.model, self.model.prompt
        ids = [prompt.text(spoken(question)) for question in questions]
        soft, exists, clues = model.clues(keys, ids)
        earlier = prompt.history(history)
        pieces = []
        for n, question in enumerate(questions):
            said = prompt.question(question, int(exists[n].sum()), again=bool(history))
            placed = model.place(
                torch.tensor([earlier + said]), {CLUE: (soft[n : n + 1], exists[n : n + 1])}
            )
            pieces.append(placed[0])
        return pieces, clues

    def _closed(self, context: Context, logits: Tensor, runners_up: int) -> list[Outcome]:
        """Steps greedily, then the closed answers by likelihood."""
        model, prompt = self.model, self.model.prompt
        stops = {prompt.steps_end[-1]} | set(prompt.eos)
        steps, logits = greedy(model.llm, context, logits, stops=stops, limit=STEPS_LIMIT)
        scores = rank(model.llm, context, logits, self._label_ids).softmax(-1)
        outcomes = []
        for ids, row in zip(steps, scores, strict=True):
            likely, places = row.topk(min(1 + runners_up, len(row)))
            named = [
                Alternative(label=self.labels[i], probability=round(float(p), 4))
                for i, p in zip(places.tolist(), likely, strict=True)
            ]
            outcomes.append(
                Outcome(
                    text=spoken(named[0].label),
                    label=named[0].label,
                    probability=float(likely[0]),
                    others=tuple(named[1:]),
                    steps=prompt.tokenizer.decode(ids).strip(),
                )
            )
        return outcomes

    def _free(self, context: Context, logits: Tensor) -> list[Outcome]:
        """Free text, with the probability of its first token."""
        prompt = self.model.prompt
        first = logits.softmax(-1).max(-1).values.tolist()
        stops = set(prompt.eos)
        ids, _ = greedy(self.model.llm, context, logits, stops=stops, limit=OPEN_LIMIT)
        texts = [_last(prompt.tokenizer.decode(row).strip()) for row in ids]
        return [
            Outcome(text=text, label=to_label(text), probability=p)
            for text, p in zip(texts, first, strict=True)
        ]


class Session:
    """A conversation about one clip, which is encoded and read once."""

    def __init__(
        self, engine: LocalEngine, clip: Clip, *, times: dict[str, float] | None = None
    ) -> None:
        """`times`: seconds already spent on this clip, for the first answer's timings."""
        started = time.perf_counter()
        self.engine = engine
        self.tokens = engine.encode(clip)
        self.times = {**(times or {}), "encode": time.perf_counter() - started}
        self.reading = engine.digest([self.tokens])
        self.turns: list[Turn] = []
        world = engine.model.config.world
        self.warnings = (*_about_input(clip), *unlike_world(world, self.tokens))

    def ask(self, question: str, *, open_ended: bool = False, remember: bool = True) -> Answer:
        """Answer one question, with its evidence, after what was said before."""
        (answer,) = self.answer(
            [question], history=self.turns, evidence=True, open_ended=open_ended
        )
        if remember:
            self.turns.append(Turn(question=question, answer=answer.answer))
        return answer

    def answer(
        self,
        questions: Sequence[str],
        *,
        history: Sequence[Turn] = (),
        evidence: bool = False,
        open_ended: bool = False,
    ) -> list[Answer]:
        """Answer questions as one batch, each by itself after the same history."""
        rows = [(0, question) for question in questions]
        engine, reading = self.engine, self.reading
        answers = engine.ask(
            reading, rows, history=history, evidence=evidence, open_ended=open_ended
        )
        times, self.times = self.times, {}
        return [_finished(answer, self.warnings, times) for answer in answers]


def cache_folder() -> Path:
    """Where encoder tokens are kept: `AVQA_CACHE`, or a folder of the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("AVQA_CACHE") or Path(home) / "avqa-llm") / "features"


def _content(clip: Clip) -> str:
    """What was read from which file: a clip that was muted or changed otherwise is another one."""
    read_ = (clip.sound_CS.shape, clip.sound_rate_hz, clip.frames_THWC.shape)
    digest = hashlib.sha256(repr(read_).encode())
    for array in (clip.frame_times_s, clip.sound_CS, clip.frames_THWC):
        digest.update(array.tobytes())
    return f"{clip.sha256}-{digest.hexdigest()[:16]}"


def _rounded(tokens: ClipTokens) -> ClipTokens:
    sound, picture = (
        replace(part, values_ND=part.values_ND.half().float())
        for part in (tokens.sound, tokens.picture)
    )
    return ClipTokens(sound=sound, picture=picture, seconds=tokens.seconds)


def _last(text: str) -> str:
    """What stands after the steps."""
    return text.rsplit(" : ", 1)[-1].lstrip(": ")


def _consumed(keys: ClipKeys, tokens: ClipTokens, n: int) -> Consumed:
    sound, picture = bool(keys.sound_there_BQ[n].any()), bool(keys.picture_there_BQ[n].any())
    return Consumed(
        sound=sound,
        picture=picture,
        sound_tokens=tokens.sound.n if sound else 0,
        picture_tokens=tokens.picture.n if picture else 0,
    )


def _cited(tokens: ClipTokens, clues: Clues, n: int) -> tuple[Evidence, ...]:
    heard = sound_evidence(tokens.sound, clues.sound_weights_BN[n, : tokens.sound.n])
    seen = picture_evidence(tokens.picture, clues.picture_weights_BN[n, : tokens.picture.n])
    return (*heard, *seen)


def _about_input(clip: Clip) -> list[str]:
    found = []
    if not clip.has_sound:
        found.append("There was no sound to hear: the answer rests on the picture alone.")
    elif clip.is_silent:
        found.append("The sound track is silent.")
    if not clip.has_picture:
        found.append("There was no picture to see: the answer rests on the sound alone.")
    return found


def _finished(answer: Answer, warnings: tuple[str, ...], timing: dict[str, float]) -> Answer:
    times = {key: round(value, 4) for key, value in {**timing, **answer.timing_s}.items()}
    return replace(answer, warnings=warnings, timing_s=times)
