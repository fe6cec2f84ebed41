"""The service over the embedded model: the answers of `avqa ask`, whoever asks beside."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from avqa_llm.answer import Answer
from avqa_llm.engine import LocalEngine
from avqa_llm.errors import AVQAError, MediaError
from avqa_llm.media.changes import Cut
from avqa_llm.prompt import Turn
from avqa_llm.serving.contract import Delta, Done, RetryableError, Started, UnknownModelError
from avqa_llm.serving.service import AVQAService, ServiceSettings
from tests.served_world import World, adapter, asked, bare, events, samples, whole, world

ROWS = samples()
DUO, TRIO, OFF = dict.fromkeys(path for path, _ in ROWS)
HEARD = "How many instruments are sounding in the video?"


@pytest.fixture(scope="module")
def loop() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter(tmp_path_factory.mktemp("adapters") / "other")


@pytest.fixture(scope="module")
def service(loop: World, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    settings = ServiceSettings(store=tmp_path_factory.mktemp("store"))
    made = AVQAService.local("tiny", adapters={"other": other}, settings=settings)
    yield made
    loop.do(made.close())


@pytest.fixture(scope="module")
def offline() -> LocalEngine:
    return LocalEngine.load("tiny")


@pytest.fixture(scope="module")
def truth(offline: LocalEngine) -> dict[tuple[Path, str], Answer]:
    found = {}
    for path in (DUO, TRIO, OFF):
        questions = [question for where, question in ROWS if where == path]
        clip = offline.read(path)
        for question, answer in zip(
            questions, offline.answer(clip, questions, evidence=True), strict=True
        ):
            found[path, question] = answer
    return found


def test_answers_are_those_of_the_local_engine_in_any_mix(
    loop: World, service: AVQAService, truth: dict[tuple[Path, str], Answer]
) -> None:
    rows = ROWS * 2
    random.Random(3).shuffle(rows)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(events(service, asked(*row)) for row in rows))

    before = service.counters()
    found = loop.do(all_at_once())
    for row, one in zip(rows, found, strict=True):
        assert bare(whole(one)) == bare(truth[row])
        started, delta, done = one
        assert started.consumed == truth[row].consumed and delta.text == truth[row].answer
        assert started.prompt_tokens > 100 and done.completion_tokens > 1
        assert started.warnings == done.answer.warnings == truth[row].warnings == ()
    after = service.counters()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["clips_decoded"] == grown["clips_encoded"] == 3, "each clip once"
    assert grown["reading_misses"] == 3 and grown["reading_joins"] == len(rows) - 3
    assert grown["ask_batches"] <= len(rows) / 3, "questions of several requests share batches"
    assert grown["questions_batched"] == grown["answers"] == len(rows)


def test_a_second_question_finds_the_clip_read(loop: World, service: AVQAService) -> None:
    loop.do(events(service, asked(*ROWS[0])))
    before = service.counters()
    answer = whole(loop.do(events(service, asked(*ROWS[1]))))
    after = service.counters()
    assert after["reading_hits"] == before["reading_hits"] + 1
    assert after["digest_batches"] == before["digest_batches"]
    assert [*answer.timing_s] == ["answer"], "it waited for nothing else"


def test_a_copy_of_a_file_is_the_same_clip(
    loop: World, service: AVQAService, tmp_path: Path
) -> None:
    loop.do(events(service, asked(*ROWS[0])))
    copy = Path(shutil.copy(DUO, tmp_path / "upload"))
    before = service.counters()
    loop.do(events(service, asked(copy, HEARD)))
    assert service.counters()["clips_decoded"] == before["clips_decoded"]


def test_muted_and_blank_are_readings_of_their_own(
    loop: World, service: AVQAService, offline: LocalEngine
) -> None:
    loop.do(events(service, asked(DUO, HEARD)))
    before = service.counters()
    clip = offline.read(DUO)
    for how, changed, gone in (
        ({"mute": True}, clip.muted(), "sound"),
        ({"blank": True}, clip.blanked(), "picture"),
        ({"modality": "audio"}, clip.blanked(), "picture"),
    ):
        found = loop.do(events(service, asked(DUO, HEARD, **how)))
        (expected,) = offline.answer(changed, [HEARD], evidence=True)
        assert bare(whole(found)) == bare(expected)
        assert getattr(found[0].consumed, gone) is False
        assert getattr(found[0].consumed, f"{gone}_tokens") == 0
        assert any(f"no {gone} to" in warning for warning in found[0].warnings)
        assert any(f"{gone} was taken away" in warning for warning in found[0].warnings)
    assert service.counters()["clips_decoded"] == before["clips_decoded"], "no file is read again"


def test_choices_and_history(loop: World, service: AVQAService, offline: LocalEngine) -> None:
    choices = ("two", "more than ten", "a string quartet")
    turns = (Turn(question="Where is the performance?", answer="outdoor"),)

    async def together() -> list[Any]:
        return await asyncio.gather(
            events(service, asked(DUO, HEARD, choices=choices)),
            events(service, asked(DUO, HEARD, history=turns)),
            events(service, asked(DUO, HEARD)),
        )

    offered, later, plain = (whole(one) for one in loop.do(together()))
    reading = offline.digest([offline.encode(offline.read(DUO))])
    (expected,) = offline.ask(reading, [(0, HEARD)], choices=[choices], evidence=True)
    assert bare(offered) == bare(expected) and offered.label in choices
    (expected,) = offline.ask(reading, [(0, HEARD)], history=turns, evidence=True)
    assert bare(later) == bare(expected)
    (expected,) = offline.ask(reading, [(0, HEARD)], evidence=True)
    assert bare(plain) == bare(expected)


def test_open_answers_come_as_they_are_written(
    loop: World, service: AVQAService, offline: LocalEngine
) -> None:
    reading = offline.digest([offline.encode(offline.read(TRIO))])
    for question in (HEARD, "What is the instrument on the left of the drum?"):
        ask = asked(TRIO, question, open_ended=True, logprobs=2)
        found = loop.do(events(service, ask))
        (expected,) = offline.ask(reading, [(0, question)], open_ended=True, evidence=True)
        assert bare(whole(found)) == bare(expected)
        deltas = [event for event in found if isinstance(event, Delta)]
        assert "".join(delta.text for delta in deltas) == expected.answer
        tokens = [token for delta in deltas for token in delta.tokens]
        assert tokens and all(len(token.top) == 2 for token in tokens)
        assert all(token.logprob == pytest.approx(token.top[0][1], abs=1e-4) for token in tokens)
    ask = asked(TRIO, HEARD, open_ended=True, most_tokens=3)
    done = loop.do(events(service, ask))[-1]
    assert (done.completion_tokens, done.finish_reason) == (3, "length")


def without_sound_in_it(path: Path, out: Path) -> Path:
    """The file with its packets of sound overwritten."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as media:
        for packet in media.demux(media.streams.audio[0]):
            if packet.size and packet.pos:
                content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    out.write_bytes(bytes(content))
    return out


