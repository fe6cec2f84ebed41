"""What is done before torch computes: a unit that computes wrongly is left alone."""

from __future__ import annotations

import os

import pytest

from avqa_llm import devices

ISA = "ONEDNN_MAX_CPU_ISA"


@pytest.mark.parametrize(
    ("probe", "left_alone"),
    [
        pytest.param("pass", False, id="right"),
        pytest.param("raise SystemExit(1)", True, id="wrong"),
        pytest.param("import os; os.kill(os.getpid(), 4)", True, id="illegal instruction"),
    ],
)
def test_training_leaves_amx_alone_where_it_fails(
    probe: str, left_alone: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(ISA, "x")  # so that whatever is set here is undone
    monkeypatch.delenv(ISA)
    monkeypatch.setattr(devices, "_PROBE", probe)
    devices.prepare_training()
    assert (ISA in os.environ) is left_alone
    assert ("going on without it" in capsys.readouterr().out) is left_alone


def test_patches_are_tried_only_where_they_are_cut_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA, "x")
    monkeypatch.delenv(ISA)
    monkeypatch.setattr(devices, "_PROBE", "import sys; raise SystemExit('patches' in sys.argv)")
    devices.prepare_training(patches=False)
    assert ISA not in os.environ
    devices.prepare_training()
    assert ISA in os.environ


def test_a_choice_of_the_users_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA, "AVX2")
    monkeypatch.setattr(devices, "_PROBE", "raise SystemExit(1)")
    devices.prepare_training()
    assert os.environ[ISA] == "AVX2"
