"""Array files and truth of a Bandstand set, as the data stages of training read them.

Legend: N clips, P moments (frame pairs), C channels, M mel bands, F spectrogram frames,
K instruments, Q picture columns, T sound tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avqa_llm.encoders.sound import log_mel
from avqa_llm.errors import AnnotationError
from avqa_llm.labels import INSTRUMENT_LABELS

KINDS = {name: k for k, name in enumerate(INSTRUMENT_LABELS)}
VOICE = len(KINDS)
LEVEL_MID_DB, LEVEL_SPAN_DB, RATE_MID_HZ = -25.0, 9.0, 2.8
"""Middle of the loudness grid and what is half of it, and middle of the rhythm grid."""
STEPS = 5
SCALES = {"level": ("l", 2.0), "rate": ("r", (STEPS - 1) / np.log(7.0))}
"""How the record writes them: letter of the steps, and steps in one unit of `sound_targets`."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One array file: uint8 frame pairs and 16 kHz int16 sound of some clips."""

    first: int
    """Number of its first clip in the set."""
    pairs_NPCHW: Tensor
    sound_NCS: Tensor

    def mel_NCMF(self) -> Tensor:
        """Spectrograms, half precision."""
        return torch.cat([log_mel(s[None].float() / 32767) for s in self.sound_NCS]).half()


def read_truth(folder: Path) -> list[dict[str, Any]]:
    """Scenes of the set, in order."""
    path = folder / "truth.json"
    if not path.exists():
        raise AnnotationError(f"{path} does not exist: write it with `python -m instruct_data`")
    return list(json.loads(path.read_text()))


def shard_paths(folder: Path) -> list[Path]:
    """Array files of the set, in order."""
    paths = sorted(folder.glob("arrays-*.safetensors"))
    if not paths:
        raise AnnotationError(
            f"{folder} holds no arrays-*.safetensors: write them with"
            " `python -m instruct_data bandstand ... --media arrays`"
        )
    return paths


def read_shard(path: Path, first: int) -> Shard:
    """Read one array file."""
    from safetensors.torch import load_file

    arrays = load_file(path)
    frames = arrays["frames_NTHWC"].permute(0, 1, 4, 2, 3)
    pairs = frames.unflatten(1, (-1, 2)).flatten(2, 3)
    return Shard(first=first, pairs_NPCHW=pairs, sound_NCS=arrays["sound_NCS"])


def picture_targets(
    scene: dict[str, Any], times: np.ndarray, columns: int
) -> dict[str, np.ndarray]:
    """What each picture column shows at each moment.

    Returns:
        `kinds` (P, Q, K): 1 where an instrument stands, -1 (ignore) in the columns beside it.
        `moving` (P, Q): 1 moving, 0 still, -1 nobody there.
    """
    kinds = np.zeros((len(times), columns, len(KINDS)), np.float32)
    moving = np.full((len(times), columns), -1.0, np.float32)
    for player in scene["players"]:
        if player["x"] is None:
            continue
        k, at = KINDS[player["instrument"]], player["x"] * columns
        home = min(int(at), columns - 1)
        for q in range(columns):
            if q != home and abs(q + 0.5 - at) < 1.2:
                beside = kinds[:, q, k]
                beside[beside == 0] = -1
        kinds[:, home, k] = 1
        moves = player["moves_s"]
        moving[:, home] = 0 if not moves else (times >= moves[0]) & (times + 0.2 < moves[1])
    return {"kinds": kinds, "moving": moving}


def sound_targets(scene: dict[str, Any], times: np.ndarray) -> dict[str, np.ndarray]:
    """What sounds at each token.

    Returns:
        `active` (T, K+1): how many players of an instrument sound (last: the narrator).
        `level`, `rate`, `pan` (T, K): of the one player that sounds, NaN otherwise; scaled
        to about -1..1.
    """
    shape = (len(times), len(KINDS))
    active = np.zeros((shape[0], shape[1] + 1), np.float32)
    facts = {name: np.full(shape, np.nan, np.float32) for name in ("level", "rate", "pan")}
    for player in scene["players"]:
        if player["start_s"] is None:
            continue
        k = KINDS[player["instrument"]]
        on = (times >= player["start_s"]) & (times < player["end_s"])
        active[on, k] += 1
        facts["level"][on, k] = (player["level_db"] - LEVEL_MID_DB) / LEVEL_SPAN_DB
        facts["rate"][on, k] = np.log(player["rate_hz"] / RATE_MID_HZ)
        facts["pan"][on, k] = player["pan"]
    for values in facts.values():
        values[active[:, :-1] != 1] = np.nan
    voice = scene["voiceover"]
    if voice:
        active[(times >= voice["start_s"]) & (times < voice["end_s"]), VOICE] = 1
    return {"active": active, **facts}
