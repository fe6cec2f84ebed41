"""Media files become clips: frames with presentation times and sound, on one clock.

``read_clip`` is the door; ``probe`` looks at a file without reading it whole. Both open
local files only and raise :class:`avqa_llm.errors.MediaError` for whatever is wrong.
"""

from __future__ import annotations

from avqa_llm.media.clip import Clip
from avqa_llm.media.limits import MediaLimits
from avqa_llm.media.probe import MediaInfo, StreamInfo, probe
from avqa_llm.media.read import read_clip
from avqa_llm.media.sampling import Keyframes, MotionAdaptive, PerSecond, Sampling, Uniform

__all__ = [
    "Clip",
    "Keyframes",
    "MediaInfo",
    "MediaLimits",
    "MotionAdaptive",
    "PerSecond",
    "Sampling",
    "StreamInfo",
    "Uniform",
    "probe",
    "read_clip",
]
