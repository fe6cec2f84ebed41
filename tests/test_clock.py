"""Long clips: shown faster, and everything that comes out is in their own seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from avqa_llm.clock import averaged, hurried, merged, pace_of, picked
from avqa_llm.encoders import Tokens
from avqa_llm.engine import LocalEngine, Session
from avqa_llm.evidence import sound_evidence
from avqa_llm.model import ClipTokens, World
from tests.model_parts import QUESTIONS, small_clip, small_model

KNOWN_S, PACE = 3.0, 4


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RECORD_LIMIT", "STEPS_LIMIT", "OPEN_LIMIT"):
        monkeypatch.setattr(f"avqa_llm.engine.{name}", 5)
    with torch.no_grad():
        yield


def sound(seconds: float, rate: float = 10.0) -> Tokens:
    n = round(seconds * rate)
    torch.manual_seed(1)
    return Tokens(
        values_ND=torch.randn(n, 3),
        times_N=(torch.arange(n) + 0.5) / rate,
        places_N2=torch.zeros(n, 2),
        length_s=1 / rate,
    )


def picture(seconds: int) -> Tokens:
    """Two rows of three columns a second; a value is its moment's number and its own place."""
    places = torch.tensor([[x, y] for y in (0.25, 0.75) for x in (1 / 6, 0.5, 5 / 6)])
    moments = torch.arange(seconds).float().repeat_interleave(6)
    places = places.repeat(seconds, 1)
    return Tokens(
        values_ND=torch.cat([moments[:, None], places], 1),
        times_N=moments + 0.5,
        places_N2=places,
        length_s=1.0,
    )


def test_only_clips_that_are_clearly_longer_are_hurried() -> None:
    assert pace_of(25.0, 10.0) == 2.5
    assert [pace_of(s, 10.0) for s in (0.0, 4.0, 10.0, 10.02, 10.5)] == [1.0] * 5
    assert pace_of(1000.0, 0.0) == 1.0, "no limit is known"
    clip = ClipTokens(sound=sound(4), picture=picture(4), seconds=4.0)
    assert merged(clip, 1.0) is clip and hurried(clip, 1.0) is clip


