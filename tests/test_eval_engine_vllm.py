"""`--model vllm:...` answers as the same model here does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from avqa_llm.errors import AVQAError
from eval.engines import Asked, vllm
from eval.engines.load import EngineSpec
from eval.engines.local import Local
from eval.samples import RunError
from tests.test_remote import ASKED, CHOICES, SAMPLES, Played, same

SERVER = {"key_env": ""}


def test_answers_are_those_of_the_model_here(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Local.load("tiny")
    monkeypatch.setattr(vllm, "_given", lambda *_: Played(here.engine.decoder))
    spec = EngineSpec(model="vllm:tiny", base_url="http://127.0.0.1:1", server=SERVER)
    there = spec.load()
    clip = here.read(SAMPLES / "duo.mp4")
    asked = [
        Asked(clip=0, question=question, choices=CHOICES[:n]) for n, question in enumerate(ASKED)
    ]
    for mine, theirs in zip(there.answer([clip], asked), here.answer([clip], asked), strict=True):
        same(mine, theirs)
    assert there.describe()["server"] == "http://127.0.0.1:1"


def test_the_weights_are_those_of_the_model_and_one_process_asks() -> None:
    spec, plain = EngineSpec(model="vllm:tiny"), EngineSpec(model="tiny")
    assert spec.weights() == plain.weights() != ""
    assert spec.alone and not plain.alone and not spec.served


def test_what_cannot_work_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVQA_VLLM_PYTHON", str(tmp_path / "python"))
    spec = EngineSpec(model="vllm:tiny", server=SERVER)
    with pytest.raises(AVQAError, match="make serve-env"):
        spec.load()
    with pytest.raises(RunError, match="mode 'odd' is unknown"):
        replace(spec, mode="odd").load()
    with pytest.raises(AVQAError, match="away"):
        replace(spec, base_url="http://127.0.0.1:1").load()
