"""Cuts of clips: what a part, a mirror image and a clip played backwards hold, and encoders see."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avqa_llm.encoders import PictureEncoder, SoundEncoder
from avqa_llm.errors import MediaError
from avqa_llm.media import Clip, PerSecond, read_clip
from avqa_llm.media.changes import Cut, are_pairs, changed, sampling_of, time_reversed
from tests.media_files import Picture, Sound, at_rate, make_media, numbers, said
from tests.model_parts import small_clip, small_picture, small_sound

RATE = 16000


@pytest.fixture
def clip() -> Clip:
    """Four seconds, frame pairs at 0.4 and 0.6, 1.4 and 1.6 ..."""
    return small_clip(1, seconds=4)


@pytest.fixture(scope="module")
def picture() -> PictureEncoder:
    return PictureEncoder(*small_picture("vit"))


def late(clip: Clip) -> Clip:
    """Sound from 0.5 s to 3.25 s."""
    sound_CS = clip.sound_CS[:, : round(3.25 * RATE)].copy()
    sound_CS[:, : RATE // 2] = 0
    return replace(clip, sound_CS=sound_CS, sound_span_s=(0.5, 3.25))


def same(one: Clip, other: Clip) -> None:
    for name in {field.name for field in fields(Clip)} - {"notes"}:
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, float | tuple) or name == "frame_times_s":
            assert np.allclose(mine, theirs, atol=1e-9), name
        else:
            assert np.array_equal(mine, theirs), name


# -- parts -------------------------------------------------------------------------------------


def test_a_whole_cut_changes_nothing(clip: Clip) -> None:
    assert Cut().is_whole and not Cut(mirrored=True).is_whole
    assert changed(clip, Cut()) is clip


def test_a_part_is_a_clip_of_its_own_whose_times_start_at_zero(clip: Clip) -> None:
    part = changed(clip, Cut(start_s=1.0, end_s=3.0))
    assert part.duration_s == 2.0
    assert np.allclose(part.frame_times_s, [0.4, 0.6, 1.4, 1.6])
    assert np.array_equal(part.frames_THWC, clip.frames_THWC[2:6])
    assert np.array_equal(part.sound_CS, clip.sound_CS[:, RATE : 3 * RATE])
    assert part.sound_span_s == part.picture_span_s == (0.0, 2.0)
    assert said(part, "from 1 s to 3 s") and not clip.notes


def test_an_end_or_a_start_alone_is_enough(clip: Clip) -> None:
    assert changed(clip, Cut(start_s=2.5)).duration_s == 1.5
    first = changed(clip, Cut(end_s=1.0))
    assert first.duration_s == 1.0 and np.allclose(first.frame_times_s, [0.4, 0.6])


def test_frames_at_the_start_are_in_and_those_at_the_end_are_out() -> None:
    clip = small_clip(1, seconds=4, pairs=False)
    part = changed(clip, Cut(start_s=1.4, end_s=3.4))
    assert np.allclose(part.frame_times_s, [0.0, 1.0])


@pytest.mark.parametrize("start, end", [(1.0, 3.5), (1.5, 3.0), (0.5, 3.5), (0.6, 1.6)])
def test_pairs_stay_pairs_wherever_a_part_begins(clip: Clip, start: float, end: float) -> None:
    part = changed(clip, Cut(start_s=start, end_s=end))
    moments = [t for t in (0.4, 1.4, 2.4, 3.4) if start <= t < end]
    assert np.allclose(part.frame_times_s[::2], np.array(moments) - start)
    for n, time in enumerate(moments):
        first = round((time - 0.4) * 2)
        second = first + 1 if time + 0.2 < end else first
        assert np.array_equal(part.frames_THWC[2 * n], clip.frames_THWC[first])
        assert np.array_equal(part.frames_THWC[2 * n + 1], clip.frames_THWC[second])


def test_frames_that_are_no_pairs_are_not_taken_for_pairs() -> None:
    single = small_clip(1, seconds=4, pairs=False)
    assert not are_pairs(single) and are_pairs(small_clip(1, seconds=4))
    assert not are_pairs(small_clip(1, seconds=2, pairs=False)) and are_pairs(small_clip(1, 1))
    part = changed(single, Cut(start_s=1.0))
    assert np.array_equal(part.frames_THWC, single.frames_THWC[1:])
    assert len(changed(single, Cut(start_s=1.0), pairs=True).frames_THWC) == 2


def test_where_no_frame_begins_the_last_one_still_stands(clip: Clip) -> None:
    part = changed(clip, Cut(start_s=1.7, end_s=2.2))
    assert part.frame_times_s.tolist() == [0.0] and part.has_picture
    assert np.array_equal(part.frames_THWC[0], clip.frames_THWC[3])


def test_a_part_outside_of_a_track_is_without_it_and_says_so(clip: Clip) -> None:
    part = changed(late(clip), Cut(start_s=3.5))
    assert not part.has_sound and part.sound_rate_hz == 0 and part.sound_span_s == (0.0, 0.0)
    assert said(part, "sound lies outside") and part.duration_s == 0.5
    assert changed(late(clip), Cut(end_s=1.0)).sound_span_s == (0.5, 1.0)
    blind = replace(clip, picture_span_s=(0.0, 3.0))
    assert not changed(blind, Cut(start_s=3.2)).has_picture


@pytest.mark.parametrize("times", [(-1.0, 2.0), (2.0, 2.0), (3.0, 1.0), (float("nan"), 1.0)])
def test_a_part_without_length_is_no_cut(times: tuple[float, float]) -> None:
    with pytest.raises(MediaError, match="part"):
        Cut(start_s=times[0], end_s=times[1])


@pytest.mark.parametrize("start, end", [(4.0, None), (1.0, 5.0), (9.0, 10.0)])
def test_a_part_beyond_the_end_is_refused(clip: Clip, start: float, end: float | None) -> None:
    with pytest.raises(MediaError, match="beyond the end of the clip, 4 s"):
        changed(clip, Cut(start_s=start, end_s=end))


def test_an_end_that_was_rounded_up_is_the_clip_s_end(clip: Clip) -> None:
    assert changed(clip, Cut(start_s=1.0, end_s=4.4)).duration_s == 3.0


def test_a_part_of_a_file_is_looked_at_as_a_file_of_its_own(tmp_path: Path) -> None:
    path = make_media(tmp_path / "a.mp4", Picture(times_s=at_rate(10, 6.0)), Sound(seconds=6.0))
    for sampling in (PerSecond(), PerSecond(pair_gap_s=0.2), PerSecond(fps=2)):
        cut = Cut(start_s=1.7, end_s=4.7)
        part = changed(read_clip(path, sampling=sampling_of(cut, sampling)), cut)
        count = round(3 * sampling.fps) * (1 if sampling.pair_gap_s is None else 2)
        assert len(part.frame_times_s) == count
        first = round((1.7 + 0.5 / sampling.fps) * 10 - 0.49)
        assert numbers(part)[0] == first
    short = Cut(start_s=2.0, end_s=2.4)
    part = changed(read_clip(path, sampling=sampling_of(short, PerSecond())), short)
    assert numbers(part) == [22]


# -- backwards, and left and right --------------------------------------------------------------


def test_backwards_twice_is_the_clip_again(clip: Clip) -> None:
    for one in (clip, late(clip), clip.muted(), clip.blanked(), replace(clip, duration_s=4.5)):
        once = time_reversed(one)
        assert (np.diff(once.frame_times_s) >= 0).all()
        same(time_reversed(once), one)
    assert time_reversed(late(clip)).sound_span_s == (0.75, 3.5)


def test_backwards_what_was_at_a_time_is_at_its_mirror_image(clip: Clip) -> None:
    turned = changed(late(clip), Cut(reversed=True))
    assert np.allclose(turned.frame_times_s, 4 - clip.frame_times_s[::-1])
    assert np.array_equal(turned.frames_THWC[0], clip.frames_THWC[-1])
    beep = round(1.25 * RATE)
    assert np.array_equal(turned.sound_CS[:, 4 * RATE - 1 - beep], late(clip).sound_CS[:, beep])
    assert not turned.sound_CS[:, : round(0.75 * RATE)].any(), "the sound had ended before"
    assert turned.sound_CS.shape[1] == round(3.5 * RATE)


def test_encoders_see_the_motion_of_a_reversed_clip_reversed(
    clip: Clip, picture: PictureEncoder
) -> None:
    sound = SoundEncoder(*small_sound("audio-spectrogram-transformer"))
    turned = changed(clip, Cut(reversed=True))
    seen, before = picture(turned), picture(clip)
    assert seen.n == before.n and sound(turned).n == sound(clip).n
    assert (seen.times_N.diff() >= 0).all() and (sound(turned).times_N.diff() > 0).all()
    assert torch.allclose(seen.times_N, (4 - before.times_N).flip(0), atol=1e-5)
    # Each pair as the encoder takes it: the later frame first, so the change has the other sign.
    frames = torch.from_numpy(clip.frames_THWC).permute(0, 3, 1, 2)
    exchanged = torch.cat([frames[7], frames[6]])[None]
    moment = picture.grid_PRQD(exchanged).reshape(-1, picture.width)
    assert torch.allclose(seen.values_ND[: len(moment)], moment, atol=1e-5)
    pixels = picture.normalise(torch.stack([exchanged[0], torch.cat([frames[6], frames[7]])]))
    assert torch.allclose(pixels[0, 3:], -pixels[1, 3:], atol=1e-5)


def test_a_part_has_the_tokens_of_its_seconds(clip: Clip, picture: PictureEncoder) -> None:
    part = changed(clip, Cut(start_s=1.0, end_s=3.0))
    tokens, whole = picture(part), picture(clip)
    assert tokens.n == whole.n // 2
    assert torch.allclose(tokens.times_N, whole.times_N[whole.n // 4 : -whole.n // 4] - 1)
    split = picture(changed(clip, Cut(start_s=0.5, end_s=3.5)))
    assert split.n == 3 * whole.n // 4 and (split.times_N >= 0).all()


def test_mirrored_exchanges_columns_and_ears(clip: Clip) -> None:
    turned = changed(clip, Cut(mirrored=True))
    assert np.array_equal(turned.frames_THWC, clip.frames_THWC[:, :, ::-1])
    assert np.array_equal(turned.sound_CS, clip.sound_CS[::-1])
    same(changed(turned, Cut(mirrored=True)), clip)
    mono = replace(clip, sound_CS=clip.sound_CS[:1])
    assert np.array_equal(changed(mono, Cut(mirrored=True)).sound_CS, mono.sound_CS)
    six = replace(clip, sound_CS=np.arange(12, dtype=np.float32).reshape(6, 2))
    assert changed(six, Cut(mirrored=True)).sound_CS[:, 0].tolist() == [2, 0, 4, 6, 10, 8]


def test_all_of_it_at_once_the_part_first(clip: Clip) -> None:
    before = clip.frames_THWC.copy(), clip.sound_CS.copy()
    cut = Cut(start_s=1.0, end_s=3.0, mirrored=True, reversed=True, picture=False)
    turned = changed(clip, cut)
    assert not turned.has_picture and turned.duration_s == 2.0
    part_CS = clip.sound_CS[::-1, RATE : 3 * RATE]
    assert np.array_equal(turned.sound_CS, part_CS[:, ::-1])
    deaf = changed(clip, Cut(sound=False))
    assert not deaf.has_sound and deaf.duration_s == 4.0 and said(deaf, "on purpose")
    assert changed(clip.muted(), Cut(sound=False)).notes == clip.muted().notes
    assert np.array_equal(clip.frames_THWC, before[0]) and np.array_equal(clip.sound_CS, before[1])
