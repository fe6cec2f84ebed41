"""`python -m app`: the chat page in a browser."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avqa_llm.errors import AVQAError

MCP = "--mcp needs the protocol's package, which is not installed: pip install 'gradio[mcp]'"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def parser() -> argparse.ArgumentParser:
    """The options of the page."""
    found = argparse.ArgumentParser(prog="python -m app", description="The chat page.")
    add = found.add_argument
    add("--model", action="append", default=[], metavar="MODEL",
        help="tiny (the default), a model directory, or openai:NAME for a model behind --base-url;"
        " may be given several times, the page then lets one choose")  # fmt: skip
    add("--adapter", action="append", default=[], metavar="NAME=DIR",
        help="an adapter of our first model, offered beside it; may be repeated")  # fmt: skip
    add("--base-url", default="", help="of an OpenAI-compatible server")
    add("--key-env", default="OPENAI_API_KEY", help="environment variable with the server's key")
    add(
        "--whisper", default="", metavar="MODEL", help="for questions by voice: a name or directory"
    )
    add("--runs", type=Path, default=Path("runs"), help="folder of evaluation runs to show")
    add("--feedback", type=Path, default=Path("runs/feedback.sqlite"), metavar="FILE",
        help="where ratings are kept of visitors who agree")  # fmt: skip
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=7860, help="0: a free one")
    add("--open", action="store_true", help="open a browser when the page is there")
    add("--share", action="store_true", help="a public link; needs --auth")
    add("--auth", type=Path, metavar="FILE", help="who may enter: a line USER:PASSWORD for each")
    add(
        "--mcp",
        action="store_true",
        help="offer a tool of the Model Context Protocol: ask about a clip",
    )
    add("--max-mb", type=float, default=200, help="of an upload, in megabytes")
    add("--max-seconds", type=float, default=120, help="of a clip")
    add("--keep-minutes", type=float, default=120, help="uploads that are older are deleted")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until it is interrupted; 2 after a fault of the input."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    uploads = Path(tempfile.mkdtemp(prefix="avqa-app-")).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # what other programs uploaded is not ours
    try:
        served = Served(args, uploads)
        print(f"The page is at {served.address} (stop it with Ctrl-C)", flush=True)
        served.wait()
    except AVQAError as error:
        print(f"app: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(uploads, ignore_errors=True)
    return 0


class Served:
    """The page with its models, being served."""

    def __init__(self, args: argparse.Namespace, uploads: Path) -> None:
        """Load the models and start. Raises AVQAError."""
        how = launching(args, uploads)
        from app.backstage import Backstage
        from app.handlers import Handlers
        from app.models import Models, options_of, own_models
        from app.page import Offer, build
        from app.rating import Ratings
        from app.talk import Talk
        from app.viewing import Looks
        from app.voice import Voice
        from avqa_llm.media import MediaLimits

        limits = MediaLimits(
            max_bytes=round(args.max_mb * 10**6), max_seconds=args.max_seconds, timeout_s=60
        )
        options = options_of(
            args.model, args.adapter, base_url=args.base_url, key_env=args.key_env, limits=limits
        )
        voice = Voice(args.whisper)
        self.models = Models(options, Backstage())
        talk = Talk(self.models, Looks(limits), uploads)
        offer = Offer(
            models=tuple(self.models.names),
            voice=voice.is_there,
            runs=args.runs if args.host in LOOPBACK and not args.share else None,
            evaluated=tuple(own_models(args.model)) or ("tiny",),
            mcp=args.mcp,
            expires_s=round(60 * args.keep_minutes),
        )
        self.page = build(Handlers(talk, voice, Ratings(args.feedback)), offer)
        _, local, public = self.page.launch(**how)
        self.address = public or local

    def wait(self) -> None:
        """Until it is interrupted."""
        try:
            self.page.block_thread()
        finally:
            self.close()

    def close(self) -> None:
        """Stop."""
        self.page.close(verbose=False)
        self.models.close()


def launching(args: argparse.Namespace, uploads: Path) -> dict[str, Any]:
    """What the page is launched with. Raises AVQAError for what would be unsafe or cannot work."""
    auth = allowed(args.auth) if args.auth else None
    if args.share and not auth:
        raise AVQAError("--share puts the page on the internet: say with --auth FILE who may enter")
    if args.host not in LOOPBACK and not auth:
        raise AVQAError(f"--host {args.host} lets others in: say with --auth FILE who may enter")
    if args.mcp and importlib.util.find_spec("mcp") is None:
        raise AVQAError(MCP)
    if importlib.util.find_spec("gradio") is None:
        raise AVQAError("the page needs gradio: pip install -c requirements.txt -e '.[app]'")
    from starlette.middleware import Middleware

    from app.guard import Guard
    from app.looks import CSS, HEAD, theme
    from app.page import STYLE

    return {
        "server_name": args.host,
        "server_port": args.port or None,
        "share": args.share,
        "auth": auth,
        "mcp_server": args.mcp or None,
        "max_file_size": round(args.max_mb * 10**6),
        "theme": theme(),
        "css": CSS + STYLE,
        "head": HEAD,
        "app_kwargs": {"middleware": [Middleware(Guard, uploads=uploads)]},
        "prevent_thread_lock": True,
        "quiet": True,
        "ssr_mode": False,
        "footer_links": ["api"],
        "inbrowser": args.open,
    }


def allowed(path: Path) -> list[tuple[str, str]]:
    """Users and passwords of a file. Raises AVQAError where a line is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AVQAError(f"--auth {path}: cannot be read ({error})") from error
    pairs = [tuple(line.strip().partition(":")[::2]) for line in lines if line.strip()]
    if not pairs or not all(user and word for user, word in pairs):
        raise AVQAError(f"--auth {path}: write a line USER:PASSWORD for each who may enter")
    return [(str(user), str(word)) for user, word in pairs]


if __name__ == "__main__":
    sys.exit(main())
