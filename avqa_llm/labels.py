"""The 42 answers of the MUSIC-AVQA family, and how a text becomes one of them."""

from __future__ import annotations

INSTRUMENT_LABELS = (
    "accordion",
    "acoustic_guitar",
    "bagpipe",
    "banjo",
    "bassoon",
    "cello",
    "clarinet",
    "congas",
    "drum",
    "electric_bass",
    "erhu",
    "flute",
    "guzheng",
    "piano",
    "pipa",
    "saxophone",
    "suona",
    "trumpet",
    "tuba",
    "ukulele",
    "violin",
    "xylophone",
)
COUNT_LABELS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "more than ten",
)
LABELS = (
    *INSTRUMENT_LABELS,
    *COUNT_LABELS,
    *("left", "middle", "right"),
    *("indoor", "outdoor"),
    "simultaneously",
    *("yes", "no"),
)
NO_ANSWER = "no_answer"
