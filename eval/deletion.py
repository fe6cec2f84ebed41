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
    model: str, annotations: Path, media: Path, *, limit: int, seed: int = 0
) -> Deletion:
    """Ask one question a clip, for `limit` clips, and take evidence away."""
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
    for video in tqdm(videos, desc="deleting evidence"):
        tokens = engine.encode(engine.read(media / f"{video}.mp4"))
        question = by_video[video][int(rng.integers(len(by_video[video])))]
        falls.append(_falls(engine, tokens, question, rng))
    cited, elsewhere = np.array(falls).T
    return Deletion(
        cited=clustered_mean(cited, videos),
        elsewhere=clustered_mean(elsewhere, videos),
        difference=clustered_mean(cited - elsewhere, videos),
    )


def _falls(
    engine: LocalEngine, tokens: ClipTokens, question: str, rng: np.random.Generator
) -> tuple[float, float]:
    """How much the probability falls without what is cited, and without as much elsewhere."""
    from avqa_llm.evidence import covered
    from avqa_llm.model import ClipTokens

    (answer,) = engine.ask(engine.digest([tokens]), [(0, question)], evidence=True)
    sound = covered(tokens.sound, [e for e in answer.evidence if e.modality == "sound"])
    picture = covered(tokens.picture, [e for e in answer.evidence if e.modality == "picture"])
    variants = []
    for heard, seen in (
        (sound, picture),
        (_moved(tokens.sound, sound, rng), _moved(tokens.picture, picture, rng)),
    ):
        variants.append(
            ClipTokens(
                sound=tokens.sound.where(~heard),
                picture=tokens.picture.where(~seen),
                seconds=tokens.seconds,
            )
        )
    reading = engine.digest(variants)
    again = engine.ask(reading, [(0, question), (1, question)], runners_up=len(engine.labels))
    kept = []
    for other in again:
        chances = {a.label: a.probability for a in other.alternatives}
        kept.append(chances.get(answer.label, other.probability))
    return answer.probability - kept[0], answer.probability - kept[1]


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
    found = check_evidence(args.model, args.annotations, args.media, limit=args.limit)
    print(f"fall of the answer's probability over {found.cited.n} questions, one a clip")
    for name in ("cited", "elsewhere", "difference"):
        mean: Estimate = getattr(found, name)
        print(f"  {name:10} {mean.value:+.4f}  [{mean.low:+.4f}, {mean.high:+.4f}]")
    if args.out is not None:
        rows = {name: vars(getattr(found, name)) for name in ("cited", "elsewhere", "difference")}
        args.out.write_text(json.dumps(rows, indent=2) + "\n")
    return 0