def test_sound_that_cannot_be_decoded_is_never_heard(
    loop: World, service: AVQAService, tmp_path: Path
) -> None:
    broken = without_sound_in_it(DUO, tmp_path / "broken.mp4")
    found = loop.do(events(service, asked(broken, HEARD)))
    assert found[0].consumed.sound is False and found[0].consumed.sound_tokens == 0
    assert found[0].consumed.picture is True
    assert any("sound track (aac) could not be decoded" in said for said in found[0].warnings)
    assert found[-1].answer.warnings == found[0].warnings
    assert {place.modality for place in found[-1].answer.evidence} == {"picture"}
    with pytest.raises(MediaError, match="no sound in the file"):
        loop.do(events(service, asked(broken, HEARD, modality="audio")))


def test_what_cannot_be_answered(loop: World, service: AVQAService, tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="'nobody' is not served; there are tiny, other"):
        loop.do(events(service, asked(DUO, HEARD, model="nobody")))
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"no media" * 1000)
    with pytest.raises(MediaError) as refused:
        loop.do(events(service, asked(noise, HEARD)))
    assert str(tmp_path) not in str(refused.value), "where files lie is nobody's business"
    with pytest.raises(MediaError, match="not there any more"):
        loop.do(events(service, asked(tmp_path / "gone.mp4", HEARD)))
    with pytest.raises(AVQAError, match=r"tiny reads at most 1024; begin a new conversation"):
        loop.do(events(service, asked(DUO, "why " * 900)))
    started, delta, done = loop.do(events(service, asked(DUO, HEARD, media=())))
    assert not started.consumed.sound and started.prompt_tokens == 0
    assert delta.text == done.answer.answer and "attach one" in delta.text
    assert service.health()["in_flight"] == 0


