"""The training loop: what is killed goes on where it was, what is broken is left out and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avqa_llm.errors import AVQAError, CheckpointError, RecipeError
from avqa_llm.training.checkpoints import STATE, last_checkpoint
from avqa_llm.training.loop import BatchAt, fit, grouped, shuffled
from avqa_llm.training.trainer import Guard
from tests.test_training import LOOP, Killed, logged


class Numbers:
    """A batch of the small net: what it was asked for, as a tensor."""

    def __init__(self, values_BD: Tensor) -> None:
        self.values_BD = values_BD

    def to(self, device: object, **_: object) -> Numbers:
        return self


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.GELU(), nn.Linear(16, 1))


def numbers(*, killed_at: int = -1, broken: frozenset[int] = frozenset()) -> BatchAt:
    def batch_at(step: int, part: int, parts: int) -> Numbers:
        if step == killed_at:
            raise Killed
        values = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))[part::parts]
        return Numbers(values * float("nan") if step in broken else values)

    return batch_at


def loss_of(net: nn.Module) -> Callable[[Numbers], dict[str, Tensor]]:
    def loss(batch: Numbers) -> dict[str, Tensor]:
        wanted = batch.values_BD.sum(1, keepdim=True)
        return {"loss": (net(batch.values_BD) - wanted).square().mean(), "one": torch.ones(())}

    return loss


def run(net: nn.Module, batch_at: BatchAt, folder: Path, *, resume: bool = False, **how) -> None:
    config = replace(LOOP, **{k: v for k, v in how.items() if k != "validate"})
    fit("net", net, batch_at, config, folder=folder, resume=resume, loss=loss_of(net),
        validate=how.get("validate"))  # fmt: skip


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("parts", [1, 2])
def test_a_run_killed_at_any_step_ends_where_an_unbroken_one_does(
    tmp_path: Path, parts: int
) -> None:
    whole = small_net()
    run(whole, numbers(), tmp_path / "whole", parts=parts)
    assert not torch.equal(weights(whole), weights(small_net()))
    for killed_at in range(LOOP.steps):
        folder, again = tmp_path / str(killed_at), small_net()
        with pytest.raises(Killed):
            run(small_net(), numbers(killed_at=killed_at), folder, parts=parts)
        run(again, numbers(), folder, resume=True, parts=parts)
        assert torch.equal(weights(again), weights(whole)), killed_at


def test_parts_of_a_step_do_what_the_whole_batch_does(tmp_path: Path) -> None:
    """Without dropout, whose draws differ."""
    nets = [nn.Sequential(*(m for m in small_net() if not isinstance(m, nn.Dropout)))
            for _ in range(2)]  # fmt: skip
    for net, parts in zip(nets, (1, 2), strict=True):
        run(net, numbers(), tmp_path / str(parts), parts=parts)
    torch.testing.assert_close(weights(nets[0]), weights(nets[1]), rtol=1e-4, atol=1e-5)
    with pytest.raises(RecipeError, match="loop.parts is 5, should be from 1 to batch"):
        run(small_net(), numbers(), tmp_path / "5", parts=5)


def test_without_resume_a_run_starts_anew(tmp_path: Path) -> None:
    one, other = small_net(), small_net()
    run(one, numbers(), tmp_path)
    run(other, numbers(), tmp_path)
    assert torch.equal(weights(one), weights(other))


def test_a_step_without_a_number_is_left_out_and_many_end_the_run(tmp_path: Path) -> None:
    net = small_net()
    run(net, numbers(broken=frozenset({3})), tmp_path)
    assert torch.isfinite(weights(net)).all()
    assert logged(tmp_path)[-1]["left_out"] == 1
    with pytest.raises(AVQAError, match="no longer a number at step 6.* lower lr"):
        run(small_net(), numbers(broken=frozenset({4, 5, 6})), tmp_path, bad_steps=3)


def test_a_step_far_longer_than_usual_is_left_out(tmp_path: Path) -> None:
    guard = Guard("net", replace(LOOP, spike=10.0, bad_steps=3))
    assert guard.bad_step(50.0, 0) is None  # nothing is usual yet
    for n in range(60):
        assert guard.bad_step(1.0 + n % 3, n) is None
    assert guard.bad_step(19.0, 60) is None
    assert "times longer" in str(guard.bad_step(21.0, 61))
    assert guard.bad_step(float("nan"), 62) == "the loss is no longer a number"
    with pytest.raises(AVQAError, match="the 2 steps before it"):
        guard.bad_step(1e9, 63)


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(Killed):
        run(small_net(), numbers(killed_at=5), tmp_path)
    kept = last_checkpoint(tmp_path / "net")
    assert kept is not None and kept.name == "checkpoint-4"  # a batch is made one step ahead
    content = (kept / STATE).read_bytes()

    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("avqa_llm.training.checkpoints.os.replace", dies)
        with pytest.raises(Killed):
            run(small_net(), numbers(), tmp_path, resume=True)
    assert last_checkpoint(tmp_path / "net") == kept
    assert (kept / STATE).read_bytes() == content
    run(small_net(), numbers(), tmp_path, resume=True)
    assert [p.name for p in (tmp_path / "net").glob("checkpoint-*")] == ["checkpoint-8"]


@pytest.mark.parametrize("how", ["another net", "cut", "pickle"])
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, how: str) -> None:
    run(small_net(), numbers(), tmp_path)
    path = tmp_path / "net" / "checkpoint-8" / STATE
    other = nn.Sequential(nn.Linear(6, 8), nn.Identity(), nn.GELU(), nn.Linear(8, 1))
    if how != "another net":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"pickle")
        other = small_net()
    with pytest.raises(CheckpointError, match="checkpoint-8"):
        run(other, numbers(), tmp_path, resume=True)


def test_metrics_are_means_and_go_on_after_a_kill(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(small_net(), numbers(killed_at=5), tmp_path)
    run(small_net(), numbers(), tmp_path, resume=True)
    rows = logged(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert [row["one"] for row in rows] == [1.0] * 4


def test_the_weights_of_the_best_validation_stay_and_patience_ends_the_run(tmp_path: Path) -> None:
    net, seen = small_net(), []

    def validate() -> dict[str, float]:
        assert not net.training
        seen.append(weights(net).clone())
        return {"score": [1.0, 3.0, 2.0, 2.5, 9.0][len(seen) - 1]}

    run(net, numbers(), tmp_path, validate=validate, validate_every=1, patience=2)
    assert len(seen) == 4 and torch.equal(weights(net), seen[1])
    scores = [row["val_score"] for row in logged(tmp_path) if "val_score" in row]
    assert scores == [1.0, 3.0, 2.0, 2.5]


def test_a_run_that_had_lost_its_patience_has_still_lost_it(tmp_path: Path) -> None:
    net, seen = small_net(), []

    def validate() -> dict[str, float]:
        seen.append(1)
        return {"score": 9.0 - len(seen)}

    how = {"validate": validate, "validate_every": 1, "patience": 2}
    run(net, numbers(), tmp_path, **how)
    assert len(seen) == 3
    again = small_net()
    run(again, numbers(), tmp_path, resume=True, **how)
    assert len(seen) == 3 and torch.equal(weights(again), weights(net))


def test_a_loss_that_is_no_number_counts_although_the_gradient_is_one(tmp_path: Path) -> None:
    net = small_net()

    def loss(batch: Numbers) -> dict[str, Tensor]:
        return {"loss": net(batch.values_BD).sum() * 0.0 + float("nan")}

    with pytest.raises(AVQAError, match="no longer a number"):
        fit("net", net, numbers(), LOOP, folder=tmp_path, resume=False, loss=loss)


def test_clips_of_a_length_come_together_and_each_comes_once() -> None:
    costs = [int(c) for c in np.random.default_rng(0).integers(1, 1000, 400)]
    one = [grouped(costs, batch=4, step=s, seed=0) for s in range(100)]
    two = [grouped(costs, batch=4, step=s, seed=0) for s in range(100, 200)]
    assert sorted(sum(one, [])) == sorted(sum(two, [])) == list(range(400)) and one != two
    spread = np.mean([np.ptp([costs[i] for i in batch]) for batch in one])
    chance = np.mean([np.ptp([costs[i] for i in shuffled(400, batch=4, step=s, seed=0)])
                      for s in range(100)])  # fmt: skip
    assert spread < chance / 20
    assert len(grouped(costs[:6], batch=4, step=1, seed=0)) == 4


def test_each_pass_sees_every_clip_once_in_another_order() -> None:
    passes = [sum((shuffled(12, batch=4, step=s, seed=0) for s in range(p, p + 3)), [])
              for p in (0, 3)]  # fmt: skip
    assert [sorted(one) for one in passes] == [list(range(12))] * 2
    assert passes[0] != passes[1]


def test_curves_are_written_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'avqa-llm[train]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(small_net(), numbers(), tmp_path, tensorboard=True)
    events = next(path for path in tmp_path.rglob("events.out.tfevents.*"))
    curves = EventAccumulator(str(events.parent))
    curves.Reload()
    name = next(tag for tag in curves.Tags()["scalars"] if tag.endswith("/loss"))
    assert [point.step for point in curves.Scalars(name)] == [2, 4, 6, 8]
