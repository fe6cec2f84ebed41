"""The one tool that the page offers other programs, with and without the protocol around it."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import httpx
import pytest

import app.__main__ as door
from tests.app_world import DUO, Visitor, page

FIRST = "Which instrument comes in first?"


def uploaded(address: str) -> str:
    with DUO.open("rb") as file:
        reply = httpx.post(f"{address}gradio_api/upload", files={"files": file}, timeout=30)
    return str(reply.json()[0])


def test_the_tool_asks_about_an_upload_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = door.launching

    def without_protocol(args: argparse.Namespace, uploads: Path) -> dict[str, Any]:
        return real(argparse.Namespace(**{**vars(args), "mcp": False}), uploads)

    monkeypatch.setattr(door, "launching", without_protocol)
    with page(tmp_path / "uploads", "--mcp") as served:
        client = Visitor(served).client
        offered = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
        assert list(offered) == ["/ask_clip"]
        told = client.predict(uploaded(served.address), FIRST, "", api_name="/ask_clip")
        assert told["answer"]["answer"] == "guzheng" and told["model"] == "tiny"
        for strange in ("/etc/passwd", "http://127.0.0.1:1/clip.mp4", ""):
            told = client.predict(strange, FIRST, "", api_name="/ask_clip")
            assert told["answer"] is None and told["said"]


@pytest.mark.skipif(
    importlib.util.find_spec("mcp") is None, reason="needs pip install 'gradio[mcp]'"
)
def test_a_client_of_the_protocol_asks(tmp_path: Path) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def ask(address: str) -> Any:
        clip = uploaded(address)
        async with (
            streamablehttp_client(f"{address}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            assert [tool.name for tool in (await session.list_tools()).tools] == ["ask_clip"]
            return await session.call_tool("ask_clip", {"clip": clip, "question": FIRST})

    with page(tmp_path / "uploads", "--mcp") as served:
        found = asyncio.run(ask(served.address))
    assert not found.isError and "'answer': 'guzheng'" in found.content[0].text