def test_adapters_answer_by_themselves(
    loop: World, service: AVQAService, other: Path, truth: dict[tuple[Path, str], Answer]
) -> None:
    alone = LocalEngine.load(other)
    clip = alone.read(TRIO)
    questions = [question for path, question in ROWS if path == TRIO]
    expected = alone.answer(clip, questions, evidence=True)
    rows = [(name, question) for question in questions for name in ("other", "tiny")]

    async def mixed() -> list[Any]:
        asks = (asked(TRIO, question, model=name) for name, question in rows)
        return await asyncio.gather(*(events(service, ask) for ask in asks))

    found = dict(zip(rows, (whole(one) for one in loop.do(mixed())), strict=True))
    for question, answer in zip(questions, expected, strict=True):
        assert bare(found["other", question]) == bare(answer)
        assert bare(found["tiny", question]) == bare(truth[TRIO, question])
    assert any(bare(found["other", q]) != bare(found["tiny", q]) for q in questions)
    base, own = (service.catalogue.served(name) for name in ("tiny", "other"))
    assert base.encoders is own.encoders, "clips are encoded once for both"
    words = [one.engine.model.llm.get_input_embeddings().weight for one in (base, own)]
    assert words[0].data_ptr() == words[1].data_ptr(), "what is equal is in memory once"


def test_adapters_come_and_go(loop: World, service: AVQAService, tmp_path: Path) -> None:
    third = adapter(tmp_path / "third", seed=5)
    info = loop.do(service.add_adapter("third", third))
    assert (info.name, info.base) == ("third", "tiny")
    with pytest.raises(AVQAError, match="served already"):
        loop.do(service.add_adapter("third", third))
    with pytest.raises(AVQAError, match="use up to 64 letters"):
        loop.do(service.add_adapter("../third", third))
    with pytest.raises(AVQAError, match="is the base"):
        loop.do(service.remove_adapter("tiny"))

    async def asked_and_removed() -> list[Any]:
        asking = asyncio.ensure_future(events(service, asked(OFF, HEARD, model="third")))
        while not service.catalogue.served("third").in_flight:
            await asyncio.sleep(0)
        await service.remove_adapter("third")
        assert asking.done(), "it waits for requests in flight"
        return await asking

    whole(loop.do(asked_and_removed()))
    assert [info.name for info in service.models()] == ["tiny", "other"]
    with pytest.raises(UnknownModelError):
        loop.do(events(service, asked(DUO, HEARD, model="third")))
    with pytest.raises(UnknownModelError):
        loop.do(service.remove_adapter("third"))


