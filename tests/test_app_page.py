"""The page as it is served, with the real embedded model, asked through its API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from app.__main__ import Served
from avqa_llm.engine import LocalEngine
from avqa_llm.session import Session
from tests.app_world import DUO, OFF, TRIO, Visitor, named, page

VISITORS = 20
FIRST = "Which instrument comes in first?"
LOUDER = "Is the violin louder than the guzheng?"
COUNT = "How many instruments are sounding in the video?"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with page(tmp_path_factory.mktemp("uploads")) as made:
        yield made


@pytest.fixture(scope="module")
def truth() -> dict[Path, str]:
    """What the model answers to COUNT, asked without a page."""
    engine = LocalEngine.load("tiny")
    return {clip: engine.answer(engine.read(clip), [COUNT])[0].answer for clip in (DUO, TRIO, OFF)}


@pytest.fixture(scope="module")
def twice() -> dict[Path, list[str]]:
    """What the model answers to COUNT, asked twice in one conversation, without a page."""
    engine = LocalEngine.load("tiny")
    sessions = {clip: Session(engine, engine.read(clip)) for clip in (DUO, TRIO, OFF)}
    return {clip: [session.ask(COUNT).answer for _ in "12"] for clip, session in sessions.items()}


def test_a_clip_is_asked_about_and_asked_about_again(served: Served) -> None:
    visitor = Visitor(served)
    said, told = visitor.ask(FIRST, DUO)
    assert told["answer"]["answer"] == "guzheng" and said.startswith("**guzheng**")
    assert "Heard" in said and "Seen" in said and "duo.mp4" in said
    assert told["answer"]["evidence"] and told["answer"]["consumed"]["sound_tokens"] > 0
    _, again = visitor.ask(LOUDER)
    assert again["clip"] == "duo.mp4" and again["answer"]["answer"] == "no"
    assert set(again["answer"]["timing_s"]) == {"answer"}  # nothing was read again


def test_words_choose_the_clip_in_a_conversation_about_two(
    served: Served, truth: dict[Path, str]
) -> None:
    visitor = Visitor(served)
    visitor.ask(COUNT, DUO)
    for question, clip in (
        ("How many instruments are sounding in trio.mp4?", TRIO),
        ("How many instruments are sounding in the first video?", DUO),
        ("How many instruments are sounding in video 2?", TRIO),
        (COUNT, TRIO),  # the latest
    ):
        new = (TRIO,) if question.endswith("trio.mp4?") else ()
        _, told = visitor.ask(question, *new)
        assert (told["clip"], told["answer"]["answer"]) == (clip.name, truth[clip])
    said, told = visitor.ask("How many instruments are sounding in the third video?")
    assert told["answer"] is None and "has 2" in said


def test_what_goes_wrong_is_a_sentence_and_the_conversation_goes_on(
    served: Served, tmp_path: Path
) -> None:
    visitor = Visitor(served)
    said, told = visitor.ask(FIRST)
    assert "no clip yet" in said and told["answer"] is None
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video" * 100)
    said, told = visitor.ask(FIRST, broken)
    assert told["answer"] is None and "Traceback" not in said
    assert str(tmp_path) not in said and "avqa-app" not in said
    said, told = visitor.ask("", DUO)
    assert "10.0 s with sound and picture" in said.replace("\\", "")
    _, told = visitor.ask(FIRST)
    assert told["answer"]["answer"] == "guzheng"
    said, told = visitor.ask(FIRST, model="tiny")
    assert told["clip"] == "duo.mp4"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        str(DUO),
        "http://127.0.0.1:1/a.mp4",
        "{uploads}/../escape.mp4",
        "{uploads}/link.mp4",
    ],
)
def test_a_file_that_was_not_uploaded_is_refused(served: Served, tmp_path: Path, path: str) -> None:
    uploads = Path(served.page.GRADIO_CACHE)
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(DUO.read_bytes())
    if not (uploads / "link.mp4").is_symlink():
        (uploads / "link.mp4").symlink_to(secret)
    given = path.replace("{uploads}", str(uploads))
    file = {"path": given, "meta": {"_type": "gradio.FileData"}}
    for body in (
        {"data": [{"text": FIRST, "files": [file]}, "tiny", False, False]},
        {"data": [], "event_data": {"value": {"text": FIRST, "files": [file]}}},
    ):
        request = Request(
            f"{served.address}gradio_api/call/chat",
            data=json.dumps({**body, "session_hash": "stranger"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with pytest.raises(HTTPError) as caught:
            urlopen(request, timeout=30)
        assert caught.value.code == 400
        assert "not uploaded here" in caught.value.read().decode()


def test_many_at_once_hear_about_their_own_clips(
    served: Served, twice: dict[Path, list[str]], tmp_path: Path
) -> None:
    def visit(number: int) -> tuple[int, list[dict[str, Any]]]:
        clip = named(tmp_path, (DUO, TRIO, OFF)[number % 3], f"visitor_{number:02}.mp4")
        visitor = Visitor(served)
        return number, [visitor.ask(COUNT, clip)[1], visitor.ask(COUNT)[1]]

    with ThreadPoolExecutor(VISITORS) as pool:
        for number, told in pool.map(visit, range(VISITORS)):
            assert {one["clip"] for one in told} == {f"visitor_{number:02}.mp4"}
            answers = [one["answer"]["answer"] for one in told]
            assert answers == twice[(DUO, TRIO, OFF)[number % 3]]


def test_what_if_the_sound_is_muted(served: Served) -> None:
    visitor = Visitor(served)
    nothing = visitor.client.predict(True, False, False, None, None, api_name="/what_if")
    assert "Ask a question first" in nothing
    visitor.ask(LOUDER, DUO)
    same = visitor.client.predict(False, False, False, None, None, api_name="/what_if")
    assert "Choose what to change" in same
    shown = visitor.client.predict(True, False, True, 2, 8, api_name="/what_if")
    assert shown.count("av-panel") == 2 and "From 2 s to 8 s, mirrored, without sound" in shown
    assert "Not heard" in shown and "Heard" in shown
    _, told = visitor.ask(FIRST)
    assert told["answer"]["consumed"]["sound"]  # the change was for that question alone


def test_a_clip_that_is_too_long_is_refused_by_name(tmp_path: Path) -> None:
    with page(tmp_path / "uploads", "--max-seconds", "5") as served:
        said, told = Visitor(served).ask(FIRST, DUO)
        assert told["answer"] is None and "5" in said and "duo" in said


def test_looking_twice_shows_its_steps(served: Served) -> None:
    visitor = Visitor(served)
    visitor.ask(COUNT, DUO)
    said, told = visitor.client.predict(
        visitor.message(LOUDER), "tiny", False, True, api_name="/chat"
    )
    assert told["answer"]["answer"] == "no"
    assert "steps</summary>" in said and "<em>said by the model</em>" in said
