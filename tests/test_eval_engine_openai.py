"""The engine over an OpenAI-compatible server, against a local server that speaks the protocol."""

from __future__ import annotations

import io
import math
import threading
import time
import wave
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avqa_llm.answer import Consumed
from avqa_llm.labels import NO_ANSWER
from avqa_llm.media.parts import encode
from eval.engines import Asked
from eval.engines import server as transport
from eval.engines.openai import OpenAI
from eval.engines.pace import in_order
from eval.samples import RunError
from tests.media_files import Picture, Sound, at_rate, make_media, number_of
from tests.scripted_server import (
    FRAMES,
    QUESTION,
    SECONDS,
    Reply,
    Script,
    ask,
    clip,
    decoded,
    frames_of,
    of_type,
    question_of,
    seconds_of,
    serving,
)


@pytest.fixture(autouse=True)
def _fast_and_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, no key and no proxy of this machine."""
    monkeypatch.setattr(transport, "FIRST_WAIT_S", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


# -- what is sent --------------------------------------------------------------------------------


def test_a_request_holds_picture_sound_and_question_in_this_order() -> None:
    script = Script()
    (answer,) = ask(script)
    body = script.bodies[0]
    assert script.paths[0] == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("omni", 0, 32)
    assert body["logprobs"] is True
    assert [part["type"] for part in body["messages"][0]["content"]] == [
        *("video_url", "input_audio", "text")
    ]
    assert QUESTION.question in question_of(body)
    assert "more than ten, left, middle" in question_of(body)
    assert (answer.answer, answer.label) == ("two", "two")
    assert "Authorization" not in script.headers[0]


def test_sound_and_picture_come_back_out_of_a_request() -> None:
    script = Script()
    ask(script)
    (sound,) = of_type(script.bodies[0], "input_audio")
    assert sound["input_audio"]["format"] == "wav"
    assert seconds_of(decoded(sound)) == pytest.approx(SECONDS)
    with wave.open(io.BytesIO(decoded(sound))) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / 16_000)
    assert np.abs(heard - expected)[200:-200].max() < 0.01
    (picture,) = of_type(script.bodies[0], "video_url")
    frames = frames_of(decoded(picture))
    assert [number_of(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(FRAMES))
    assert [frame.time for frame in frames] == pytest.approx([n * 0.5 for n in range(FRAMES)])


def test_a_file_is_read_with_the_frames_and_the_size_that_are_sent(tmp_path: Path) -> None:
    path = make_media(
        tmp_path / "a.mp4", Picture(times_s=at_rate(10, 3), size=(320, 200)), Sound(seconds=3)
    )
    read = OpenAI.connect("omni", base_url="http://127.0.0.1:1", frames=6, max_side=160).read(path)
    assert read.frames_THWC.shape == (6, 100, 160, 3)
    assert read.sound_rate_hz == 16_000
    assert read.frame_times_s == pytest.approx([0.2, 0.7, 1.2, 1.7, 2.2, 2.7], abs=0.11)


def test_frames_at_uneven_times_are_shown_near_their_times_and_odd_sizes_are_padded() -> None:
    uneven = np.array([0.1, 0.3, 0.5, 0.7, 2.5, 3.0, 3.5, 3.9])
    (part,) = encode(replace(clip(size=(65, 49)), frame_times_s=uneven)).picture
    frames = frames_of(decoded(part))
    numbers = [number_of(frame.to_ndarray(format="rgb24")[:, :65]) for frame in frames]
    assert (frames[0].width, frames[0].height) == (66, 50)
    assert sorted(set(numbers)) == list(range(FRAMES)) and numbers == sorted(numbers)
    first = {number: frames[numbers.index(number)].time for number in range(FRAMES)}
    assert [first[n] for n in range(FRAMES)] == pytest.approx(list(uneven), abs=1.0)
    assert numbers.count(3) > numbers.count(0)  # it is shown until 1.6 s


def test_a_still_picture_is_sent_as_an_image() -> None:
    still = replace(
        clip().muted(),
        duration_s=0.0,
        picture_span_s=(0.0, 0.0),
        frames_THWC=clip().frames_THWC[5:6],
        frame_times_s=np.zeros(1),
    )
    text, image = encode(still).picture
    assert (text["text"], image["type"]) == ("The picture at 0.0 s:", "image_url")


def test_pictures_as_images_and_sound_as_a_data_url() -> None:
    script = Script()
    (answer,) = ask(script, picture="images", sound="audio_url")
    body = script.bodies[0]
    assert len(of_type(body, "image_url")) == FRAMES
    assert of_type(body, "text")[1]["text"] == "The picture at 0.8 s:"
    with av.open(io.BytesIO(decoded(of_type(body, "image_url")[5]))) as file:
        assert number_of(next(file.decode(video=0)).to_ndarray(format="rgb24")) == 5
    (sound,) = of_type(body, "audio_url")
    assert sound["audio_url"]["url"].startswith("data:audio/wav;base64,")
    assert seconds_of(decoded(sound)) == pytest.approx(SECONDS)
    # The captions of the frames stay where the frames are left out: they prove nothing.
    assert answer.consumed.picture_tokens == 64 * FRAMES


@pytest.mark.parametrize("gone", ["sound", "picture", "both"])
def test_what_a_clip_does_not_have_is_not_sent(gone: str) -> None:
    script, shown = Script(), clip()
    shown = shown.muted() if gone in ("sound", "both") else shown
    shown = shown.blanked() if gone in ("picture", "both") else shown
    (answer,) = ask(script, [shown])
    kinds = {part["type"] for body in script.bodies for part in body["messages"][0]["content"]}
    assert ("input_audio" in kinds) == (gone == "picture")
    assert ("video_url" in kinds) == (gone == "sound")
    assert answer.consumed.sound == (gone == "picture")
    assert answer.consumed.picture == (gone == "sound")
    assert any("There was no" in warning for warning in answer.warnings)
    # The same words with and without: only sound and picture make the difference.
    whole = Script()
    ask(whole)
    assert question_of(script.bodies[0]) == question_of(whole.bodies[0])


def test_choices_are_named_and_scored() -> None:
    script = Script(text=lambda question: "Dog barking.")
    choices = ("dog barking", "cat, meowing", "a car")
    (answer,) = ask(script, asked=[Asked(clip=0, question="What is it", choices=choices)])
    assert "dog barking; cat, meowing; a car" in question_of(script.bodies[0])
    assert "xylophone" not in question_of(script.bodies[0])
    assert answer.label == "dog barking"


# -- answers -------------------------------------------------------------------------------------


def test_answers_keep_the_order_and_requests_the_limit() -> None:
    def text(question: str) -> str:
        return question.split("number ")[1].split("?")[0]

    asked = [Asked(clip=n % 2, question=f"number {n}?") for n in range(24)]
    script = Script(text=text, delay_s=0.06)
    answers = ask(script, [clip(), clip(3.0)], asked, concurrency=3)
    assert [answer.answer for answer in answers] == [str(n) for n in range(24)]
    assert script.most_in_flight == 3
    lengths = {
        seconds_of(decoded(of_type(body, "input_audio")[0]))
        for body in script.questions
        if "number 3?" in question_of(body)
    }
    assert lengths == {3.0}


def test_the_probability_is_that_of_the_text() -> None:
    tokens = [("more", -0.1), (" than", -0.2), (" ten", -0.3), ("<|im_end|>", -5.0)]
    script = Script(text=lambda _: "more than ten", logprobs=tokens)
    assert ask(script)[0].probability == pytest.approx(math.exp(-0.6), abs=1e-4)
    script = Script(text=lambda _: "two", logprobs=[("token_id:17", -0.1)])
    assert ask(script)[0].probability is None
    assert ask(Script())[0].probability is None


def test_logprobs_are_given_up_once_where_the_server_does_not_know_them() -> None:
    def refuse(body: dict[str, Any]) -> str | None:
        return "logprobs are not supported with this model" if "logprobs" in body else None

    script = Script(refuse=refuse)
    answers = ask(script, asked=[QUESTION] * 3, concurrency=1)
    assert [answer.probability for answer in answers] == [None] * 3
    assert sum("logprobs" in body for body in script.bodies) == 1


def test_settings_of_newer_models_are_learnt() -> None:
    def refuse(body: dict[str, Any]) -> str | None:
        if "max_tokens" in body:
            return "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return "'temperature' does not support 0" if "temperature" in body else None

    script = Script(refuse=refuse)
    (answer,) = ask(script)
    assert script.bodies[-1].keys() == {"model", "messages", "max_completion_tokens", "logprobs"}
    assert any("no temperature" in warning for warning in answer.warnings)


def test_what_cuts_an_answer_is_said() -> None:
    (answer,) = ask(Script(text=lambda _: "Let me think", finish="length"), most_tokens=5)
    assert "The answer was cut off after 5 tokens." in answer.warnings
    assert answer.label == NO_ANSWER
    (answer,) = ask(Script(text=lambda _: "", finish="content_filter"))
    assert any("content_filter" in warning for warning in answer.warnings)


# -- proof ---------------------------------------------------------------------------------------


def test_what_was_consumed_is_measured_by_leaving_it_out_once_a_clip() -> None:
    script = Script()
    answers = ask(script, [clip(), clip(3.0)], [replace(QUESTION, clip=n) for n in (0, 0, 1, 0)])
    whole = Consumed(sound=True, picture=True, sound_tokens=16, picture_tokens=64 * FRAMES)
    assert [answer.consumed for answer in answers] == [
        *(whole, whole, replace(whole, sound_tokens=12), whole)
    ]
    assert len(script.questions) == 4 and len(script.bodies) == 4 + 2 * 2
    without = [body for body in script.bodies if Script.limit(body) == 1]
    assert [len(of_type(body, "input_audio", "video_url")) for body in without] == [1] * 4
    assert {question_of(body) for body in without} == {question_of(script.bodies[0])}


def test_the_same_clip_is_measured_once_in_all() -> None:
    script = Script()
    with serving(script) as url:
        engine = OpenAI.connect("omni", base_url=url)
        first = engine.answer([clip()], [QUESTION])
        again = engine.answer([clip()], [QUESTION] * 2)
        other = engine.answer([clip().muted()], [QUESTION])
    assert [a.consumed for a in again] == [first[0].consumed] * 2
    assert len(script.bodies) == 3 + 2 + 2
    assert (other[0].consumed.sound, other[0].consumed.picture) == (False, True)


@pytest.mark.parametrize("deaf", [True, False])
def test_a_server_that_drops_a_part_is_found_out(deaf: bool) -> None:
    (answer,) = ask(Script(hears=not deaf, sees=deaf))
    assert (answer.consumed.sound, answer.consumed.picture) == (not deaf, deaf)
    lost = "sound" if deaf else "picture"
    assert getattr(answer.consumed, f"{lost}_tokens") == 0
    assert f"The {lost} was sent, but the server dropped it." in answer.warnings


def test_a_word_in_place_of_the_sound_is_no_sound() -> None:
    """A template that writes `<audio>` where the sound was adds a few tokens."""

    class Marked(Script):
        def reply(self, body: dict[str, Any]) -> Reply:
            status, headers, content = super().reply(body)
            content["usage"]["prompt_tokens"] += 5 * len(of_type(body, "input_audio"))
            return status, headers, content

    (answer,) = ask(Marked(hears=False))
    assert not answer.consumed.sound and answer.consumed.picture


@pytest.mark.parametrize(
    "details",
    [
        lambda heard, seen: {"multimodal_tokens": {"audio": heard, "video": seen}},
        lambda heard, seen: {"audio_tokens": heard, "video_tokens": seen, "cached_tokens": 0},
    ],
)
def test_counts_of_the_server_itself_need_no_further_request(
    details: Callable[[int, int], dict[str, Any]],
) -> None:
    script = Script(details=details)
    (answer,) = ask(script)
    assert answer.consumed == Consumed(
        sound=True, picture=True, sound_tokens=16, picture_tokens=64 * FRAMES
    )
    assert len(script.bodies) == 1


def test_a_count_of_sound_alone_leaves_the_picture_to_be_measured() -> None:
    script = Script(details=lambda heard, seen: {"audio_tokens": heard, "cached_tokens": 0})
    (answer,) = ask(script)
    assert (answer.consumed.sound_tokens, answer.consumed.picture_tokens) == (16, 64 * FRAMES)
    assert len(script.bodies) == 2


def test_without_counts_nothing_is_claimed() -> None:
    (answer,) = ask(Script(usage=False))
    assert answer.consumed is None
    assert "The server does not say what it consumed of the clip." in answer.warnings


def test_a_request_that_lost_a_part_later_is_not_vouched_for() -> None:
    class Forgetful(Script):
        def reply(self, body: dict[str, Any]) -> Reply:
            self.sees = len(self.bodies) < 4  # the question and two without a part
            return super().reply(body)

    script = Forgetful()
    with serving(script) as url:
        engine = OpenAI.connect("omni", base_url=url)
        first, later = (engine.answer([clip()], [QUESTION])[0] for _ in range(2))
    assert first.consumed.picture and later.consumed is None


def test_a_server_that_wants_a_picture_proves_nothing_without() -> None:
    def refuse(body: dict[str, Any]) -> str | None:
        return None if of_type(body, "video_url") else "a video is required"

    (answer,) = ask(Script(refuse=refuse))
    assert answer.answer == "two" and answer.consumed is None


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_that_asks_to_wait_is_waited_for(as_date: bool) -> None:
    until = int(time.time()) + 2  # a date has whole seconds
    wait = formatdate(until, usegmt=True) if as_date else "0.6"
    script = Script(faults=[(429, {"Retry-After": wait}, {"error": {"message": "slow down"}})])
    answers = ask(script, asked=[QUESTION] * 2, concurrency=1)
    assert [answer.answer for answer in answers] == ["two"] * 2
    first, second = script.times[:2]
    if as_date:
        second += time.time() - time.monotonic()
        assert second >= until - 0.05
    else:
        assert second - first >= 0.6


def test_a_wait_that_is_too_long_is_an_error() -> None:
    script = Script(faults=[(429, {"Retry-After": "3600"}, {})])
    with pytest.raises(RunError, match="wait of 3600 s, longer than 300 s; go on later"):
        ask(script)
    assert len(script.bodies) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_failures_in_passing_are_tried_again(status: int) -> None:
    script = Script(faults=[(status, {}, b"<html>busy</html>")] * 2)
    (answer,) = ask(script)
    assert answer.answer == "two" and len(script.questions) == 3


def test_a_connection_that_breaks_and_a_silence_are_tried_again() -> None:
    broken = (200, {"Content-Length": "9999"}, b'{"choices": [')
    script = Script(faults=[broken, 3.0])
    (answer,) = ask(script, timeout_s=1.5)
    assert answer.answer == "two" and len(script.questions) == 3


def test_after_the_last_try_the_error_says_what_happened() -> None:
    script = Script(faults=[(503, {}, {"error": {"message": "model is loading"}})] * 3)
    with pytest.raises(RunError, match="failed after 3 tries: status 503: model is loading"):
        ask(script, retries=2)
    assert len(script.bodies) == 3
    with pytest.raises(RunError, match="cannot be reached .*refused.* go on later"):
        OpenAI.connect("omni", base_url="http://127.0.0.1:9", retries=0).answer(
            [clip()], [QUESTION]
        )


@pytest.mark.parametrize(
    ("status", "content", "says"),
    [
        (400, {"object": "error", "message": "at most 0 audio(s)"}, "400: at most 0 audio.* parts"),
        (401, {"error": {"message": "bad key sk-secret"}}, r"401: bad key \*\*\*; .* MY_KEY"),
        (404, {"detail": "Not Found"}, "404: Not Found; .* /v1, and the name of the model"),
        (413, b"too large", "413: too large; send less of each clip"),
        (418, b"\x1b[31mtea\x07", r"418:  ?\[31mtea"),
        (429, {"error": {"message": "m", "code": "insufficient_quota"}}, "no credit left"),
    ],
)
def test_refusals_are_not_tried_again(
    status: int, content: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    script = Script(faults=[(status, {}, content)])
    with pytest.raises(RunError, match=says) as caught:
        ask(script, key_env="MY_KEY")
    assert len(script.bodies) == 1 and script.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(caught.value) and str(caught.value).isprintable()


def test_redirects_are_not_followed() -> None:
    other = Script()
    with serving(other) as elsewhere:
        moved = {"Location": f"{elsewhere}/chat/completions"}
        for status in (301, 302, 307, 308):
            with pytest.raises(RunError, match=f"status {status}.*redirects are not followed"):
                ask(Script(faults=[(status, moved, b"")]))
    assert other.bodies == []


def test_replies_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="no chat completion but '<html>hello</html>'"):
        ask(Script(faults=[(200, {}, b"<html>hello</html>")]))
    with pytest.raises(RunError, match="no chat completion but 'out of memory'"):
        ask(Script(faults=[(200, {}, {"error": {"message": "out of memory"}})]))
    monkeypatch.setattr(transport, "LARGEST_REPLY", 1000)
    with pytest.raises(RunError, match="reply of more than"):
        ask(Script(faults=[(200, {}, b" " * 70_000)]))


def test_requests_start_no_faster_than_allowed() -> None:
    script, started = Script(usage=False), time.monotonic()
    ask(script, asked=[QUESTION] * 5, per_minute=600)
    assert len(script.times) == 5 and max(script.times) - started >= 4 * 0.1


def test_an_error_stops_the_rest_and_does_not_wait_for_it() -> None:
    script = Script(faults=[9.0, (401, {}, {})])
    started = time.monotonic()
    with pytest.raises(RunError, match="status 401"):
        ask(script, asked=[QUESTION] * 50, concurrency=2)
    assert time.monotonic() - started < 8 and len(script.bodies) <= 3


def test_an_interruption_stops_the_rest_and_does_not_wait_for_it() -> None:
    begun: list[int] = []
    released = threading.Event()

    def job(stop: threading.Event) -> None:
        begun.append(1)
        if len(begun) == 2:
            import _thread

            _thread.interrupt_main()
        released.wait(20)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_order([job] * 50, 2)
    assert time.monotonic() - started < 10
    released.set()
    time.sleep(0.05)
    assert len(begun) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": "ftp://h/v1"}, "http:// or https://"),
        ({"base_url": "file:///etc/passwd"}, "http:// or https://"),
        ({"base_url": "http://u:p@h/v1"}, "has a user"),
        ({"base_url": "http://h:x/v1"}, "is no address"),
        ({"base_url": "http://models.example.org/v1"}, "would go to models.example.org unencry"),
        ({"concurrency": 0}, "concurrency is 0; it must be at least 1"),
        ({"per_minute": 0}, "per_minute is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"picture": "gif"}, "picture is 'gif'; it must be video or images"),
        ({"sound": "mp3"}, "sound is 'mp3'; it must be input_audio or audio_url"),
    ],
)
def test_values_that_cannot_work(
    options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with pytest.raises(RunError, match=says) as caught:
        OpenAI.connect("omni", **({"base_url": "https://models.example.org/v1"} | options))
    assert "u:p" not in str(caught.value)
    OpenAI.connect("omni", base_url="http://models.example.org/v1", key_env="")
    OpenAI.connect("omni", base_url="http://10.0.0.7:8000/v1")
