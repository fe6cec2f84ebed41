"""The 42 answers of the MUSIC-AVQA family, and how a text becomes one of them."""

from __future__ import annotations

import re
import unicodedata

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
"""The label of a text that gives none of them."""


def to_label(text: str) -> str:
    """Return the one of the 42 answers that a text gives, or `no_answer`.

    A text that starts with yes or no answers that; any other text has to name exactly one
    label, as whole words. Refusals ("it is not clear"), texts that do not commit ("maybe",
    "at least two"), negated labels ("not the violin") and two different labels are
    `no_answer`: nothing is guessed, and nothing is found inside another word.
    """
    words = _LEAD_IN.sub("", _normal(text), count=1)
    if words.strip(" |") in _WHOLE_TEXT:
        return _WHOLE_TEXT[words.strip(" |")]
    if _REFUSAL.search(words):
        return NO_ANSWER
    leading = _POLARITY.match(words)
    if leading:
        return NO_ANSWER if _takes_back(words, leading[1]) else leading[1]
    if _UNDECIDED.search(words):
        return NO_ANSWER
    labels = {_PHRASES[phrase] for phrase in _PHRASE.findall(words)}
    if len(labels) != 1:
        return NO_ANSWER
    (label,) = labels
    return NO_ANSWER if _is_negated(words, label) else label


def _takes_back(words: str, polarity: str) -> bool:
    """Whether a text that starts with yes or no leaves it open: "yes or no", "no. Yes."

    A "no" before a noun says nothing of the kind: "no, there is no violin".
    """
    opposite = "no" if polarity == "yes" else "yes"
    at_once = rf"{polarity}(?: \|)?(?:(?: and| or)* {opposite}| or)\b"
    return bool(re.match(at_once, words) or re.search(rf"\b{opposite}(?= \||$)", words))


def _is_negated(words: str, label: str) -> bool:
    """Whether the text denies its only label. "Two of them did not sound" affirms the two."""
    if label in COUNT_LABELS:
        words = _DID_NOT_SOUND.sub(" ", words)
    return bool(_NEGATION.search(words))


def _normal(text: str) -> str:
    """Lower-case words with single spaces, ` | ` where a clause ends, numbers as words."""
    text = unicodedata.normalize("NFKC", text).lower().replace("_", " ")
    text = text.replace("\u2019", "'").replace("\u2010", "-")
    text = re.sub(r"n't\b", " not", text.replace("cannot", "can not")).replace("'", "")
    text = _NUMBER.sub(_number_word, text)
    text = _MARK.sub(" | ", text)
    text = " ".join(re.sub(r"[^\w|]+", " ", text).split())
    text = re.sub(r"\bno one\b", "nobody", text)
    text = _PRONOUN_ONE.sub(r"\1", text)
    text = _NOT_A_SIDE.sub(" ", text)
    text = re.sub(r"\b(?:no|without|beyond) (?:any |an? )?doubt\b", " ", text)
    text = re.sub(r"\b(?:the|an?)\b", " ", text)
    text = re.sub(r"\b(?:yeah|yep|yup)\b", "yes", re.sub(r"\bnope\b", "no", text))
    text = re.sub(r"\|(?: \|)+", "|", " ".join(text.split())).strip(" |")
    return _MORE_THAN_TEN.sub("more than ten", text)


def _number_word(match: re.Match[str]) -> str:
    """`3` is three and `12` is more than ten; `2.5`, `1st`, `50%` and `-1` are no counts."""
    digits = match[0].replace(",", "") if _THOUSANDS.fullmatch(match[0]) else match[0]
    if not re.fullmatch("[0-9]+", digits):
        return "#"
    value = digits.lstrip("0")
    return COUNT_LABELS[int(value or 0)] if len(value) < 2 or value == "10" else "more than ten"


def _phrases() -> dict[str, str]:
    """What names each label, in the spelling of `_normal`."""
    named = {label.replace("_", " "): label for label in LABELS}
    named |= {_plural(label.replace("_", " ")): label for label in INSTRUMENT_LABELS}
    named |= {"conga": "congas", "conga drum": "congas", "conga drums": "congas"}
    named |= {"sax": "saxophone", "violoncello": "cello", "piano accordion": "accordion"}
    named |= {f"{kind}bass guitar": "electric_bass" for kind in ("", "electric ")}
    # Not one of ours, although part of its name is.
    named |= {"acoustic bass guitar": NO_ANSWER}
    named |= {f"{side}{end}": side for side in ("left", "right") for end in ("most", "est")}
    named |= {"centre": "middle", "center": "middle", "indoors": "indoor", "outdoors": "outdoor"}
    return named | {"simultaneous": "simultaneously", "at same time": "simultaneously"}


