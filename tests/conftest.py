"""Settings that must hold before anything else is imported: tests ask no network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["LANGSMITH_TRACING"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as cores: two threads each would only be in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