def test_more_than_can_be_answered_is_told_to_come_again(
    loop: World, service: AVQAService, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = service.counters()["answers_refused"]
    settings = ServiceSettings(most_in_flight=2)
    monkeypatch.setattr(service, "settings", settings)

    async def three() -> list[Any]:
        asks = [events(service, asked(DUO, HEARD)) for _ in range(3)]
        return await asyncio.gather(*asks, return_exceptions=True)

    found = loop.do(three())
    refused = [one for one in found if isinstance(one, RetryableError)]
    assert len(refused) == 1 and refused[0].after_s >= 1
    assert "the limit is 2; ask again later" in str(refused[0])
    assert service.counters()["answers_refused"] == before + 1


def test_who_goes_away_leaves_nothing_behind(
    loop: World, service: AVQAService, tmp_path: Path
) -> None:
    fresh = Path(shutil.copy(DUO, tmp_path / "fresh.mp4"))
    with fresh.open("ab") as file:
        file.write(b"another file")
    before = service.counters()

    async def leave() -> None:
        asking = asyncio.ensure_future(events(service, asked(fresh, HEARD)))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        stream = service.answer(asked(DUO, HEARD, open_ended=True))
        assert isinstance(await anext(stream), Started)
        await stream.aclose()

    loop.do(leave())
    after = service.counters()
    assert after["answers_cancelled"] == before["answers_cancelled"] + 2
    assert after["in_flight_now"] == 0
    answer = whole(loop.do(events(service, asked(fresh, HEARD))))
    assert answer.label, "the file can be asked about all the same"


def test_too_late_is_said(loop: World, service: AVQAService, monkeypatch: Any) -> None:
    monkeypatch.setattr(service, "settings", ServiceSettings(deadline_s=0.0))
    with pytest.raises(RetryableError, match="no answer within"):
        loop.do(events(service, asked(DUO, HEARD)))


def test_readings_are_bounded(loop: World) -> None:
    small = AVQAService.local("tiny", settings=ServiceSettings(most_readings=2))
    try:
        for path in (DUO, TRIO, OFF, DUO):
            loop.do(events(small, asked(path, HEARD)))
        found = small.counters()
        assert found["readings_now"] == 2 and found["readings_evicted"] == 2
        assert 1e6 < found["reading_bytes_now"] < 4e6
        assert found["reading_misses"] == 4, "the first had left when it was asked about again"
    finally:
        loop.do(small.close())
    with pytest.raises(RetryableError, match="shutting down"):
        loop.do(events(small, asked(DUO, HEARD)))


def test_features_are_shared_by_way_of_the_disk(loop: World, service: AVQAService) -> None:
    loop.do(events(service, asked(DUO, HEARD)))
    twin = AVQAService.local("tiny", settings=service.settings)
    try:
        found = loop.do(events(twin, asked(DUO, HEARD)))
        assert isinstance(found[-1], Done)
        counters = twin.counters()
        assert (counters["feature_hits"], counters["feature_misses"]) == (1, 0)
    finally:
        loop.do(twin.close())


# -- a changed clip, and one that is read ahead --------------------------------------------------


def test_a_part_is_answered_as_the_part_is_offline(
    loop: World, service: AVQAService, offline: LocalEngine
) -> None:
    cut = Cut(start_s=2.0, end_s=7.0, mirrored=True)
    (expected,) = offline.answer(offline.read(DUO, cut=cut), [HEARD], evidence=True)
    whole_file = whole(loop.do(events(service, asked(DUO, HEARD))))
    of_part = whole(loop.do(events(service, asked(DUO, HEARD, cut=cut))))
    assert bare(of_part) == bare(expected)
    assert of_part.record != whole_file.record  # neither took the reading of the other
    assert any("2 s to 7 s" in warning for warning in of_part.warnings)


def test_a_part_beyond_the_end_is_refused_without_a_path(loop: World, service: AVQAService) -> None:
    with pytest.raises(MediaError, match="beyond the end") as caught:
        loop.do(events(service, asked(DUO, HEARD, cut=Cut(start_s=50.0))))
    assert str(DUO) not in str(caught.value)


def test_what_was_prepared_is_not_read_again(
    loop: World, service: AVQAService, tmp_path: Path
) -> None:
    ask = asked(TRIO, HEARD, cut=Cut(end_s=6.5))
    before = service.counters()
    loop.do(service.prepare(ask))
    found = whole(loop.do(events(service, ask)))
    after = service.counters()
    assert after["clips_decoded"] - before["clips_decoded"] == 1
    assert after["reading_hits"] - before["reading_hits"] == 1
    assert set(found.timing_s) == {"answer"}  # nothing but the answer was waited for
    with pytest.raises(MediaError):
        loop.do(service.prepare(asked(tmp_path / "gone.mp4", HEARD)))


def test_the_engine_is_lent_in_turn(loop: World, service: AVQAService) -> None:
    def work(engine: LocalEngine) -> str:
        return engine.answer(engine.read(DUO), [HEARD])[0].answer

    expected = whole(loop.do(events(service, asked(DUO, HEARD)))).answer
    assert loop.do(service.use("tiny", work)) == expected
    with pytest.raises(UnknownModelError):
        loop.do(service.use("nobody", work))
    with pytest.raises(ZeroDivisionError):  # its fault is its own
        loop.do(service.use("tiny", lambda engine: 1 // 0))
    assert loop.do(service.use("tiny", work)) == expected
