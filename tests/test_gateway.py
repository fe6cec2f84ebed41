"""The gateway's protocol: what is asked arrives, what is answered comes back whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_world import (
    QUESTION,
    chat,
    clip_file,
    data_url,
    digest,
    events,
    gateway,
    serving,
    upload,
    video,
    wait_until,
)
from tests.scripted_service import SILENT, Scripted

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("clips")
    return [clip_file(folder, number).read_bytes() for number in range(3)]


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clip_file(tmp_path_factory.mktemp("silent"), sound=False).read_bytes()


def failed(reply: Any, status: int) -> dict[str, Any]:
    """The error of a reply."""
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error"}
    return reply.json()["error"]


# -- answers -----------------------------------------------------------------------------------


def test_a_reply_is_of_this_clip_and_carries_what_it_rests_on(
    tmp_path: Path, clips: list[bytes]
) -> None:
    service = Scripted()
    with gateway(tmp_path, service) as client:
        reply = client.post(CHAT, json=chat(video(data_url(clips[1])))).json()
    assert (service.answered, service.cancelled) == (1, 0)
    (choice,) = reply["choices"]
    assert choice["message"]["content"] == f"{digest(clips[1])} 0 {QUESTION}"
    assert choice["finish_reason"] == "stop"
    assert reply["usage"]["prompt_tokens"] == 5 + 40 + 80
    assert reply["usage"]["total_tokens"] == 5 + 40 + 80 + reply["usage"]["completion_tokens"]
    about = reply["avqa"]
    assert about["consumed"] == {
        "sound": True,
        "picture": True,
        "sound_tokens": 40,
        "picture_tokens": 80,
    }
    assert about["evidence"][0]["modality"] == "sound"
    assert about["alternatives"] == [{"label": "three", "probability": 0.125}]
    assert {"probability", "label", "steps", "record", "warnings", "timings"} <= set(about)


def test_a_stream_says_first_what_was_consumed_and_last_what_it_rests_on(
    tmp_path: Path, silent: bytes
) -> None:
    body = chat(video(data_url(silent)), stream=True, stream_options={"include_usage": True})
    with gateway(tmp_path) as client:
        with client.stream("POST", CHAT, json=body) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            chunks = events(reply.read().decode())
    first, *middle, last, usage = chunks
    assert first["avqa"]["consumed"]["sound_tokens"] == 0
    assert first["avqa"]["warnings"] == [SILENT]
    assert first["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in middle)
    assert text == f"{digest(silent)} 0 {QUESTION}"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["avqa"]["evidence"] and last["avqa"]["warnings"] == [SILENT]
    assert usage["choices"] == [] and usage["usage"]["prompt_tokens"] == 5 + 80
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_conversation_becomes_history_and_its_media_come_along(
    tmp_path: Path, clips: list[bytes]
) -> None:
    service = Scripted()
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [video(data_url(clips[0])), {"type": "text", "text": "One?"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [video(data_url(clips[1])), {"type": "text", "text": "Two?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
        {"role": "user", "content": "And now?"},
    ]
    with gateway(tmp_path, service) as client:
        reply = client.post(CHAT, json={"model": "tiny", "messages": messages}).json()
    (ask,) = service.asks
    assert [(turn.question, turn.answer) for turn in ask.history] == [
        ("One?", "yes"),
        ("Two?", "no"),
    ]
    assert len(ask.media) == 2 and ask.question == "And now?"
    assert reply["choices"][0]["message"]["content"].startswith(f"{digest(clips[1])} 2 ")
    assert any("System messages" in warning for warning in reply["avqa"]["warnings"])


def test_every_way_to_name_a_medium(tmp_path: Path, clips: list[bytes]) -> None:
    service = Scripted()
    with gateway(tmp_path, service) as client:
        name = upload(client, clips[2]).json()["id"]
        inside = data_url(clips[2]).partition(",")[2]
        parts = [
            (video(name), "video"),
            ({"type": "audio_url", "audio_url": {"url": name}}, "audio"),
            ({"type": "file", "file": {"file_id": name}}, "video"),
            ({"type": "file", "file_id": name}, "video"),
            ({"type": "input_audio", "input_audio": {"data": inside, "format": "wav"}}, "audio"),
        ]
        for part, modality in parts:
            reply = client.post(CHAT, json=chat(part))
            assert digest(clips[2]) in reply.text
            assert service.asks[-1].media[0].modality == modality
    assert not list((tmp_path / "requests").iterdir())  # what came inside of requests is gone


def test_a_medium_named_twice_is_taken_once_and_several_are_said(
    tmp_path: Path, clips: list[bytes]
) -> None:
    service, one, two = Scripted(), *(video(data_url(clip)) for clip in clips[:2])
    with gateway(tmp_path, service) as client:
        reply = client.post(CHAT, json=chat(one, two, one)).json()
    assert len(service.asks[0].media) == 2
    assert reply["choices"][0]["message"]["content"].startswith(digest(clips[0]))
    assert any("the last one" in warning for warning in reply["avqa"]["warnings"])


def test_a_question_without_media_reaches_the_service_which_says_so(tmp_path: Path) -> None:
    with gateway(tmp_path) as client:
        reply = client.post(CHAT, json=chat()).json()
    assert reply["avqa"]["consumed"]["sound_tokens"] == 0
    assert reply["avqa"]["warnings"] == [SILENT]


def test_options_reach_the_service(tmp_path: Path, clips: list[bytes]) -> None:
    service, part = Scripted(), video(data_url(clips[0]))
    with gateway(tmp_path, service, max_answer_tokens=50) as client:
        for more in (
            {"avqa": {"choices": ["yes", "no", "yes"], "mute": True, "blank": True}},
            {"structured_outputs": {"choice": ["yes", "no"]}},
            {"avqa": {"open": True}, "max_completion_tokens": 70},
            {"max_tokens": 7},
        ):
            reply = client.post(CHAT, json=chat(part, **more))
            assert reply.status_code == 200, reply.text
    first, second, third, fourth = service.asks
    assert first.choices == second.choices == ("yes", "no")
    assert first.mute and first.blank and not second.mute
    assert third.open_ended and third.most_tokens == 50
    assert not fourth.open_ended and fourth.most_tokens == 7


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"temperature": 0.7}, "greedy"),
        ({"stop": ["."]}, "stop is not supported"),
        ({"guided_regex": "a*"}, "guided_regex"),
    ],
)
def test_what_is_accepted_but_not_used_is_said(
    tmp_path: Path, more: dict[str, Any], word: str
) -> None:
    with gateway(tmp_path) as client:
        plain = client.post(CHAT, json=chat(temperature=0, stop=None, seed=1, n=1)).json()
        reply = client.post(CHAT, json=chat(**more)).json()
    assert not any(word in warning for warning in plain["avqa"]["warnings"])
    assert any(word in warning for warning in reply["avqa"]["warnings"])


def test_logprobs_of_an_open_answer_are_those_of_its_tokens(tmp_path: Path) -> None:
    with gateway(tmp_path) as client:
        body = chat(logprobs=True, top_logprobs=1, avqa={"open": True})
        whole = client.post(CHAT, json=body).json()["choices"][0]
        chunks = events(client.post(CHAT, json={**body, "stream": True}).text)
    content = whole["logprobs"]["content"]
    assert "".join(token["token"] for token in content) == whole["message"]["content"]
    assert {token["logprob"] for token in content} == {-0.25}
    assert all(len(token["top_logprobs"]) == 1 for token in content)
    streamed = [
        token
        for chunk in chunks
        for token in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert streamed == content


def test_logprobs_of_a_chosen_answer_are_of_the_whole_and_say_so(tmp_path: Path) -> None:
    body = chat(logprobs=True, top_logprobs=5, avqa={"choices": ["two", "three"]})
    with gateway(tmp_path) as client:
        reply = client.post(CHAT, json=body).json()
        chunks = events(client.post(CHAT, json={**body, "stream": True}).text)
    (token,) = reply["choices"][0]["logprobs"]["content"]
    assert token["token"] == "two" and token["logprob"] == pytest.approx(math.log(0.75))
    assert [other["token"] for other in token["top_logprobs"]] == ["two", "three"]
    assert any("as a whole" in warning for warning in reply["avqa"]["warnings"])
    assert chunks[-1]["choices"][0]["logprobs"]["content"] == [token]


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (chat({"type": "image_url", "image_url": {"url": "data:,x"}}), "pictures alone"),
        (chat({"type": "telepathy"}), "the type of a part"),
        (chat(n=2), "one answer"),
        (chat(tools=[{"type": "function"}]), "tools is not supported"),
        (chat(response_format={"type": "json_object"}), "response_format"),
        (chat(avqa={"choises": ["a"]}), "choises"),
        (chat(avqa={"choices": ["a"]}, structured_outputs={"choice": ["b"]}), "differ"),
        (chat(avqa={"open": True, "choices": ["a"]}), "open answer has no choices"),
        (chat(structured_outputs={"regex": "a"}), "structured_outputs"),
        (chat(question="  "), "no text"),
        (chat({"type": "file"}), "file_id"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(temperature="0"), "temperature"),
        ({"model": "tiny", "messages": []}, "messages"),
        ({"model": "tiny", "messages": [{"role": "assistant", "content": "a"}]}, "last message"),
        ({"model": "tiny", "messages": [{"role": "tool", "content": "a"}]}, "role"),
        ({"messages": [{"role": "user", "content": "a"}]}, "model"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    tmp_path: Path, body: dict[str, Any], word: str
) -> None:
    service = Scripted()
    with gateway(tmp_path, service) as client:
        error = failed(client.post(CHAT, json=body), 400)
    assert word in error["message"] and error["type"] == "invalid_request_error"
    assert not service.asks


def test_an_unknown_model(tmp_path: Path) -> None:
    with gateway(tmp_path) as client:
        error = failed(client.post(CHAT, json={**chat(), "model": "gpt"}), 404)
        assert error["code"] == "model_not_found"
        failed(client.get("/v1/models/gpt"), 404)
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["tiny"]
        assert client.get("/v1/models/tiny").json()["id"] == "tiny"


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_is_away_can_be_asked_again(tmp_path: Path, stream: bool) -> None:
    with gateway(tmp_path) as client:
        reply = client.post(CHAT, json=chat(question="!away", stream=stream))
    assert "vLLM is being started" in failed(reply, 503)["message"]
    assert reply.headers["retry-after"] == "3"


@pytest.mark.parametrize("stream", [False, True])
def test_a_bug_shows_nothing_of_the_server(tmp_path: Path, stream: bool) -> None:
    with gateway(tmp_path) as client:
        error = failed(client.post(CHAT, json=chat(question="!bug", stream=stream)), 500)
    assert "secret" not in str(error)


def test_an_error_in_the_middle_of_a_stream_is_told_in_it(tmp_path: Path) -> None:
    with gateway(tmp_path) as client:
        chunks = events(client.post(CHAT, json=chat(question="!bug-late", stream=True)).text)
    assert chunks[-1]["error"]["type"] == "server_error"
    assert "secret" not in str(chunks)


def test_paths_of_the_server_are_not_told(tmp_path: Path, clips: list[bytes]) -> None:
    with gateway(tmp_path) as client:
        body = chat(video(data_url(clips[0])), question="!unreadable")
        error = failed(client.post(CHAT, json=body), 400)
        health = client.get("/health").text
    assert "the file of messages.0.content.0: cut short" in error["message"]
    for text in (error["message"], health):
        assert str(tmp_path) not in text and "/srv" not in text


# -- time, places, going away --------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_what_takes_too_long_is_given_up_and_its_work_ends(tmp_path: Path, stream: bool) -> None:
    service = Scripted()
    with gateway(tmp_path, service, request_timeout_s=0.3) as client:
        reply = client.post(CHAT, json=chat(question="!slow", stream=stream))
        failed(reply, 504)
        assert service.cancelled == 1 and service.running == 0


def test_a_stream_that_stalls_is_given_up(tmp_path: Path) -> None:
    service = Scripted()
    with gateway(tmp_path, service, request_timeout_s=0.3) as client:
        chunks = events(client.post(CHAT, json=chat(question="!stall a", stream=True)).text)
    assert chunks[-1]["error"]["code"] == "timeout"
    assert service.cancelled == 1


@pytest.mark.parametrize(("word", "stream"), [("!slow", False), ("!slow", True), ("!stall", True)])
def test_work_ends_when_its_asker_goes_away(tmp_path: Path, word: str, stream: bool) -> None:
    import httpx

    service = Scripted()
    with serving(tmp_path, service) as url:
        body = chat(question=f"{word} x", stream=stream)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + CHAT, json=body, timeout=0.5)
        assert wait_until(lambda: service.cancelled == 1 and service.running == 0)
        assert httpx.post(url + CHAT, json=chat()).status_code == 200
        assert "avqa_running_now 0.0" in httpx.get(url + "/metrics").text


def test_more_than_can_wait_are_told_to_come_back(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import httpx

    service = Scripted(delay_s=0.3)
    with serving(tmp_path, service, max_running=2, max_waiting=3) as url:

        def ask(_: int) -> httpx.Response:
            return httpx.post(url + CHAT, json=chat(), timeout=20)

        with ThreadPoolExecutor(20) as pool:
            replies = list(pool.map(ask, range(20)))
        statuses = [reply.status_code for reply in replies]
        assert set(statuses) == {200, 429} and statuses.count(200) >= 5
        assert all("retry-after" in reply.headers for reply in replies if reply.status_code == 429)
        assert service.most_running <= 2
        assert httpx.post(url + CHAT, json=chat()).status_code == 200  # places were given back


# -- watching --------------------------------------------------------------------------------------


def test_metrics_count_what_happened(tmp_path: Path, clips: list[bytes]) -> None:
    with gateway(tmp_path) as client:
        name = upload(client, clips[0]).json()["id"]
        client.post(CHAT, json=chat(video(name)))
        client.get(f"/v1/files/{name}")
        client.get("/v1/files/nothing")
        text = client.get("/metrics").text
    for line in (
        'avqa_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0',
        'avqa_requests_total{method="GET",route="/v1/files/{file_id}",status="404"} 1.0',
        'avqa_tokens_total{kind="sound"} 40.0',
        f"avqa_stored_bytes_now {float(len(clips[0]))}",
        "avqa_service_feature_hits_total 3.0",
        "avqa_service_in_flight_now 0.0",
        "avqa_uploads_total 1.0",
    ):
        assert line in text
    assert name not in text


def test_adapters_come_and_go_for_administrators_only(tmp_path: Path) -> None:
    import hashlib

    admins, folder = tmp_path / "admins", tmp_path / "adapters"
    admins.write_text(hashlib.sha256(b"boss").hexdigest() + " the boss\n")
    good, bad = folder / "good", folder / "bad"
    for place in (good, bad, tmp_path / "adapters-not"):
        place.mkdir(parents=True)
    for place in (good, tmp_path / "adapters-not"):
        (place / "adapter_config.json").write_text("{}")
    (folder / "way-out").symlink_to(tmp_path / "adapters-not")
    boss = {"Authorization": "Bearer boss"}
    with gateway(tmp_path / "s", admin_keys_file=admins, adapters_folder=folder) as client:

        def add(where: str, name: str = "av", **more: Any) -> Any:
            return client.post("/v1/adapters", json={"name": name, "folder": where}, **more)

        failed(add("good"), 403)
        failed(client.delete("/v1/adapters/av"), 403)
        outside = (
            "..",
            ".",
            "/",
            "/etc",
            "../adapters-not",
            "way-out",
            "no",
            "a\0b",
            str(tmp_path),
        )
        for where in outside:
            failed(add(where, headers=boss), 404)
        assert str(tmp_path) not in failed(add("bad", headers=boss), 400)["message"]
        failed(add("good", "a/b", headers=boss), 400)
        assert add("good", headers=boss).json()["root"] == "tiny"
        failed(add("good", headers=boss), 409)
        assert client.post(CHAT, json={**chat(), "model": "av"}).status_code == 200
        assert client.delete("/v1/adapters/av", headers=boss).json()["deleted"]
        failed(client.delete("/v1/adapters/av", headers=boss), 404)
    with gateway(tmp_path / "s", admin_keys_file=admins) as client:
        failed(client.post("/v1/adapters", json={"name": "a", "folder": "b"}, headers=boss), 403)
