"""Loading from a directory without the chatter of the libraries that load."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger
from pathlib import Path


@contextmanager
def quiet_loading(source: str | Path) -> Iterator[None]:
    """No progress bar where nothing is fetched, and no notice that only other libraries can heed.

    A hub name keeps its bars: a download wants them.
    """
    from transformers.utils import logging

    # bitsandbytes misses optional kernels for products in 4 bits, whatever is being loaded.
    getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
    bars = Path(source).is_dir() and logging.is_progress_bar_enabled()
    if bars:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft 0.19 asks transformers 5 by the old name. To be removed when it does not.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            yield
    finally:
        if bars:
            logging.enable_progress_bar()
