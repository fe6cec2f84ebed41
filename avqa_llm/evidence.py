"""From the aggregator's attention to places of the clip that a person can check.

The weights over tokens are summed into seconds of sound, and into columns of the picture; the
strongest are cited, and nothing where there is no attention at all, as in a model without clue
stage. Whether an answer rests on what it cites is measured by deletion:
`python -m eval evidence`.

Legend: N tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avqa_llm.answer import Consumed, Evidence
from avqa_llm.encoders import Tokens

if TYPE_CHECKING:
    from avqa_llm.engine import Reading
    from avqa_llm.questions import Questions

SPAN_S = 1.0
"""Sound is cited in spans of this length."""
WEAK = 0.5
"""What has less than this share of the strongest place's attention is not cited."""


def sound_evidence(
    tokens: Tokens, weights_N: Tensor, *, most: int = 3, pace: float = 1.0
) -> list[Evidence]:
    """The seconds of sound that were looked at most; neighbours are joined.

    `pace`: of the clip's clock (`avqa_llm.clock`); spans are as many times as long.
    """
    if not weights_N.any():
        return []
    span_s = SPAN_S * pace
    bins = (tokens.times_N / span_s).long()
    sums = torch.zeros(int(bins.max()) + 1).index_add_(0, bins, weights_N)
    end = float(tokens.times_N[-1]) + tokens.length_s / 2
    top = sums.topk(min(most, len(sums)))
    chosen = sorted(top.indices[top.values >= WEAK * top.values[0]].tolist())
    spans: list[list[float]] = []
    for second in chosen:
        start, stop, weight = second * span_s, (second + 1) * span_s, float(sums[second])
        if spans and spans[-1][1] == start:
            spans[-1][1] = stop
            spans[-1][2] += weight
        else:
            spans.append([start, stop, weight])
    return [
        Evidence(
            modality="sound",
            start_s=round(start, 2),
            end_s=round(min(stop, end), 2),
            region=None,
            weight=round(weight, 4),
        )
        for start, stop, weight in sorted(spans, key=lambda span: -span[2])
    ]


def picture_evidence(tokens: Tokens, weights_N: Tensor, *, most: int = 3) -> list[Evidence]:
    """The regions that were looked at most, each with the moments where it mattered."""
    if not weights_N.any():
        return []
    xs, ys = (torch.unique(tokens.places_N2[:, axis]) for axis in (0, 1))
    half = (0.5 / len(xs), 0.5 / len(ys))
    found = []
    for x in xs.tolist():
        here = tokens.places_N2[:, 0] == x
        found.append((float(weights_N[here].sum()), x, here))
    found.sort(key=lambda column: -column[0])
    out = []
    for weight, x, here in found[:most]:
        if weight < WEAK * found[0][0]:
            break
        rows = torch.stack([weights_N[here & (tokens.places_N2[:, 1] == y)].sum() for y in ys])
        y = float(ys[int(rows.argmax())])
        strong = here & (weights_N >= weights_N[here].max() * 0.5)
        times = tokens.times_N[strong]
        out.append(
            Evidence(
                modality="picture",
                start_s=round(max(0.0, float(times.min()) - tokens.length_s / 2), 2),
                end_s=round(float(times.max()) + tokens.length_s / 2, 2),
                region=(
                    round(x - half[0], 4),
                    round(y - half[1], 4),
                    round(x + half[0], 4),
                    round(y + half[1], 4),
                ),
                weight=round(weight, 4),
            )
        )
    return out


def covered(tokens: Tokens, evidence: list[Evidence]) -> Tensor:
    """Which tokens (N,) lie inside cited evidence, in time and on the picture."""
    inside = torch.zeros(tokens.n, dtype=torch.bool)
    for place in evidence:
        hit = (tokens.times_N >= place.start_s) & (tokens.times_N < place.end_s)
        if place.region is not None:
            left, top, right, bottom = place.region
            x, y = tokens.places_N2[:, 0], tokens.places_N2[:, 1]
            hit = hit & (x >= left) & (x < right) & (y >= top) & (y < bottom)
        inside |= hit
    return inside


def reached(reading: Reading, clip: int) -> Consumed:
    """What of a clip of a reading reached the language model."""
    keys, tokens = reading.keys, reading.tokens[clip]
    sound, picture = bool(keys.sound_there_BQ[clip].any()), bool(keys.picture_there_BQ[clip].any())
    return Consumed(
        sound=sound,
        picture=picture,
        sound_tokens=tokens.sound.n if sound else 0,
        picture_tokens=tokens.picture.n if picture else 0,
    )


def cited(questions: Questions, reading: Reading, n: int) -> tuple[Evidence, ...]:
    """Where the clues of a question looked."""
    tokens = reading.tokens[questions.clips[n]]
    pace = reading.paces[questions.clips[n]]
    weights_N = questions.sound_weights_BN[n, : tokens.sound.n]
    heard = sound_evidence(tokens.sound, weights_N, pace=pace)
    seen = picture_evidence(tokens.picture, questions.picture_weights_BN[n, : tokens.picture.n])
    return (*heard, *seen)