def _plural(noun: str) -> str:
    if noun.endswith("ss"):
        return f"{noun}es"
    return noun if noun.endswith("s") else f"{noun}s"


_PHRASES = _phrases()
# The longest first: "more than ten" before "ten". "At the same time as the piano" only
# repeats the question.
_PHRASE = re.compile(
    rf"\b(?!at same time as\b)({'|'.join(sorted(_PHRASES, key=len, reverse=True))})\b"
)
# Synonyms that are too common as other parts of speech to be looked for inside a sentence.
_WHOLE_TEXT = {"none": "zero", "inside": "indoor", "outside": "outdoor"}

_COUNT = "|".join(sorted(COUNT_LABELS, key=len, reverse=True))
_UNITS = "one|two|three|four|five|six|seven|eight|nine"
_ABOVE_TEN = (
    "eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    f"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?: (?:{_UNITS}))?|more than ten"
)
_MORE_THAN_TEN = re.compile(
    rf"\b(?:(?:(?:more|greater|higher) than|over|above) ){{1,2}}(?:ten|{_ABOVE_TEN})\b|"
    rf"\b(?:{_ABOVE_TEN})\b"
)
# What ends a clause: all but white space within a line, quotes, and hyphens inside a word.
# "Piano/accordion" names two instruments, "piano accordion" one.
_MARK = re.compile(r"</?\w+>|[^\w\s\"'*`-]|[\n\r\t]|(?<=\s)-+(?=\s)")
# A minus sign, decimals, times, fractions, ordinals and units stay with their digits.
_NUMBER = re.compile(r"(?<!\w)-?[0-9](?:[0-9.,:/]*[0-9])?[\w%+]*")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
# "The left one" is a side, not a count.
_PRONOUN_ONE = re.compile(
    r"\b(the only|the|this|that|which|each|every|any|other|another|same|left|right|middle|"
    r"cent(?:er|re)|leftmost|rightmost|leftest|rightest|first|second|third|fourth|fifth|last|"
    r"final|loudest|lowest|quietest|louder|quieter) ones?\b"
)
_NOT_A_SIDE = re.compile(
    r"\b(?:(?:that is|thats|you are|youre|all) right|right(?= answer)|"
    r"(?<!the )right(?= (?:now|away|after|before|at)))\b"
)
_LEAD_IN = re.compile(
    r"^(?:(?:so|well|ok|okay|oh|sure|therefore|thus|hence)\b[ |]*)*"
    r"(?:(?:(?:final|correct|best|short|my) )*answer(?: to (?:(?:this|your) )?question)?"
    r"(?: is| would be)?\b[ |]*)?"
)
_POLARITY = re.compile(r"(yes|no)\b")
_REFUSAL = re.compile(
    r"\b(?:not (?:know|tell|say|sure|clear|certain|determine|identify|possible|able|enough|"
    r"applicable|specified|mentioned|given|provided|be (?:determined|identified))|"
    r"no (?:answer|idea|clue|information|way|preference|(?:more|less|fewer) than)|"
    r"no (?:audio|sound|video|picture|image|clip)s?(?: (?:file|track|input))?"
    r"(?: (?:is|was|has been))? (?:provided|available|given|attached|accessible)|"
    r"unclear|unknown|uncertain|unsure|undetermined|indeterminate|unable|impossible|sorry|"
    r"(?:hard|difficult) to)\b"
)
_UNDECIDED = re.compile(
    r"\b(?:maybe|perhaps|possibly|might|may|could be(?! (?:heard|seen))|"
    rf"(?:(?!more than ten\b)(?:more|less|fewer|greater) than|at least|at most|over|under|above|"
    rf"below|up to|nearly|almost) (?:{_COUNT})|(?:{_COUNT}) or (?:more|less|fewer|so))\b"
)
_NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|without|none|nothing|nobody|other than|except|excluding|"
    r"anything but)\b"
)
# The benchmark itself asks how many instruments did not sound.
_DID_NOT_SOUND = re.compile(
    r"\b(?:do|does|did|is|are|was|were) not (?:always )?(?:sound|play|heard|make|making)\w*"
)
