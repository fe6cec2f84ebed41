"""Is the evidence evidence? What is cited is taken away, and so is as much elsewhere.

If an answer rests on what it cites, hiding that lowers its probability more than hiding the
same amount of another second of sound or another part of the picture (deletion, as in Petsiuk
et al. 2018, RISE). The control keeps the shape of what is cited and moves it.

Legend: N tokens.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avqa_llm.errors import AVQAError
from eval.statistics import Estimate, clustered_mean
from instruct_data.sources.music_avqa import read_annotations

if TYPE_CHECKING:
    from torch import Tensor

    from avqa_llm.encoders import Tokens
    from avqa_llm.engine import LocalEngine
    from avqa_llm.model import ClipTokens


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """Falls of the answers' probability, means over questions with intervals over videos."""

    cited: Estimate
    elsewhere: Estimate
    difference: Estimate


def check_evidence(
    model: str, annotations: Path, media: Path, *, limit: int, questions: int = 4, seed: int = 0
) -> Deletion:
    """Ask some `questions` about each of `limit` clips, and take evidence away.

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
    falls: list[tuple[float, float]] = []
    clips: list[str] = []
    for video in tqdm(videos, desc="deleting evidence"):
        tokens = engine.encode(engine.read(media / f"{video}.mp4"))
        asked = rng.permutation(by_video[video])[:questions].tolist()
        falls += _falls(engine, tokens, asked, rng)
        clips += [video] * len(asked)
    cited, elsewhere = np.array(falls).T
    return Deletion(
        cited=clustered_mean(cited, clips),
        elsewhere=clustered_mean(elsewhere, clips),
        difference=clustered_mean(cited - elsewhere, clips),
    )


def _falls(
    engine: LocalEngine, tokens: ClipTokens, questions: list[str], rng: np.random.Generator
) -> list[tuple[float, float]]:
    """For each question how much its answer's probability falls without what is cited, and
    without as much elsewhere."""
    from avqa_llm.evidence import covered

    answers = engine.ask(engine.digest([tokens]), [(0, q) for q in questions], evidence=True)
    variants = []
    for answer in answers:
        sound = covered(tokens.sound, [e for e in answer.evidence if e.modality == "sound"])
        picture = covered(tokens.picture, [e for e in answer.evidence if e.modality == "picture"])
        moved = _moved(tokens.sound, sound, rng), _moved(tokens.picture, picture, rng)
        variants += [_without(tokens, sound, picture), _without(tokens, *moved)]
    rows = [(n, questions[n // 2]) for n in range(len(variants))]
    again = engine.ask(engine.digest(variants), rows, runners_up=len(engine.labels))
    kept = []
    for n, other in enumerate(again):
        chances = {a.label: a.probability for a in other.alternatives}
        kept.append(chances.get(answers[n // 2].label, other.probability))
    return [
        (answer.probability - kept[2 * n], answer.probability - kept[2 * n + 1])
        for n, answer in enumerate(answers)
    ]


def _without(tokens: ClipTokens, heard_N: Tensor, seen_N: Tensor) -> ClipTokens:
    """The clip with some of its tokens taken away."""
    from avqa_llm.model import ClipTokens

    return ClipTokens(
        sound=tokens.sound.where(~heard_N),
        picture=tokens.picture.where(~seen_N),
        seconds=tokens.seconds,
    )


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
    """`python -m eval evidence`: print the three figures, and write them where asked."""
    from avqa_llm.devices import prepare_cpu

    prepare_cpu()
    found = check_evidence(
        args.model, args.annotations, args.media, limit=args.limit, questions=args.questions
    )
    print(f"fall of the answer's probability over {found.cited.n} questions")
    for name in ("cited", "elsewhere", "difference"):
        mean: Estimate = getattr(found, name)
        print(f"  {name:10} {mean.value:+.4f}  [{mean.low:+.4f}, {mean.high:+.4f}]")
    if args.out is not None:
        rows = {name: vars(getattr(found, name)) for name in ("cited", "elsewhere", "difference")}
        args.out.write_text(json.dumps(rows, indent=2) + "\n")
    return 0