def test_sound_is_averaged_by_time_even_where_tokens_are_cut() -> None:
    tokens = sound(25.0)
    found = averaged(tokens, 2.5)
    halves = tokens.values_ND.repeat_interleave(2, 0)  # five halves make two and a half tokens
    torch.testing.assert_close(found.values_ND, halves.view(100, 5, 3).mean(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.times_N, (torch.arange(100) + 0.5) * 0.25)
    assert found.length_s == pytest.approx(0.25)


@pytest.mark.parametrize("pace", [1.06, 2.5, 3.0, 6.0, 17.3])
def test_of_every_place_the_moments_nearest_to_even_times_are_taken(pace: float) -> None:
    seconds = 60
    found = picked(picture(seconds), pace)
    assert found.n == 6 * -(-seconds // pace)
    assert torch.equal(found.values_ND[:, 1:], found.places_N2), "a value stays at its place"
    moments = torch.arange(seconds) + 0.5
    for time, taken in zip(found.times_N.tolist(), found.values_ND[:, 0].tolist(), strict=True):
        near = (moments - time).abs()
        inside = near[near <= pace / 2 + 1e-4]
        assert abs(taken + 0.5 - time) == pytest.approx(float(inside.min()), abs=1e-4)
    assert torch.equal(found.places_N2[:6], picture(1).places_N2), "row after row"
    assert (found.times_N.diff() >= 0).all()


@pytest.mark.parametrize("merge", [averaged, picked])
def test_what_was_taken_away_stays_away(merge) -> None:
    tokens = picture(12)
    hidden = (tokens.times_N < 6) | (tokens.places_N2[:, 0] > 0.6)
    found = merge(tokens.where(~hidden), 3.0)
    assert sorted(set(found.times_N.tolist())) == [7.5, 10.5]
    assert found.places_N2[:, 0].max() < 0.6
    none = Tokens.none(4)
    assert merge(none, 3.0) is none


def engine_of(longest_s: float) -> LocalEngine:
    model = small_model()
    model.config = replace(model.config, world=World(name="Here", longest_s=longest_s))
    return LocalEngine(model)


@pytest.fixture(scope="module")
def engines() -> tuple[LocalEngine, LocalEngine]:
    """One that knows clips of three seconds, and one that knows no limit."""
    with torch.no_grad():
        return engine_of(KNOWN_S), engine_of(0.0)


def slowed(clip: ClipTokens) -> ClipTokens:
    """The same clip where everything lasts `PACE` times as long."""

    def part(one: Tokens) -> Tokens:
        moments = torch.unique(one.times_N)
        values = [one.values_ND[one.times_N == time] for time in moments]
        places = [one.places_N2[one.times_N == time] for time in moments]
        n = PACE * len(moments)
        each = len(values[0])
        return Tokens(
            values_ND=torch.cat([value for value in values for _ in range(PACE)]),
            times_N=((torch.arange(n) + 0.5) * one.length_s).repeat_interleave(each),
            places_N2=torch.cat([place for place in places for _ in range(PACE)]),
            length_s=one.length_s,
        )

    return ClipTokens(
        sound=part(clip.sound), picture=part(clip.picture), seconds=clip.seconds * PACE
    )


def test_a_slow_clip_is_answered_like_the_clip_and_cites_its_own_seconds(
    engines: tuple[LocalEngine, LocalEngine],
) -> None:
    engine, _ = engines
    clip = engine.encode(small_clip(0))
    rows = [(n, question) for question in QUESTIONS for n in (0, 1)]
    answers = engine.ask(engine.digest([clip, slowed(clip)]), rows, evidence=True)
    for plain, slow in zip(answers[::2], answers[1::2], strict=True):
        assert (slow.label, slow.steps, slow.record) == (plain.label, plain.steps, plain.record)
        assert slow.probability == pytest.approx(plain.probability, abs=2e-3)
        assert slow.consumed == plain.consumed
        assert (plain.pace, slow.pace) == (1.0, PACE)
        for one, other in zip(plain.evidence, slow.evidence, strict=True):
            assert (other.modality, other.region) == (one.modality, one.region)
            if one.modality == "sound":
                assert other.start_s == pytest.approx(PACE * one.start_s, abs=0.03)
                assert other.end_s == pytest.approx(PACE * one.end_s, abs=0.03)
            assert 0 <= other.start_s < other.end_s <= PACE * KNOWN_S + 0.01
    assert max(e.end_s for a in answers[1::2] for e in a.evidence) > KNOWN_S + 1


def test_spans_of_sound_grow_with_the_pace() -> None:
    tokens = sound(60)
    found = averaged(tokens, 6.0)
    weights = torch.zeros(found.n)
    weights[(found.times_N >= 12) & (found.times_N < 18)] = 0.1
    (place,) = sound_evidence(found, weights, pace=6.0)
    assert (place.start_s, place.end_s, place.weight) == (12.0, 18.0, 1.0)


def test_clips_of_known_length_are_answered_as_before_to_the_bit(
    engines: tuple[LocalEngine, LocalEngine],
) -> None:
    """Alone, and beside a longer one in the same batch."""
    knows, plain = engines
    clips = [small_clip(0), small_clip(1, 2)]
    rows = [(n, question) for n in (0, 1) for question in QUESTIONS]
    one, other = (each.answer_many(clips, rows, evidence=True) for each in engines)
    assert [replace(a, timing_s={}) for a in one] == [replace(a, timing_s={}) for a in other]
    assert [a.signs for a in one] == [a.signs for a in other]
    clips = [*clips, small_clip(2, 7)]
    mixed = knows.answer_many(clips, [*rows, (2, QUESTIONS[0])])
    (long,) = knows.answer(clips[2], [QUESTIONS[0]])
    assert [a.label for a in mixed] == [*(a.label for a in one), long.label]
    assert mixed[-1].record == long.record
    assert [a.pace for a in mixed] == [1.0] * 6 + [7 / 3]
    assert plain.answer(clips[2], [QUESTIONS[0]])[0].pace == 1.0


def test_what_was_done_with_a_long_clip_is_said(
    engines: tuple[LocalEngine, LocalEngine],
) -> None:
    answer = Session(engines[0], small_clip(0, 7)).ask(QUESTIONS[0])
    assert answer.warnings == (
        "The clip lasts 7.0 s; this model knows clips of up to 3 s, so it was shown this one 2.33"
        " times as fast, neighbouring moments merged: times in its record and steps count 2.33"
        " times as long.",
    )
    assert answer.consumed is not None
    assert answer.consumed.picture_tokens == 3 * 2 * 4, "three moments of two rows of four"
    assert Session(engines[0], small_clip(0)).warnings == ()


def test_while_training_goes_on_clips_keep_their_pace() -> None:
    model = small_model()
    model.config = replace(model.config, world=World(longest_s=KNOWN_S))
    engine = LocalEngine(model, merge=False)
    assert engine.digest([engine.encode(small_clip(0, 7))]).paces == (1.0,)
