"""The reader of what a model wrote down: understands tiny's grammar, guesses nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import Event, read_record
from instruct_data.bandstand.record import (
    event_record,
    record_without_picture,
    record_without_sound,
    ticks,
)
from instruct_data.bandstand.scene import sample_scene


@pytest.mark.parametrize("seed", range(12))
def test_it_reads_what_the_trainer_writes(seed: int) -> None:
    scene = sample_scene(seed)
    written = read_record(event_record(scene))
    assert written is not None and written.strange == ()
    assert (written.place, written.voice) == (scene.place, scene.voiceover is not None)
    assert [event.name for event in written.events] == [p.instrument for p in scene.players]
    for event, player in zip(written.events, scene.players, strict=True):
        assert (event.side, event.silent) == (player.side, not player.audible)
        if player.audible:
            assert (event.start_s, event.end_s) == (
                ticks(player.start_s) / 2,
                ticks(player.end_s) / 2,
            )
            assert event.loudness is not None and event.rhythm is not None
    deaf, blind = record_without_sound(scene), record_without_picture(scene)
    assert [e.name for e in _read(deaf)] == [p.instrument for p in scene.seen]
    assert len(_read(blind)) == len(scene.heard)


def _read(record: str) -> tuple[Event, ...]:
    written = read_record(record)
    assert written is not None
    return written.events


def test_times_are_those_of_the_clip() -> None:
    (event,) = _read("indoor ; flute right s4 e10 n6 l0 r4")  # 2 s to 5 s of the model
    assert (event.start_s, event.end_s) == (2.0, 5.0)
    written = read_record("flute right s4 e10", pace=3.0)
    assert written is not None and written.events[0].end_s == 15.0


@pytest.mark.parametrize(
    "text",
    ["", ";;;", "A man speaks; a dog barks", "the man left; he went right", "s3 e4 ; l2", "{}"],
)
def test_other_words_are_not_understood(text: str) -> None:
    assert read_record(text) is None


def test_what_is_broken_is_kept_as_it_is() -> None:
    written = read_record("outdoor ; flute left s9 e3 ; drum off s0 e2 l9 r1 ; what is this")
    assert written is not None
    assert written.strange == ("flute left s9 e3", "what is this")
    (drum,) = written.events
    assert drum.loudness is None and drum.rhythm == 1


@given(st.text(alphabet="senlr0123456789 ;abfluteoffsilent", max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    written = read_record(text, pace=2.0)
    for event in written.events if written else ():
        assert event.name
        assert event.start_s is None or math.isfinite(event.start_s)
