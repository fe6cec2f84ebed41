"""Making the processor ready for what torch will ask of it."""

from __future__ import annotations

import os
import subprocess
import sys

_PROBE = """
import sys
import torch
from avqa_llm.devices import prepare_cpu
prepare_cpu()
torch.manual_seed(0)
tries = [(torch.nn.Linear(64, 64), (64, 64)), (torch.nn.Conv3d(8, 8, 3), (2, 8, 5, 5, 5))]
if "patches" in sys.argv:
    tries.append((torch.nn.Conv2d(6, 160, (12, 16), (12, 16)), (10, 6, 72, 128)))
for layer, shape in tries:
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


def prepare_training(threads: int | None = None, *, patches: bool = True) -> None:
    """`prepare_cpu`, and make sure that bf16 works and is right.

    On some virtual machines that announce AMX every bf16 product is an illegal instruction, and
    where that was worked around, one convolution came out wrong: cutting a picture into patches
    read 3 of every 16 pixels. What the caller will compute is tried in a process of its own, and
    if it fails, oneDNN is told to leave AMX alone, which takes twice as long.
    Call this before torch computes anything.

    Args:
        threads: of the processor; None: all.
        patches: whether pictures or spectrograms are cut into patches in bf16. Frozen encoders
            compute in full precision, and bridges have no such convolution.
    """
    if "ONEDNN_MAX_CPU_ISA" not in os.environ:
        command = [sys.executable, "-c", _PROBE, *(["patches"] if patches else [])]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"
            print("note: bf16 on this processor's AMX unit fails; going on without it (slower)")
    prepare_cpu(threads)
