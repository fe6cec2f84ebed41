"""Engines: they answer questions about clips.

A clip is encoded, bridged and written down (its event record) once; then any number of
questions go on from there, in one batch. `LocalEngine` has the language model in this process;
`avqa_llm.remote` has it behind a server.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avqa_llm.answer import Alternative, Answer
from avqa_llm.bridge import ClipKeys
from avqa_llm.calibrator import log_odds, signs_of
from avqa_llm.clock import hurried, merged, pace_of
from avqa_llm.encoders.cache import FeatureCache
from avqa_llm.encoders.store import FeatureStore
from avqa_llm.encoders.tags import Tags, tags_of
from avqa_llm.encoding import ClipEncoder
from avqa_llm.evidence import cited, reached
from avqa_llm.folders import user_cache
from avqa_llm.generation import Context, Decoder, Written, greedy, joined, rank, read
from avqa_llm.labels import LABELS, to_label
from avqa_llm.media import Clip, MediaLimits, read_clip
from avqa_llm.media.changes import Cut, changed, sampling_of
from avqa_llm.model import AVQAModel, ClipTokens
from avqa_llm.presets import find_model
from avqa_llm.prompt import CLUE, PICTURE, SOUND, Turn, spoken
from avqa_llm.questions import Questions
from avqa_llm.session import Session, finished, warnings_about
from avqa_llm.values import corrected, quoted

__all__ = ["Engine", "LocalEngine", "Reading", "Session", "cache_folder", "load_engine"]

RECORD_LIMIT, STEPS_LIMIT, OPEN_LIMIT = 120, 96, 128
"""Most tokens of a record, of an answer's steps, of an open answer."""
CACHE_BYTES = 2**30
CLIPS, READ, CHUNK = 16, 48, 256
"""Most clips that are read as one batch, questions that are read, and that are answered."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Clips that the model has read: everything that no question changes. B clips."""

    tokens: tuple[ClipTokens, ...]
    """As the model saw them, those of long clips merged; in the clips' own seconds."""
    paces: tuple[float, ...]
    """Of the clips' clocks; see `avqa_llm.clock`."""
    keys: ClipKeys
    context: Any
    """What the language model has read, as the engine that made this keeps it."""
    records: tuple[str, ...]
    chances: tuple[list[float], ...]
    """Log-probabilities of the records' tokens."""
    timing_s: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out for one question."""

    text: str
    label: str
    probability: float
    others: tuple[Alternative, ...] = ()
    steps: str = ""
    signs: dict[str, float]


class Engine:
    """What engines have in common: all but the language model's own work."""

    reads_text = False
    """Whether it understands text beside a question: it was trained on clips and questions."""

    def __init__(
        self,
        model: AVQAModel,
        *,
        cache: FeatureCache | None = None,
        features: FeatureStore | None = None,
        paced: bool = True,
    ) -> None:
        """`paced`: clips longer than those of the model's training are shown to it faster."""
        self.model = model
        self.encoder = ClipEncoder(model, cache, features)
        self.longest_s = model.config.world.longest_s if paced else 0.0
        self.labels = LABELS
        self._heads = model.sound.heads if model.config.tagged else None
        self._label_ids = [model.prompt.text(spoken(label)) for label in LABELS]

    # -- reading ---------------------------------------------------------------------------

    def read(
        self,
        path: str | Path,
        *,
        reader: str = "pyav",
        limits: MediaLimits | None = None,
        cut: Cut = Cut(),
    ) -> Clip:
        """Read a media file, or what a cut leaves of it, with the frames that this model wants."""
        picture = self.model.picture
        clip = read_clip(
            path,
            sampling=sampling_of(cut, picture.config.sampling()),
            max_side=max(picture.size),
            limits=limits or MediaLimits(),
            reader=reader,
        )
        return changed(clip, cut)

    def encode(self, clip: Clip) -> ClipTokens:
        """Run the frozen encoders, or take what they made of this sound and these frames before."""
        return self.encoder(clip)

    @torch.inference_mode()
    def digest(self, clips: Sequence[ClipTokens]) -> Reading:
        """Bridge clips and let the model write down what happens in them."""
        started = time.perf_counter()
        model, prompt = self.model, self.model.prompt
        paces = [pace_of(clip.seconds, self.longest_s) for clip in clips]
        seen = [merged(*both) for both in zip(clips, paces, strict=True)]
        keys = model.keys([hurried(*both) for both in zip(seen, paces, strict=True)])
        soft, exists, _ = model.clues(keys, [prompt.events] * len(clips))
        embeds = [self._prefix(keys, soft, exists, n) for n in range(len(clips))]
        bridged = time.perf_counter()
        heads = self._heads
        tags = None if heads is None else [tags_of(clip.sound, heads) for clip in clips]
        context, written = self._watch(embeds, tags)
        texts = tuple(prompt.tokenizer.decode(ids).strip() for ids in written.ids)
        timing = {"bridge": bridged - started, "record": time.perf_counter() - bridged}
        return Reading(
            tokens=tuple(seen),
            paces=tuple(paces),
            keys=keys,
            context=context,
            records=texts,
            chances=tuple(written.chances),
            timing_s={part: seconds / len(clips) for part, seconds in timing.items()},
        )

    def _prefix(self, keys: ClipKeys, soft: Tensor, exists: Tensor, n: int) -> Tensor:
        sound, picture = keys.sound_there_BQ[n : n + 1], keys.picture_there_BQ[n : n + 1]
        ids = self.model.prompt.clip(int(sound.sum()), int(picture.sum()), int(exists[n].sum()))
        placed = self.model.place(
            torch.tensor([ids], device=self.model.device),
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
        if not questions:
            return []
        session = Session(self, clip)
        return session.answer(questions, history=history, evidence=evidence, open_ended=open_ended)

    def answer_many(
        self,
        clips: Sequence[Clip],
        rows: Sequence[tuple[int, str]],
        *,
        choices: Sequence[tuple[str, ...]] | None = None,
        evidence: bool = False,
        open_ended: bool = False,
    ) -> list[Answer]:
        """Answer (clip number, question) pairs about several clips, each by itself, in order.

        `choices`: for each pair the answers to choose from; where there are none: the labels.
        """
        answers: dict[int, Answer] = {}
        for start in range(0, len(clips), CLIPS):
            block = clips[start : start + CLIPS]
            numbers = [n for n, (clip, _) in enumerate(rows) if 0 <= clip - start < len(block)]
            if numbers:
                found = self._answer_block(
                    block,
                    [(rows[n][0] - start, rows[n][1]) for n in numbers],
                    choices=None if choices is None else [choices[n] for n in numbers],
                    evidence=evidence,
                    open_ended=open_ended,
                )
                answers.update(zip(numbers, found, strict=True))
        return [answers[n] for n in range(len(rows))]

    def _answer_block(
        self, clips: Sequence[Clip], rows: Sequence[tuple[int, str]], **how: Any
    ) -> list[Answer]:
        started = time.perf_counter()
        tokens = [self.encode(clip) for clip in clips]
        times = {"encode": (time.perf_counter() - started) / len(clips)}
        answers = self.ask(self.digest(tokens), rows, **how)
        world = self.model.config.world
        warnings = [warnings_about(*both, world) for both in zip(clips, tokens, strict=True)]
        return [
            finished(answer, warnings[clip], times)
            for answer, (clip, _) in zip(answers, rows, strict=True)
        ]

    @torch.inference_mode()
    def ask(
        self,
        reading: Reading,
        rows: Sequence[tuple[int, str]],
        *,
        choices: Sequence[tuple[str, ...]] | None = None,
        history: Sequence[Turn] = (),
        evidence: bool = False,
        open_ended: bool = False,
        runners_up: int = 3,
    ) -> list[Answer]:
        """Answer (clip number, question) pairs about clips that were digested, in order."""
        started = time.perf_counter()
        questions = Questions.of(self.model, reading.keys, rows, history)
        offered = choices or [()] * len(rows)
        outcomes: dict[int, Outcome] = {}
        for numbers in questions.batches(CHUNK):
            own = None if open_ended else [offered[n] for n in numbers]
            some = self._outcomes(reading, questions, numbers, own, runners_up)
            outcomes.update(zip(numbers, some, strict=True))
        found = [outcomes[n] for n in range(len(rows))]
        answers = self._answers(reading, questions, found, evidence=evidence)
        seconds = (time.perf_counter() - started) / max(1, len(rows))
        return [replace(a, timing_s={**a.timing_s, "answer": seconds}) for a in answers]

    def _answers(
        self, reading: Reading, questions: Questions, outcomes: Sequence[Outcome], *, evidence: bool
    ) -> list[Answer]:
        """What came out for each question, with what is known of its clip."""
        given = [reached(reading, clip) for clip in range(len(reading.tokens))]
        return [
            Answer(
                answer=outcome.text,
                label=outcome.label,
                probability=round(outcome.probability, 4),
                alternatives=outcome.others,
                evidence=cited(questions, reading, n) if evidence else (),
                consumed=given[clip],
                steps=outcome.steps,
                record=reading.records[clip],
                pace=reading.paces[clip],
                signs=outcome.signs,
                timing_s=dict(reading.timing_s),
            )
            for n, (clip, outcome) in enumerate(zip(questions.clips, outcomes, strict=True))
        ]

    # -- the language model ----------------------------------------------------------------

    def _watch(self, embeds: Sequence[Tensor], tags: Sequence[Tags] | None) -> tuple[Any, Written]:
        """Read the starts (L, E) of clips and write their records: what was read, and written.

        `tags` of the clips put the records right, where there are some.
        """
        raise NotImplementedError

    def _corrected(self, written: Written, tags: Sequence[Tags]) -> Written:
        """What was written, put right; it was as sure of it as it was."""
        prompt = self.model.prompt
        texts = [prompt.tokenizer.decode(ids).strip() for ids in written.ids]
        right = [prompt.text(corrected(*both)) for both in zip(texts, tags, strict=True)]
        return replace(written, ids=right)

    def _misquoted(self, steps: Written, records: Sequence[str]) -> dict[int, list[int]]:
        """Rows whose steps quote their record wrongly, with the ids of what they should say."""
        prompt, found = self.model.prompt, {}
        if self.model.config.tagged:
            for n, (ids, record) in enumerate(zip(steps.ids, records, strict=True)):
                text = prompt.tokenizer.decode(ids).strip()
                if (right := quoted(text, record)) != text:
                    found[n] = prompt.text(right)
        return found

    def _outcomes(
        self,
        reading: Reading,
        questions: Questions,
        numbers: Sequence[int],
        offered: Sequence[tuple[str, ...]] | None,
        runners_up: int,
    ) -> list[Outcome]:
        """Answer chosen questions.

        `offered`: answers to choose from, for each question (nothing: the labels); None: open ones.
        """
        raise NotImplementedError

    # -- judging what it wrote --------------------------------------------------------------

    def _texts(self, offered: Sequence[tuple[str, ...]]) -> list[list[list[int]]]:
        """Token ids of what is offered to each question; of the labels, where nothing is.

        A choice is ranked with its end, for one may be the start of another.
        """
        prompt = self.model.prompt
        return [
            [prompt.text(spoken(text)) + prompt.eos for text in own] if own else self._label_ids
            for own in offered
        ]

    def _judged(
        self,
        scores: Tensor,
        steps: Written,
        before: Sequence[Sequence[float]],
        offered: Sequence[tuple[str, ...]],
        runners_up: int,
    ) -> list[Outcome]:
        """Closed answers by their log-likelihoods (B, A) after the steps.

        `before`: chances of the tokens of each row's record.
        """
        prompt = self.model.prompt
        top = scores.topk(min(1 + runners_up, scores.shape[1]))
        rest = scores.scatter(1, top.indices[:, :1], -torch.inf).logsumexp(1)
        margins = (top.values[:, 0] - rest).tolist()
        shares = (top.values[:, 1:] - rest[:, None]).exp().nan_to_num(0.0).tolist()
        likely = scores.softmax(-1).gather(1, top.indices).tolist()
        outcomes = []
        for n, (own, said) in enumerate(zip(offered, steps.ids, strict=True)):
            every = own or self.labels
            names = [every[i] for i in top.indices[n].tolist() if i < len(every)]
            rival = shares[n][0] if shares[n] else 0.0
            signs = signs_of(margins[n], steps.chances[n], before[n], rival=rival)
            if (calibration := self.model.config.calibration) is not None:
                likely[n] = calibration.applied(signs, shares[n])
            others = zip(names[1:], likely[n][1:], strict=False)
            outcomes.append(
                Outcome(
                    text=names[0] if own else spoken(names[0]),
                    label=names[0],
                    probability=likely[n][0],
                    others=tuple(Alternative(label=o, probability=round(p, 4)) for o, p in others),
                    steps=prompt.tokenizer.decode(said).strip(),
                    signs=signs,
                )
            )
        return outcomes

    def _said(self, said: Written, before: Sequence[Sequence[float]]) -> list[Outcome]:
        """Free text, with the probability of its first token, or by the model's calibration."""
        prompt, calibration = self.model.prompt, self.model.config.calibration
        outcomes = []
        for n, (ids, chances) in enumerate(zip(said.ids, said.chances, strict=True)):
            steps = prompt.steps_in(ids)
            text = prompt.tokenizer.decode(ids[steps:]).strip()
            signs = signs_of(log_odds(sum(chances[steps:])), chances[:steps], before[n])
            chance = math.exp(chances[0]) if calibration is None else calibration.chance(signs)
            outcomes.append(
                Outcome(text=text, label=to_label(text), probability=chance, signs=signs)
            )
        return outcomes


class LocalEngine(Engine):
    """Answers with a model directory, on this machine."""

    def __init__(
        self,
        model: AVQAModel,
        *,
        cache: FeatureCache | None = None,
        features: FeatureStore | None = None,
        merge: bool = True,
    ) -> None:
        """Take a model over.

        Args:
            model: from now on this engine's own, unless `merge` is False.
            cache: where encoder tokens of clips are kept on disk; none: in memory only.
            features: where those of many clips are already (`avqa features`).
            merge: add LoRA to the weights that it adapts; False leaves the model as it is, for
                training to go on. How long clips may be is being learned then, so they keep
                their pace.
        """
        super().__init__(model, cache=cache, features=features, paced=merge)
        if merge and not any(getattr(part, "merged", False) for part in model.llm.modules()):
            model.llm.merge_adapter()  # the same function in fewer products: faster
        self.decoder = Decoder(model.llm)

    @classmethod
    def load(
        cls, model: str | Path, *, cache: bool = False, features: Path | None = None
    ) -> LocalEngine:
        """Load a preset or a model directory; `features` is a folder of `avqa features`.

        Raises:
            CheckpointError: there is none of that name, it is incomplete, or the features are
                not those of its encoders.
        """
        kept = FeatureCache(cache_folder(), CACHE_BYTES) if cache else None
        store = None if features is None else FeatureStore(features)
        return cls(AVQAModel.from_pretrained(find_model(model)), cache=kept, features=store)

    def _watch(
        self, embeds: Sequence[Tensor], tags: Sequence[Tags] | None
    ) -> tuple[Context, Written]:
        context, logits = read(self.decoder, embeds)
        if not self.model.config.records:
            return context, Written([[] for _ in embeds], [[] for _ in embeds])
        eos = self.model.prompt.eos
        here = torch.arange(len(embeds), device=self.decoder.device)
        before = None if tags is None else context.rows(here)
        written, _, parts = greedy(
            self.decoder, context, logits, stops=set(eos), limit=RECORD_LIMIT
        )
        if before is None or tags is None:
            return parts.whole(), written
        written = self._corrected(written, tags)
        return self._told(before, [ids + eos for ids in written.ids])[0], written

    def _told(self, context: Context, ids: Sequence[list[int]]) -> tuple[Context, Tensor]:
        """Let it read words that it did not write; see `generation.read`."""
        words = (torch.tensor(row, device=self.decoder.device) for row in ids)
        return read(self.decoder, [self.decoder.embed(row) for row in words], context)

    def _outcomes(
        self,
        reading: Reading,
        questions: Questions,
        numbers: Sequence[int],
        offered: Sequence[tuple[str, ...]] | None,
        runners_up: int,
    ) -> list[Outcome]:
        prompt = self.model.prompt
        context, logits = self._begin(reading, questions, numbers)
        before = [reading.chances[questions.clips[n]] for n in numbers]
        stops = set(prompt.eos)
        if offered is None:
            said, _, _ = greedy(self.decoder, context, logits, stops=stops, limit=OPEN_LIMIT)
            return self._said(said, before)
        stops.add(prompt.steps_end[-1])
        steps, logits, parts = greedy(self.decoder, context, logits, stops=stops, limit=STEPS_LIMIT)
        records = [reading.records[questions.clips[n]] for n in numbers]
        if right := self._misquoted(steps, records):
            steps = replace(steps, ids=[right.get(n, ids) for n, ids in enumerate(steps.ids)])
            context, _ = self._begin(reading, questions, [numbers[n] for n in right])
            context, again = self._told(context, [i + prompt.steps_end for i in right.values()])
            rows = torch.tensor([*right], device=logits.device)
            logits[rows], parts = again, parts.with_rows(rows, context)
        scores = rank(self.decoder, parts, logits, self._texts(offered)).cpu()
        return self._judged(scores, steps, before, offered, runners_up)

    def _begin(
        self, reading: Reading, questions: Questions, numbers: Sequence[int]
    ) -> tuple[Context, Tensor]:
        """Let the model read questions, in batches that caches of processors can hold."""
        contexts, logits = [], []
        for at in range(0, len(numbers), READ):
            some = numbers[at : at + READ]
            clips = torch.tensor([questions.clips[n] for n in some], device=self.model.device)
            contexts.append(reading.context.branch(clips))
            placed = questions.place(self.model, some)
            logits.append(self.decoder.feed(contexts[-1], *placed)[:, -1])
        return joined(contexts), torch.cat(logits)


def load_engine(model: str | Path, *, cache: bool = False, features: Path | None = None) -> Any:
    """The engine that a model directory needs, loaded: a `LocalEngine` or one that is used alike.

    Models that see and hear by themselves keep no features: `cache` and `features` do nothing.
    """
    from avqa_llm.omni.engine import OmniEngine
    from avqa_llm.omni.model import is_omni

    folder = find_model(model)
    if is_omni(folder):
        return OmniEngine.load(folder)
    return LocalEngine.load(folder, cache=cache, features=features)


def cache_folder() -> Path:
    """Where encoder tokens are kept."""
    return user_cache() / "features"
