"""Is the evidence evidence? What is cited is taken away, and so is as much elsewhere.

If an answer rests on what it cites, hiding that lowers its probability more than hiding the
same amount of another second of sound or another part of the picture (deletion, as in Petsiuk
et al. 2018, RISE). The control keeps the shape of what is cited and moves it.

Legend: N tokens.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avqa_llm.errors import AVQAError
from eval.samples import RunError, write_json
from eval.statistics import Estimate, clustered_mean
from instruct_data.sources.music_avqa import read_annotations

if TYPE_CHECKING:
    from torch import Tensor

    from avqa_llm.encoders import Tokens
    from avqa_llm.engine import LocalEngine
    from avqa_llm.model import ClipTokens


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """Falls of the answers' probability without some of one modality's tokens: means over
    questions with intervals over videos."""

    cited: Estimate
    elsewhere: Estimate
    difference: Estimate


def check_evidence(
    model: str, annotations: Path, media: Path, *, limit: int, questions: int = 4, seed: int = 0
) -> dict[str, Deletion]:
    """Ask some `questions` about each of `limit` clips, and take evidence away.

    Returns:
        What comes of it, for `sound` and for `picture`.

    Raises:
        AVQAError: none of the clips is there.
    """
    from tqdm import tqdm

    from avqa_llm.engine import LocalEngine

    engine = LocalEngine.load(model)
    rng = np.random.default_rng(seed)
    by_video: dict[str, list[str]] = {}
    for row in read_annotations(annotations).rows:
        by_video.setdefault(row.video_id, []).append(row.question)
    videos = [v for v in by_video if (media / f"{v}.mp4").exists()][:limit]
    if not videos:
        raise AVQAError(f"{media} holds none of the {len(by_video)} clips of {annotations}")
    falls: list[list[float]] = []
    clips: list[str] = []
    for video in tqdm(videos, desc="deleting evidence"):
        tokens = engine.encode(engine.read(media / f"{video}.mp4"))
        asked = rng.permutation(by_video[video])[:questions].tolist()
        falls += _falls(engine, tokens, asked, rng)
        clips += [video] * len(asked)
    columns = np.array(falls).T
    return {
        name: Deletion(
            cited=clustered_mean(cited, clips),
            elsewhere=clustered_mean(elsewhere, clips),
            difference=clustered_mean(cited - elsewhere, clips),
        )
        for name, cited, elsewhere in (("sound", *columns[:2]), ("picture", *columns[2:]))
    }


def _falls(
    engine: LocalEngine, tokens: ClipTokens, questions: list[str], rng: np.random.Generator
) -> list[list[float]]:
    """For each question how much its answer's probability falls without the sound that is cited,
    without as much other sound, without the cited part of the picture, without as much of it."""
    from avqa_llm.evidence import covered

    answers = engine.ask(engine.digest([tokens]), [(0, q) for q in questions], evidence=True)
    variants = []
    for answer in answers:
        heard = covered(tokens.sound, [e for e in answer.evidence if e.modality == "sound"])
        seen = covered(tokens.picture, [e for e in answer.evidence if e.modality == "picture"])
        for mask in (heard, _moved(tokens.sound, heard, rng)):
            variants.append(replace(tokens, sound=tokens.sound.where(~mask)))
        for mask in (seen, _moved(tokens.picture, seen, rng)):
            variants.append(replace(tokens, picture=tokens.picture.where(~mask)))
    each = len(variants) // len(questions)
    rows = [(n, questions[n // each]) for n in range(len(variants))]
    again = engine.ask(engine.digest(variants), rows, runners_up=len(engine.labels))
    falls: list[list[float]] = [[] for _ in questions]
    for n, other in enumerate(again):
        before, chances = answers[n // each], {a.label: a.probability for a in other.alternatives}
        assert before.probability is not None and other.probability is not None, "it ranks"
        falls[n // each].append(before.probability - chances.get(before.label, other.probability))
    return falls


def _moved(tokens: Tokens, mask_N: Tensor, rng: np.random.Generator) -> Tensor:
    """The same shape elsewhere: later in time for sound, further across for the picture."""
    import torch

    if not tokens.n:
        return mask_N
    columns = len(torch.unique(tokens.places_N2[:, 0]))
    if columns == 1:
        return torch.roll(mask_N, int(rng.integers(tokens.n // 4, tokens.n * 3 // 4 + 1)))
    grid = mask_N.view(-1, columns)
    return torch.roll(grid, int(rng.integers(1, columns)), dims=1).flatten()


def run(args: argparse.Namespace) -> int:
    """`python -m eval evidence`: print the three figures, and write them where asked.

    Raises RunError before anything is computed where `--out` cannot be written.
    """
    from avqa_llm.devices import prepare_cpu

    if args.out is not None:
        _refuse_unwritable(args.out)
    prepare_cpu()
    found = check_evidence(
        args.model, args.annotations, args.media, limit=args.limit, questions=args.questions
    )
    print(f"fall of the answer's probability over {found['sound'].cited.n} questions, without")
    for modality, deletion in found.items():
        print(f"  of the {modality}")
        for name, mean in vars(deletion).items():
            print(f"    {name:10} {mean.value:+.4f}  [{mean.low:+.4f}, {mean.high:+.4f}]")
    if args.out is not None:
        try:
            write_json(args.out, {modality: _shown(one) for modality, one in found.items()})
        except OSError as error:
            raise RunError(f"cannot write {args.out}: {error.strerror}") from error
    return 0


def _refuse_unwritable(out: Path) -> None:
    """Raise RunError where a file cannot be written, as far as can be told beforehand."""
    if out.is_dir():
        raise RunError(f"--out {out} is a folder: name a file in it")
    if not out.parent.is_dir():
        raise RunError(f"--out {out}: there is no folder {out.parent}; make it first")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise RunError(f"--out {out}: nothing may be written to {out.parent}")


def _shown(deletion: Deletion) -> dict[str, Any]:
    """The figures as JSON can hold them: a bound is null where one video gives no interval."""
    return {
        name: {of: None if value != value else value for of, value in vars(mean).items()}
        for name, mean in vars(deletion).items()
    }
