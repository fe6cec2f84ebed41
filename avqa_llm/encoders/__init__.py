"""Frozen encoders: picture and sound become token grids with absolute times."""

from __future__ import annotations

from avqa_llm.encoders.picture import PictureConfig, PictureEncoder
from avqa_llm.encoders.sound import SoundConfig, SoundEncoder
from avqa_llm.encoders.tokens import Tokens

__all__ = ["PictureConfig", "PictureEncoder", "SoundConfig", "SoundEncoder", "Tokens"]
