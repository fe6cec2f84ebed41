"""The evidence panel: every time can be played, fact and opinion are apart, text stays text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from app.markup import Html, join, percent, said, tag
from app.panel import lights, panel
from app.seen import Shown, shown
from app.timeline import where
from avqa_llm.answer import Alternative, Answer, Consumed, Evidence
from avqa_llm.engine import LocalEngine, load_engine
from avqa_llm.media.clip import Clip
from avqa_llm.session import Session

SAMPLES = Path(__file__).resolve().parent.parent / "app" / "samples"
VOID = {"img", "br", "hr"}


class Page(HTMLParser):
    """Reads a panel: whether it is well-formed, its elements, its text by section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attributes}
        self.elements.append((name, given))
        if name not in VOID:
            self.open.append(f"{name}.{given.get('class', '')}")

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop().partition(".")[0] == name

    def handle_data(self, data: str) -> None:
        self.texts.append(("/".join(self.open), data))

    def text(self, inside: str = "") -> str:
        return " ".join(" ".join(text for at, text in self.texts if inside in at).split())

    def times(self) -> list[dict[str, str]]:
        return [given for name, given in self.elements if "data-seek" in given and name == "button"]


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return load_engine("tiny")


@pytest.fixture(scope="module")
def duo(engine: LocalEngine) -> Clip:
    return engine.read(SAMPLES / "duo.mp4")


@pytest.fixture(scope="module")
def asked(engine: LocalEngine, duo: Clip) -> tuple[Answer, Shown]:
    answer = Session(engine, duo).ask("Which instrument comes in first?")
    return answer, shown(duo, "duo.mp4")


def violin_s(answer: Answer) -> tuple[float, float]:
    """When the model heard it, by its record, which counts half seconds."""
    found = re.search(r"violin left s(\d+) e(\d+)", answer.record)
    assert found and 0 < int(found[1]) < int(found[2]) < 20
    return int(found[1]) / 2, int(found[2]) / 2


def test_a_real_answer_is_shown_with_all_its_evidence(asked: tuple[Answer, Shown]) -> None:
    answer, clip = asked
    page = Page(panel(answer, clip, player="player-1"))
    assert page.text("p.av-answer") == "guzheng" == answer.answer
    assert page.text("ul.av-lights") == "Heard 101 tokens of sound Seen 240 tokens of picture"
    assert answer.probability is not None
    assert percent(answer.probability) in page.text("div.av-sure").replace(" %", "\u00a0%")
    starts = {float(given["data-seek"]) for given in page.times()}
    for found in answer.evidence:
        assert found.start_s in starts
    sound = [found for found in answer.evidence if found.modality == "sound"]
    marks = [given for _, given in page.elements if given.get("class") == "av-mark"]
    weights = [mark["style"].partition("--weight:")[2] for mark in marks]
    assert weights == [f"{found.weight:.3f}" for found in sound] != []
    outlines = [given for _, given in page.elements if given.get("class") == "av-outline"]
    assert len(outlines) == len(answer.evidence) - len(sound) > 0
    told = page.text("section.av-told")
    start, end = violin_s(answer)
    assert "violin left" in told and "guzheng right" in told and f"{start:g}–{end:g} s" in told


def test_every_time_is_a_button_that_names_its_player(asked: tuple[Answer, Shown]) -> None:
    answer, clip = asked
    times = Page(panel(answer, clip, player="player-1")).times()
    assert len(times) > 15
    for given in times:
        assert given["data-player"] == "player-1" and given["type"] == "button"
        assert 0 <= float(given["data-seek"]) <= clip.duration_s + 0.001  # it is rounded
        assert float(given.get("data-until", clip.duration_s)) >= float(given["data-seek"])
        assert re.fullmatch(r"play from [\d.:]+( s)?( to [\d.:]+( s)?)?", given["aria-label"])


def test_fact_and_opinion_are_two_sections(asked: tuple[Answer, Shown]) -> None:
    answer, clip = asked
    page = Page(panel(answer, clip, player="p"))
    facts, told = page.text("section.av-measured"), page.text("section.av-told")
    assert facts.startswith("Measured from the sound fact") and "LUFS" in facts
    assert told.startswith("What the model wrote down its opinion")
    assert "violin" not in facts and "LUFS" not in told
    without = Page(panel(answer, dataclasses.replace(clip, facts=None), player="p"))
    assert without.text("section.av-measured") == ""
    assert without.text("section.av-told") == told


@pytest.mark.parametrize(
    "change, light, measured",
    [
        (Clip.muted, "Not heard no sound reached the model", "no sound track"),
        (Clip.blanked, "Not seen no picture reached the model", "LUFS"),
    ],
)
def test_a_missing_modality_is_said(
    engine: LocalEngine, duo: Clip, change: Callable[[Clip], Clip], light: str, measured: str
) -> None:
    clip = change(duo)
    answer = Session(engine, clip).ask("Where is the loudest instrument?")
    page = Page(panel(answer, shown(clip, "duo"), player="p"))
    assert light in page.text("ul.av-lights")
    assert measured in page.text("section.av-measured")
    assert len(answer.warnings) > 0 and page.text("ul.av-warnings").endswith(".")


def test_a_part_is_shown_on_the_players_clock(asked: tuple[Answer, Shown]) -> None:
    answer, clip = asked
    page = Page(panel(answer, clip, player="p", starts_s=60.0))
    starts = [float(given["data-seek"]) for given in page.times()]
    assert min(starts) == 60.0 and max(starts) <= 60.0 + clip.duration_s
    start, end = violin_s(answer)
    assert f"1:{start:04.1f}–1:{end:04.1f}" in page.text("section.av-told")
    assert "1:00.0" in page.text("div.av-axis")


