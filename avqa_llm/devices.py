"""Making the processor ready for what torch will ask of it."""

from __future__ import annotations

import os
import subprocess
import sys

_PROBE = """
import torch
from avqa_llm.devices import prepare_cpu
prepare_cpu()
torch.manual_seed(0)
layers = torch.nn.Linear(64, 64), torch.nn.Conv2d(6, 160, (12, 16), (12, 16))
for layer, shape in zip(layers, ((64, 64), (10, 6, 72, 128))):
    given = torch.randn(shape)
    with torch.no_grad():
        exact = layer(given)
        near = layer.bfloat16()(given.bfloat16()).float()
    if (near - exact).norm() > 0.05 * exact.norm():
        raise SystemExit(1)
"""


def prepare_cpu(threads: int | None = None) -> None:
    """Ask the kernel for the AMX tiles before the first bf16 product, and set the threads.

    On processors with AMX, torch 2.13 kills the process with an illegal instruction when a
    bf16 product comes before the permission to use the tiles was asked for. The two
    functions are private; both are absent or harmless elsewhere. To be removed when torch
    asks by itself.
    """
    import torch

    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    if supported is not None and supported():
        torch.cpu._init_amx()
    if threads is not None:
        torch.set_num_threads(threads)


def prepare_training(threads: int | None = None) -> None:
    """`prepare_cpu`, and make sure that bf16 works and is right.

    On some virtual machines that announce AMX every bf16 product is an illegal instruction, and
    where that was worked around, a convolution came out wrong: it read 3 of every 16 pixels.
    Both are tried in a process of its own, and if it fails, oneDNN is told to leave AMX alone.
    Call this before torch computes anything.
    """
    if "ONEDNN_MAX_CPU_ISA" not in os.environ:
        probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=False)
        if probe.returncode:
            os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"
            print("note: bf16 on this processor's AMX unit fails; going on without it (slower)")
    prepare_cpu(threads)
