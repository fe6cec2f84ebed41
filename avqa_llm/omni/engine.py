"""The engine of omni models: the interface of `avqa_llm.engine.LocalEngine`, another model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avqa_llm.answer import Alternative, Answer, Consumed
from avqa_llm.devices import prepare_training
from avqa_llm.labels import LABELS, to_label
from avqa_llm.media import Clip, MediaLimits
from avqa_llm.omni.config import OmniConfig
from avqa_llm.omni.inputs import OmniClip
from avqa_llm.omni.model import OmniModel, read_omni_config
from avqa_llm.omni.reading import Read, rate, read_prefix, write
from avqa_llm.omni.stage import read_omni_clip
from avqa_llm.prompt import Turn, spoken
from avqa_llm.session import finished, warnings_about

OPEN_LIMIT = 128
"""Most tokens of an open answer."""
CHUNK = 8
"""Questions whose closed answers are rated in one pass."""


@dataclass(frozen=True, kw_only=True)
class OmniReading:
    """Clips that the model has heard and seen."""

    clips: tuple[OmniClip, ...]
    reads: tuple[Read, ...]
    timing_s: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    text: str
    label: str
    probability: float
    others: tuple[Alternative, ...] = ()


class OmniEngine:
    """Answers with an omni model directory, on this machine."""

    reads_text = True
    """Whether it understands text beside a question, such as measured facts."""

    def __init__(self, model: OmniModel) -> None:
        self.model = model.eval()
        self.labels = LABELS

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> OmniEngine:
        """Load a model directory onto a device; None: the first GPU where there is one.

        Raises:
            CheckpointError: it is incomplete, or its base cannot be had.
        """
        import torch

        device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        if device == "cpu" and read_omni_config(Path(folder)).dtype == "bfloat16":
            prepare_training()  # bf16 kills the process on some processors otherwise
        return cls(OmniModel.from_pretrained(folder, device=device))

    @property
    def config(self) -> OmniConfig:
        """What the model was made with."""
        return self.model.config

    # -- reading -----------------------------------------------------------------------------

    def read(
        self, path: str | Path, *, reader: str = "pyav", limits: MediaLimits | None = None
    ) -> Clip:
        """Read a media file with the frames that this model wants. Raises MediaError."""
        return read_omni_clip(path, self.config, reader=reader, limits=limits or MediaLimits())

    def encode(self, clip: Clip) -> OmniClip:
        """Prepare a clip; the towers run in `digest`."""
        return self.model.prepare(clip)

    def digest(self, clips: Sequence[OmniClip]) -> OmniReading:
        """Let the model hear and see clips, one after the other."""
        started = time.perf_counter()
        reads = tuple(read_prefix(self.model, clip) for clip in clips)
        each = (time.perf_counter() - started) / max(1, len(clips))
        return OmniReading(clips=tuple(clips), reads=reads, timing_s={"watch": each})

    # -- answering -----------------------------------------------------------------------------

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
        rows = [(0, question) for question in questions]
        return self._about([clip], rows, history=history, evidence=evidence, open_ended=open_ended)

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
        One clip is in memory at a time: its cache is the largest thing here.
        """
        answers: dict[int, Answer] = {}
        for clip in range(len(clips)):
            numbers = [n for n, row in enumerate(rows) if row[0] == clip]
            own = self._about(
                [clips[clip]],
                [(0, rows[n][1]) for n in numbers],
                choices=None if choices is None else [choices[n] for n in numbers],
                evidence=evidence,
                open_ended=open_ended,
            )
            answers.update(zip(numbers, own, strict=True))
        return [answers[n] for n in range(len(rows))]

    def _about(
        self, clips: Sequence[Clip], rows: Sequence[tuple[int, str]], **how: object
    ) -> list[Answer]:
        if not rows:
            return []
        started = time.perf_counter()
        prepared = [self.encode(clip) for clip in clips]
        times = {"encode": (time.perf_counter() - started) / len(clips)}
        answers = self.ask(self.digest(prepared), rows, **how)  # type: ignore[arg-type]
        return [
            finished(answer, self._warnings(clips[clip], prepared[clip]), times)
            for answer, (clip, _) in zip(answers, rows, strict=True)
        ]

    def _warnings(self, clip: Clip, prepared: OmniClip) -> tuple[str, ...]:
        return warnings_about(clip, prepared, self.config.world)  # type: ignore[arg-type]

    def ask(
        self,
        reading: OmniReading,
        rows: Sequence[tuple[int, str]],
        *,
        choices: Sequence[tuple[str, ...]] | None = None,
        history: Sequence[Turn] = (),
        evidence: bool = False,
        open_ended: bool = False,
        runners_up: int = 3,
    ) -> list[Answer]:
        """Answer (clip number, question) pairs about clips that were digested, in order.

        `evidence` is accepted for the interface: a base has no clues that would point somewhere.
        """
        started = time.perf_counter()
        offered = list(choices or [()] * len(rows))
        ids = [self.model.chat.question(question, history) for _, question in rows]
        outcomes: dict[int, _Outcome] = {}
        for clip, read in enumerate(reading.reads):
            numbers = [n for n, row in enumerate(rows) if row[0] == clip]
            for at in range(0, len(numbers), CHUNK):
                some = numbers[at : at + CHUNK]
                asked = [ids[n] for n in some]
                if open_ended:
                    found = [self._free(read, one) for one in asked]
                else:
                    found = self._closed(read, asked, [offered[n] for n in some], runners_up)
                outcomes.update(zip(some, found, strict=True))
        seconds = (time.perf_counter() - started) / max(1, len(rows))
        return [
            Answer(
                answer=outcomes[n].text,
                label=outcomes[n].label,
                probability=round(outcomes[n].probability, 4),
                alternatives=outcomes[n].others,
                consumed=_consumed(reading.clips[clip]),
                timing_s={**reading.timing_s, "answer": seconds},
            )
            for n, (clip, _) in enumerate(rows)
        ]

    def _closed(
        self,
        read: Read,
        questions: Sequence[list[int]],
        offered: Sequence[tuple[str, ...]],
        runners_up: int,
    ) -> list[_Outcome]:
        """What is offered (nothing: the labels) by likelihood, each with the end of its turn."""
        names = [own or self.labels for own in offered]
        answers = [[self.model.chat.answer(name) for name in own] for own in names]
        outcomes = []
        for own, given, logps in zip(
            names, offered, rate(self.model, read, questions, answers), strict=True
        ):
            top = logps.softmax(-1).topk(min(1 + runners_up, len(own)))
            likely = [(own[i], p) for i, p in zip(top.indices, top.values.tolist(), strict=True)]
            name, probability = likely[0]
            others = (Alternative(label=o, probability=round(p, 4)) for o, p in likely[1:])
            text = name if given else spoken(name)
            outcomes.append(
                _Outcome(text=text, label=name, probability=probability, others=tuple(others))
            )
        return outcomes

    def _free(self, read: Read, question: list[int]) -> _Outcome:
        """Free text, with the probability of its first token."""
        ids, probability = write(self.model, read, question, OPEN_LIMIT)
        text = self.model.chat.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return _Outcome(text=text, label=to_label(text), probability=probability)


def _consumed(clip: OmniClip) -> Consumed:
    """What reached the decoder: `OmniModel` raises unless the towers gave exactly so many."""
    return Consumed(
        sound=clip.sound.n > 0,
        picture=clip.picture.n > 0,
        sound_tokens=clip.sound.n,
        picture_tokens=clip.picture.n,
    )
