"""What our vLLM servers have beside stock vLLM. Runs in their environment: stdlib only.

`vllm_process` puts this folder on their PYTHONPATH; nothing is installed into that environment.
"""

from __future__ import annotations

import ctypes
import hmac
import os
import signal
import sys
from typing import Any

SERVER = "vllm.entrypoints.openai.api_server"
OPEN = ("/health",)
PR_SET_PDEATHSIG = 1


def prepare() -> None:
    """Ask the kernel for the AMX tiles; vLLM runs this in each of its processes.

    Without it the first product kills a process on processors with AMX (torch 2.13). The
    function is private, and absent or harmless elsewhere.
    """
    import torch

    try:
        torch.cpu._init_amx()
    except AttributeError:
        pass


class Guard:
    """ASGI middleware: nothing but the health is told without the key.

    vLLM's own check covers some prefixes only: `/invocations` answers anybody.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.wanted = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on, or answer 401."""
        if scope["type"] == "lifespan" or scope.get("path") in OPEN or self._knows(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b'{"error": "no or wrong key"}'})

    def _knows(self, scope: Any) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self.wanted)


def main() -> None:
    """Become the server, which is told to end when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # outlives execv
    os.execv(sys.executable, [sys.executable, "-m", SERVER, *sys.argv[1:]])


if __name__ == "__main__":
    main()
