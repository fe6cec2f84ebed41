"""Which files may be used, and which clip a question is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.clips import SAMPLES, Media, admitted, meant
from avqa_llm.errors import AVQAError, MediaError
from avqa_llm.media import MediaLimits

LIMITS = MediaLimits(max_bytes=10**7, max_seconds=60)
KNOWN = [
    Media(path=Path(f"/up/{n}"), name=name, sha256=str(n))
    for n, name in enumerate(("duo.mp4", "trio.mp4", "duo (2).mp4"))
]


@pytest.mark.parametrize(
    ("question", "place", "asked"),
    [
        ("What plays?", 2, "What plays?"),
        ("What plays in the first video?", 0, "What plays in the video?"),
        ("In the second clip, what plays?", 1, "In the video, what plays?"),
        ("What plays in the 3rd recording?", 2, "What plays in the video?"),
        ("What plays in the last video?", 2, "What plays in the video?"),
        ("What plays in video 2?", 1, "What plays in the video?"),
        ("What plays in clip #1?", 0, "What plays in the video?"),
        ("What plays in trio.mp4?", 1, "What plays in the video?"),
        ("What plays in TRIO.MP4?", 1, "What plays in the video?"),
        ("What plays in duo (2).mp4?", 2, "What plays in the video?"),
        ("What plays in duo.mp4?", 0, "What plays in the video?"),
        # these are about instruments and times, not about which clip
        ("Which instrument comes in first in the video?", 2, None),
        ("Are there two violins in the video?", 2, None),
        ("In the video two of them play, who is first?", 2, None),
        ("Is the first instrument in the video a trio?", 2, None),
    ],
)
def test_words_choose_the_clip(question: str, place: int, asked: str | None) -> None:
    assert meant(question, KNOWN) == (KNOWN[place], asked or question)


def test_a_clip_that_is_not_there_is_said() -> None:
    with pytest.raises(AVQAError, match="clip 4, and this conversation has 3: duo.mp4"):
        meant("What plays in video 4?", KNOWN)
    with pytest.raises(AVQAError, match="no clip yet"):
        meant("What plays?", [])


def test_names_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "duo.mp4").write_bytes((SAMPLES / "duo.mp4").read_bytes())
    first = admitted(str(tmp_path / "a" / "duo.mp4"), [], uploads=tmp_path, limits=LIMITS)
    second = admitted(str(tmp_path / "b" / "duo.mp4"), [first], uploads=tmp_path, limits=LIMITS)
    assert (first.name, second.name) == ("duo.mp4", "duo (2).mp4")
    again = admitted(str(tmp_path / "a" / "duo.mp4"), [first], uploads=tmp_path, limits=LIMITS)
    assert again is first


def test_files_from_elsewhere_are_refused_without_their_place(tmp_path: Path) -> None:
    uploads = tmp_path / "up"
    uploads.mkdir()
    secret = tmp_path / "secret.mp4"
    secret.write_bytes((SAMPLES / "duo.mp4").read_bytes())
    (uploads / "link.mp4").symlink_to(secret)
    for given in (str(secret), f"{uploads}/../secret.mp4", f"{uploads}/link.mp4", "/etc/passwd"):
        with pytest.raises(MediaError, match="not uploaded here") as caught:
            admitted(given, [], uploads=uploads, limits=LIMITS)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(MediaError, match="not there any more"):
        admitted(f"{uploads}/gone.mp4", [], uploads=uploads, limits=LIMITS)


def test_limits_name_the_file(tmp_path: Path) -> None:
    given = str(SAMPLES / "duo.mp4")
    for limits, said in (
        (MediaLimits(max_bytes=1000), "duo.mp4 has 0 MB"),
        (MediaLimits(max_seconds=5), "duo.mp4.* the limit is 5 s"),
    ):
        with pytest.raises(MediaError, match=said):
            admitted(given, [], uploads=tmp_path, limits=limits)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 99)
    with pytest.raises(MediaError) as caught:
        admitted(str(broken), [], uploads=tmp_path, limits=LIMITS)
    assert "broken.mp4" in str(caught.value) and str(tmp_path) not in str(caught.value)