def test_nothing_proven_is_unknown() -> None:
    answer = Answer(answer="yes", label="yes", probability=None, consumed=None)
    assert Page(lights(answer)).text() == (
        "Unknown whether heard the server does not say Unknown whether seen the server does not say"
    )
    silent = dataclasses.replace(
        answer,
        consumed=Consumed(sound=False, picture=True, sound_tokens=0, picture_tokens=7),
    )
    assert Page(lights(silent)).text() == (
        "Not heard no sound reached the model Seen 7 tokens of picture"
    )


# -- what a server may say ---------------------------------------------------------------------

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>\' onclick="x" </section>&amp;'


@pytest.fixture
def hostile(asked: tuple[Answer, Shown]) -> Answer:
    return Answer(
        answer=EVIL,
        label=EVIL,
        probability=float("nan"),
        alternatives=(Alternative(label=EVIL, probability=1e30),) * 50,
        evidence=(
            Evidence(
                modality="sound",
                start_s=float("nan"),
                end_s=float("inf"),
                region=None,
                weight=float("nan"),
            ),
            Evidence(modality="sound", start_s=-5.0, end_s=1e300, region=None, weight=-3.0),
            Evidence(modality=EVIL, start_s=0.0, end_s=1.0, region=None, weight=1.0),
            Evidence(
                modality="picture",
                start_s=float("nan"),
                end_s=9.0,
                region=(5.0, float("nan"), -3.0, 2.0),
                weight=2.0,
            ),
        )
        * 30,
        consumed=Consumed(sound=True, picture=True, sound_tokens=-1, picture_tokens=10**30),
        steps=EVIL + " s9999 l9",
        record=f"outdoor ; flute left s0 e999 l4 r4 ; {EVIL} left s1 e2 ; {EVIL}",
        warnings=(EVIL,) * 99,
        pace=1e300,
    )


def test_hostile_text_stays_text(hostile: Answer, asked: tuple[Answer, Shown]) -> None:
    clip = dataclasses.replace(asked[1], name=EVIL)
    plain = Page(panel(asked[0], asked[1], player="p"))
    page = Page(panel(hostile, clip, player=EVIL))
    assert {name for name, _ in page.elements} <= {name for name, _ in plain.elements}
    names = {key for _, given in page.elements for key in given}
    assert not {name for name in names if name.startswith("on")}
    assert names <= {key for _, given in plain.elements for key in given} | {"role", "title"}
    assert EVIL in page.text("p.av-answer")
    assert {given["data-player"] for given in page.times()} == {EVIL}


def test_hostile_numbers_stay_in_bounds(hostile: Answer, asked: tuple[Answer, Shown]) -> None:
    html = panel(hostile, asked[1], player="p")
    assert len(html) < 400_000
    page = Page(html)
    for given in page.times():
        assert 0 <= float(given["data-seek"]) <= asked[1].duration_s + 0.001  # it is rounded
    styles = [given["style"] for _, given in page.elements if "style" in given]
    assert all(float(number) <= 100 for style in styles for number in re.findall(r"[\d.]+", style))
    assert not [style for style in styles if "nan" in style or "inf" in style or "-" in style[2:6]]


def test_nothing_is_fetched_and_nothing_runs(asked: tuple[Answer, Shown]) -> None:
    page = Page(panel(*asked, player="p"))
    for name, given in page.elements:
        assert name not in {"script", "style", "link", "iframe", "object", "a", "form"}
        assert not [key for key in given if key.startswith("on") or key in ("href", "srcset")]
        assert given.get("src", "data:image/").startswith("data:image/")
        assert "url(" not in given.get("style", "")
    assert all("alt" in given for name, given in page.elements if name == "img")


def test_an_empty_clip_and_an_empty_answer_are_shown() -> None:
    nothing = Shown(
        name="", duration_s=0.0, has_sound=False, is_silent=False, has_picture=False,
        channels=0, aspect=0.0,
    )  # fmt: skip
    answer = Answer(answer="", label="no_answer", probability=None, consumed=None)
    page = Page(panel(answer, nothing, player="p"))
    assert page.text("p.av-answer") == "no answer"
    assert "wrote nothing down" in page.text("section.av-told")


# -- small parts -------------------------------------------------------------------------------


def test_markup_escapes_all_that_is_not_markup() -> None:
    assert tag("b", "<i>", tag("i", "&")) == "<b>&lt;i&gt;<i>&amp;</i></b>"
    assert tag("p", title='"x"', hidden=True, id=None, data_seek="1") == (
        '<p title="&quot;x&quot;" hidden data-seek="1"></p>'
    )
    assert isinstance(join(["<", Html("<br>")]), Html) and join(["<", Html("<br>")]) == "&lt;<br>"


def test_times_and_parts_are_said_as_people_do() -> None:
    assert [said(t) for t in (0, 3.24, 10.0, 59.97, 63.5)] == [
        "0 s", "3.2 s", "10 s", "1:00.0", "1:03.5",
    ]  # fmt: skip
    told = [percent(p).replace("\u00a0", " ") for p in (0, 0.001, 0.924, 0.999, 1)]
    assert told == ["0 %", "< 1 %", "92 %", "> 99 %", "100 %"]
    assert where((0.6, 0.66, 0.75, 1.0)) == "bottom right" and where(None) == "everywhere"
    assert where((0.4, 0.4, 0.6, 0.6)) == "middle"
