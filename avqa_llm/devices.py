"""Making the processor ready for what torch will ask of it."""

from __future__ import annotations


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
