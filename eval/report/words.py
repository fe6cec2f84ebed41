"""Figures in words: percentages with two decimals, intervals in brackets, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.figures import from_file

Figures = Mapping[str, Any]
NONE = "–"
SENSES = ("sound", "picture")


def percent(share: float | None) -> str:
    """A share of 0..1 as `82.25 %`."""
    return NONE if share is None else f"{100 * share:.2f} %"


def points(share: float | None) -> str:
    """A signed difference of shares in percentage points: `+2.10`."""
    return NONE if share is None else f"{100 * share:+.2f}"


def interval(figures: Figures, *, signed: bool = False) -> str:
    """`[81.01, 83.46]`, or why there is none."""
    low, high = figures.get("low"), figures.get("high")
    if low is None or high is None:
        return "no interval"
    sign = "+" if signed else ""
    return f"[{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"


def estimate(figures: Figures | None) -> str:
    """`82.25 % [81.01, 83.46]`."""
    if not figures or figures.get("accuracy") is None:
        return NONE
    return f"{percent(figures['accuracy'])} {interval(figures)}"


def bounds(figures: Figures) -> tuple[float, float] | None:
    """The interval of an estimate; None where there is none."""
    low, high = figures.get("low"), figures.get("high")
    return None if low is None or high is None else (low, high)


def known(figures: Figures) -> list[float]:
    """The estimate and its bounds, as far as they are known: what a plot has to show."""
    value = figures["accuracy"] if "accuracy" in figures else figures["value"]
    return [value, *(bounds(figures) or ())]


def count(number: int | None) -> str:
    """`9,591`."""
    return NONE if number is None else f"{number:,}"


def many(number: int, one: str, more: str | None = None) -> str:
    """`1 clip`, `600 clips`."""
    return f"{count(number)} {one if number == 1 else more or one + 's'}"


def listed(parts: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def sentence(text: str) -> str:
    """With a capital and an end."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


# --- the verdict ----------------------------------------------------------------------------


def verdict(results: Figures) -> str:
    """What a run shows, in one sentence that is made of its figures alone."""
    integrity, overall = results.get("integrity"), results["overall"]
    if integrity and not integrity.get("valid"):
        figure = f"{percent(overall['accuracy'])} of {many(overall['n'], 'question')}"
        return sentence(f"INVALID, do not quote the {figure}: {_failed(integrity)}")
    tested = results.get("modalities")
    return sentence(f"{standing(results)}: {height(results)}; {listens(tested)}")


def _failed(integrity: Figures) -> str:
    checks = integrity.get("checks", {}).values()
    why = [check["says"].strip().rstrip(".") for check in checks if check["state"] == "fail"]
    return "; ".join(why) or "the run is marked so"


def standing(results: Figures) -> str:
    """Valid or INVALID, or what is not known of it."""
    integrity = results.get("integrity")
    if not integrity:
        return "Unproven, no integrity check is on record"
    if not integrity.get("valid"):
        return "INVALID"
    states = [check["state"] for check in integrity.get("checks", {}).values()]
    unproven = states.count("unproven")
    return f"Valid, with {many(unproven, 'check')} unproven" if unproven else "Valid"


def height(results: Figures) -> str:
    """How many are right, and how far that is above the floor."""
    overall = results["overall"]
    right = f"{percent(overall['accuracy'])} of {many(overall['n'], 'question')} right"
    gain, bounds = results.get("gain_over_floor"), results.get("gain_interval")
    if gain is None:
        return f"{right}, with no blind floor to compare with"
    figures = {"low": None, "high": None}
    if bounds:
        figures = {"low": bounds[0], "high": bounds[1]}
    shown = f"{100 * abs(gain):.2f} points"
    if not bounds or bounds[0] is None:
        return f"{right}, {shown} {'above' if gain >= 0 else 'below'} the blind floor, no interval"
    if bounds[0] > 0:
        return f"{right}, {shown} {interval(figures)} above the blind floor"
    if bounds[1] < 0:
        return f"{right}, {shown} below the blind floor {interval(figures, signed=True)}"
    return f"{right}, not measurably above the blind floor {interval(figures, signed=True)}"


def listens(modalities: Figures | None) -> str:
    """What the answers rest on: the sound, the picture, both or neither."""
    if not modalities:
        return "what it listens to was not tested"
    adds = {name: modalities[f"{name} adds"] for name in SENSES if modalities.get(f"{name} adds")}
    if not adds or any(part.get("low") is None for part in adds.values()):
        return "what it listens to cannot be told from so few clips"
    used = [name for name, part in adds.items() if part["low"] > 0]
    unused = [name for name in adds if name not in used]
    untested = "".join(f"; the {name} was not tested" for name in SENSES if name not in adds)
    if not used and untested:
        return f"the {unused[0]} adds nothing measurable{untested}"
    if not used:
        return f"neither {' nor '.join(unused)} adds anything measurable"
    told = listed([f"the {name} (adds {100 * adds[name]['value']:.2f})" for name in used])
    return f"it uses {told}" + (f" but not measurably the {unused[0]}" if unused else untested)


def missing(provenance: Figures) -> str:
    """Which clips or predictions were not there; empty where all were."""
    clips, questions = provenance.get("missing_clips") or {}, provenance.get("missing_questions")
    if not clips and not questions:
        return ""
    asked = provenance.get("asked")
    of = f" of {count(asked)}" if asked else ""
    lost = f"{count(questions or 0)}{of} questions"
    if from_file(provenance):
        return f"No prediction for {lost}: they are in no figure here."
    why = f"{many(len(clips), 'clip')} missing or broken: " if clips else ""
    return f"{why}{lost} could not be asked and are in no figure here."
