"""A stage in miniature, to be run by torchrun: FOLDER STEPS [resume]."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from avqa_llm.training.connect import train_connect
from tests.model_parts import small_model
from tests.test_training import connect, encoded, features, rows


def main() -> None:
    torch.set_num_threads(1)
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    model = small_model()
    given = features(encoded(model))
    # Without terms that compare the clips of a part, for which it matters which these are.
    config = connect(steps, missing=0.3, grounding=0.0)
    config = replace(config, loop=replace(config.loop, log_every=1))
    folder.mkdir(exist_ok=True)
    train_connect("s", model, rows(), given, config, folder=folder, resume=len(sys.argv) > 3)
    state = {}
    for name, parameter in [*model.bridge.named_parameters(), *model.llm.named_parameters()]:
        if parameter.requires_grad:
            state[name] = parameter.detach().clone()
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        save_file(state, folder / "weights.safetensors")


if __name__ == "__main__":
    main()
