"""Evidence by deletion: what is cited goes, as much goes elsewhere, and the two are compared."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from avqa_llm.answer import Alternative, Answer, Consumed, Evidence
from avqa_llm.encoders import Tokens
from avqa_llm.engine import LocalEngine
from avqa_llm.model import ClipTokens
from eval.__main__ import main
from eval.deletion import Deletion, _falls, _moved, check_evidence
from eval.statistics import clustered_mean
from tests.media_files import Picture, Sound, at_rate, make_media
from tests.model_parts import small_model

SECONDS, COLUMNS = 10, 8


def clip() -> ClipTokens:
    """Ten sound tokens, one a second; ten moments of one row of eight picture columns."""
    across = (torch.arange(COLUMNS) + 0.5) / COLUMNS
    places = torch.stack([across.repeat(SECONDS), torch.full((SECONDS * COLUMNS,), 0.5)], 1)
    seconds = torch.arange(SECONDS) + 0.5
    return ClipTokens(
        sound=Tokens(
            values_ND=seconds[:, None], times_N=seconds, places_N2=torch.zeros(SECONDS, 2),
            length_s=1.0,
        ),
        picture=Tokens(
            values_ND=places, times_N=seconds.repeat_interleave(COLUMNS), places_N2=places,
            length_s=1.0,
        ),
        seconds=float(SECONDS),
    )  # fmt: skip


class Needs:
    """An engine whose answers need second 3 of the sound or the column at 0.56, and cite either."""

    labels = ("yes", "no")

    def __init__(self, *, honest: bool) -> None:
        self.honest = honest

    def digest(self, clips: list[ClipTokens]) -> list[ClipTokens]:
        return clips

    def ask(self, clips: list[ClipTokens], questions: list, **_: Any) -> list[Answer]:
        return [self._answer(clips[index]) for index, _ in questions]

    def _answer(self, tokens: ClipTokens) -> Answer:
        hears = bool((tokens.sound.times_N == 3.5).any())
        sees = bool((tokens.picture.places_N2[:, 0] == 0.5625).any())
        yes = 0.1 + 0.4 * hears + 0.4 * sees
        label, chance = ("yes", yes) if yes >= 0.5 else ("no", 1 - yes)
        other = "no" if label == "yes" else "yes"
        second, left = (3.0, 0.5) if self.honest else (7.0, 0.0)
        return Answer(
            answer=label,
            label=label,
            probability=chance,
            alternatives=(Alternative(label=other, probability=1 - chance),),
            evidence=(
                Evidence(
                    modality="sound", start_s=second, end_s=second + 1, region=None, weight=1.0
                ),
                Evidence(
                    modality="picture", start_s=0.0, end_s=10.0,
                    region=(left, 0.0, left + 0.125, 1.0), weight=1.0,
                ),
            ),
            consumed=Consumed(sound=True, picture=True, sound_tokens=10, picture_tokens=80),
        )  # fmt: skip


def falls(*, honest: bool) -> list[float]:
    engine: Any = Needs(honest=honest)
    found = [
        _falls(engine, clip(), ["Is it so?", "Is it?"], np.random.default_rng(seed))
        for seed in range(20)
    ]
    return np.array(found).mean((0, 1)).tolist()


def test_evidence_that_is_needed_makes_the_answer_fall_when_it_goes() -> None:
    assert falls(honest=True) == pytest.approx([0.4, 0, 0.4, 0])


def test_evidence_that_is_not_needed_does_not() -> None:
    heard, other_heard, seen, other_seen = falls(honest=False)
    assert heard == seen == 0
    assert min(other_heard, other_seen) > 0.02, "what is needed lies elsewhere, at times hit"


def test_the_control_hides_as_much_and_something_else() -> None:
    tokens = clip()
    rng = np.random.default_rng(0)
    heard = torch.zeros(SECONDS, dtype=torch.bool)
    heard[3:5] = True
    seen = tokens.picture.places_N2[:, 0] == 0.5625
    for _ in range(30):
        for side, mask in ((tokens.sound, heard), (tokens.picture, seen)):
            moved = _moved(side, mask, rng)
            assert moved.sum() == mask.sum()
            assert not torch.equal(moved, mask)
        across = tokens.picture.places_N2[:, 0][_moved(tokens.picture, seen, rng)]
        assert len(across.unique()) == 1, "a column stays a column"
    none = Tokens.none(4)
    assert _moved(none, torch.zeros(0, dtype=torch.bool), rng).numel() == 0


def test_the_command_checks_real_files_with_a_real_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AVQA_CACHE", str(tmp_path / "cache"))
    engine = LocalEngine(small_model())
    monkeypatch.setattr(LocalEngine, "load", lambda *_, **__: engine)
    rows = []
    for n, name in enumerate(("a", "b", "gone")):
        kind = '["Audio-Visual", "Existential"]'
        row = {"video_id": name, "question_id": n, "type": kind, "templ_values": "[]"}
        rows.append(row | {"question_content": "Is there a voiceover?", "anser": "yes"})
        if name != "gone":
            make_media(tmp_path / f"{name}.mp4", Picture(times_s=at_rate(5, 2)), Sound(seconds=2))
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps(rows))
    out = tmp_path / "evidence.json"
    given = ["--annotations", str(questions), "--media", str(tmp_path), "--out", str(out)]
    assert main(["evidence", *given]) == 0
    assert "over 2 questions" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert set(found) == {"sound", "picture"}
    for figures in found.values():
        gap = figures["cited"]["value"] - figures["elsewhere"]["value"]
        assert figures["difference"]["value"] == pytest.approx(gap, abs=1e-6)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was computed")

    monkeypatch.setattr("eval.deletion.check_evidence", never)
    given = ["--annotations", str(tmp_path / "q.json"), "--media", str(tmp_path), "--out"]
    for out, why in ((tmp_path, "is a folder"), (tmp_path / "no" / "e.json", "there is no folder")):
        assert main(["evidence", *given, str(out)]) == 2
        said = capsys.readouterr().err
        assert why in said and said.count("\n") == 1


def test_figures_of_one_video_are_written_without_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = clustered_mean(np.array([0.5, 0.25]), ["a", "a"])
    found = {"sound": Deletion(cited=one, elsewhere=one, difference=one)}
    monkeypatch.setattr("eval.deletion.check_evidence", lambda *_, **__: found)
    out = tmp_path / "e.json"
    given = ["--annotations", str(tmp_path / "q.json"), "--media", str(tmp_path)]
    assert main(["evidence", *given, "--out", str(out)]) == 0
    cited = json.loads(out.read_text(), parse_constant=pytest.fail)["sound"]["cited"]
    assert (cited["value"], cited["low"], cited["n"]) == (0.375, None, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["e.json"]


def test_a_folder_without_the_clips_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(LocalEngine, "load", lambda *_, **__: SimpleNamespace())
    row = {"video_id": "a", "type": '["Audio", "Counting"]', "question_content": "?"}
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([row | {"templ_values": "[]", "anser": "one"}]))
    with pytest.raises(Exception, match="holds none of the 1 clips"):
        check_evidence("tiny", questions, tmp_path, limit=3)
