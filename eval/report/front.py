"""The first screen: verdict, headline against the floor, head and tail, integrity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eval.figures import part_of
from eval.report.reading import Run
from eval.report.svg import axis, element, escaped, track
from eval.report.words import (
    count,
    estimate,
    interval,
    many,
    missing,
    percent,
    points,
    verdict,
)

LIGHTS = {
    "fail": ("✕", "fails"),
    "warn": ("!", "warns"),
    "unproven": ("?", "unproven"),
    "pass": ("✓", "passes"),
}
"""Mark and word of each state, the most urgent first: never told by colour alone."""
FIRST = (
    ("head", "tail"),
    ("real", "synthetic"),
    ("Audio", "Visual", "Audio-Visual"),
    ("prior-agreeing", "prior-disagreeing"),
)
"""Groups for the first screen, what tells most first."""
ENOUGH = 4
DIGITS = 12


def lights(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """State, name and sentence of each check, the most urgent first."""
    checks = (results.get("integrity") or {}).get("checks", {})
    found = [
        (
            check["state"] if check["state"] in LIGHTS else "unproven",
            name,
            check["says"].rstrip(".") + ".",
        )
        for name, check in checks.items()
    ]
    return sorted(found, key=lambda light: list(LIGHTS).index(light[0]))


def small_print(run: Run) -> list[str]:
    """What was asked whom, when, and the files by their first digits."""
    found = run.provenance
    parts = [
        f"model {found.get('model') or 'unknown'}",
        f"{many(found.get('questions', run.results['overall']['n']), 'question')} about "
        f"{many(found.get('clips', run.results['overall']['videos']), 'clip')}",
    ]
    parts += part_of(found)
    if run.results.get("no_answer"):
        parts.append(f"{count(run.results['no_answer'])} without an answer")
    if found.get("date"):
        parts.append(str(found["date"])[:10])
    if found.get("commit"):
        whole, _, dirty = str(found["commit"]).partition("-")
        parts.append(f"commit {whole[:DIGITS]}{'-' + dirty if dirty else ''}")
    fitted = {f"floor: {name}": digest for name, digest in (found.get("fit") or {}).items()}
    for name, digest in {**(found.get("files") or {}), **fitted}.items():
        parts.append(f"{name} {digest[:DIGITS]}")
    return parts


def front(run: Run, others: list[str]) -> str:
    """The first screen; `others` say how other runs compare."""
    results = run.results
    integrity = results.get("integrity")
    state = "unproven"
    if integrity:
        state = "valid" if integrity.get("valid") else "invalid"
    lost = missing(run.provenance)
    parts = [
        element("p", escaped(f"{results['benchmark']} · {run.name}"), class_="kicker"),
        element("h1", escaped(verdict(results)), class_=state),
        element("p", escaped(lost), class_="loud") if lost else "",
        *(element("p", escaped(said), class_="against") for said in others),
        element("div", _headline(results), _lights(results), class_=f"first {state}"),
        element(
            "ul", *(element("li", escaped(part)) for part in small_print(run)), class_="small-print"
        ),
    ]
    return element("header", *parts)


def _headline(results: Mapping[str, Any]) -> str:
    overall, floor = results["overall"], (results.get("floor") or {}).get("overall")
    against = f"blind floor {percent(floor)}" if floor is not None else "no blind floor"
    says = f"Right: {estimate(overall)}; {against}"
    n = f"{interval(overall)}, n {count(overall['n'])}"
    figure = element("p", escaped(percent(overall["accuracy"])), class_="figure")
    gain = results.get("gain_over_floor")
    below = against if gain is None else f"{against}, gain {points(gain)} points"
    parts = [
        element("h2", "Right answers"),
        element("div", figure, element("p", escaped(n), class_="with"), class_="big"),
        track([overall], floor=floor, says=says, height=40),
        axis(),
        element("p", element("span", class_="key floor"), escaped(below), class_="below"),
        *_pairs(results),
    ]
    return element("section", *parts, class_="headline")


def _pairs(results: Mapping[str, Any]) -> Iterator[str]:
    """The groups that tell most, on the scale of the headline."""
    groups, floors = results["groups"], (results.get("floor") or {}).get("groups", {})
    names: list[str] = []
    for belonging in FIRST:
        if len(names) < ENOUGH and all(groups.get(name) for name in belonging):
            names += belonging
    items = []
    for name in names:
        figures = groups[name]
        with_ = f"{interval(figures)}, n {count(figures['n'])}"
        said = [
            element("span", escaped(name)),
            element("b", escaped(percent(figures["accuracy"]))),
            element("small", escaped(with_)),
        ]
        plot = track([figures], floor=floors.get(name), says=f"{name}: {estimate(figures)}")
        items.append(element("li", element("p", *said), plot))
    if items:
        yield element("ul", *items, class_="pairs", aria_label="Groups")


def _lights(results: Mapping[str, Any]) -> str:
    items = []
    for state, name, says in lights(results):
        mark, word = LIGHTS[state]
        light = element("span", mark, class_="mark", aria_hidden="true")
        said = [element("strong", escaped(name)), element("span", f"{word}:", class_="word")]
        text = element("div", " ".join([*said, escaped(says)]))
        items.append(element("li", light, text, class_=state))
    if not items:
        items.append(element("li", "No check is on record.", class_="unproven"))
    return element(
        "section",
        element("h2", "Integrity"),
        element("ul", *items, class_="lights"),
        class_="trust",
    )
