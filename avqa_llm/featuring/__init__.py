"""`avqa features`: a folder of media through the frozen encoders, once."""

from __future__ import annotations

from avqa_llm.featuring.command import encode_rows, run

__all__ = ["encode_rows", "run"]
