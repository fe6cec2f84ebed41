"""What can be measured of a clip's sound, as distinct from what a model believes about it.

``measure`` answers one question about one quantity, ``facts_of`` gives an overview of the clip.
Both work on the sound at its native rate and say why where something cannot be told.
"""

from __future__ import annotations

from avqa_llm.acoustics.facts import Facts, facts_of
from avqa_llm.acoustics.kinds import QUANTITIES, SIDES, Measurement, Span
from avqa_llm.acoustics.measure import measure
from avqa_llm.errors import AcousticsError

__all__ = [
    "QUANTITIES",
    "SIDES",
    "AcousticsError",
    "Facts",
    "Measurement",
    "Span",
    "facts_of",
    "measure",
]
