"""What an omni model is made from, and how clips are prepared for it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from avqa_llm.errors import RecipeError

if TYPE_CHECKING:
    from avqa_llm.model import World

Dtype = Literal["bfloat16", "float32"]
DTYPES: tuple[str, ...] = ("bfloat16", "float32")


@dataclass(frozen=True, kw_only=True)
class OmniConfig:
    """What `avqa.json` says about a model of kind `omni`."""

    base: str
    """Directory or hub name of the omni model; of a whole one only the thinker is loaded."""
    revision: str | None = None
    """Of the hub; a commit is best, for branches move."""
    dtype: Dtype = "bfloat16"
    """Of the frozen weights. LoRA weights are float32."""
    quantize: Literal["nf4", "int8"] | None = None
    """Frozen decoder weights in few bits (QLoRA, Dettmers et al. 2023); needs bitsandbytes. The
    towers keep theirs."""
    rank: int = 64
    """Of the LoRA adapter on the decoder's linear layers."""
    alpha: int = 128
    fps: float = 1.0
    """Frames a second; two frames make one step of the vision tower."""
    max_frames: int = 64
    """Of a longer clip, so many frames are taken, evenly over its length."""
    max_pixels: int = 128 * 28 * 28
    """Of a frame, at most: 28 x 28 pixels (Qwen3: 32 x 32) are one token of a pair of frames."""
    min_pixels: int = 16 * 28 * 28
    """Smaller frames are enlarged to so many."""
    max_audio_s: float = 120.0
    """Later sound is not heard; an answer about a longer clip says so. 25 tokens a second (Qwen3:
    13)."""
    instruction: str = ""
    """Stands after each question, such as "Answer with one word."; empty: nothing does."""

    def __post_init__(self) -> None:
        """Raises RecipeError on values that cannot work."""
        positive = ("rank", "alpha", "fps", "max_frames", "min_pixels", "max_audio_s")
        for name in positive:
            if getattr(self, name) <= 0:
                raise RecipeError(f"omni.{name} is {getattr(self, name)}; it must be above 0")
        if self.max_pixels < self.min_pixels:
            raise RecipeError(
                f"omni.max_pixels is {self.max_pixels}; it must be at least min_pixels,"
                f" {self.min_pixels}"
            )
        if self.dtype not in DTYPES:
            raise RecipeError(f"omni.dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}")

    @property
    def world(self) -> World:
        """What is known of clips that fit: their length alone."""
        from avqa_llm.model import World

        return World(longest_s=self.max_audio_s)
