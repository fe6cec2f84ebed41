"""Weights split over the processes of torchrun, gathered, put back, and gathered again: FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from avqa_llm.training.connect import choose_weights
from avqa_llm.training.sharded import layer_classes, put_whole_tensors, whole_tensors
from avqa_llm.training.trainer import Stage
from tests.model_parts import small_model


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo")
    model = small_model()
    choose_weights(model, bridge=True, lora=True)
    stage = Stage(nn.ModuleDict({"bridge": model.bridge, "llm": model.llm}), lambda batch: {})
    before = {k: p.detach().clone() for k, p in stage.trained.named_parameters() if p.requires_grad}
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    units = [m for m in stage.modules() if type(m).__name__ in layer_classes(stage)]
    assert units, "no layer was found to split"
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(stage, mesh=mesh)
    learned = [p for p in stage.parameters() if p.requires_grad]
    assert all(isinstance(p, DTensor) for p in learned), "nothing is split"
    optimizer = torch.optim.AdamW(learned, lr=0.1)
    for parameter in learned[::2]:  # some weights never had a gradient
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = whole_tensors(stage, optimizer)
    shared = [moved]
    dist.broadcast_object_list(shared, 0)
    moved = shared[0]
    with torch.no_grad():
        for parameter in learned:
            parameter.mul_(0.0)
    stage.zero_grad(set_to_none=True)  # as at the start of a run that goes on
    again = torch.optim.AdamW(learned, lr=0.1)
    put_whole_tensors(folder, stage, again, moved)
    back = whole_tensors(stage, again)
    if dist.get_rank() == 0:
        assert set(back) >= {f"weight.{name}" for name in before}
        assert all(torch.equal(back[name], value) for name, value in moved.items())
        changed = sum(not torch.equal(moved[f"weight.{k}"], v) for k, v in before.items())
        assert len(before) // 2 <= changed < len(before)
        folder.mkdir(exist_ok=True)
        save_file({k: v.contiguous() for k, v in back.items()}, folder / "weights.safetensors")
    dist.barrier()  # whoever leaves first must not cut off one that still gathers
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
