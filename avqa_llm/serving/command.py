"""`avqa serve`: what starts, in which order, and how it ends.

The port is taken first, so that a busy one is known at once; then vLLM or the local engine is
loaded, then the gateway listens. SIGINT and SIGTERM end all of it: the gateway lets answers under
way end, and vLLM is stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avqa_llm.errors import AVQAError
from avqa_llm.folders import user_cache
from avqa_llm.presets import CHECKOUT, PRESETS, find_model
from avqa_llm.serving.vllm_env import MEND, VLLMEnv, check, find_python

if TYPE_CHECKING:
    from avqa_llm.serving.contract import Service
    from avqa_llm.serving.houses import House
    from avqa_llm.serving.settings import GatewaySettings

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
INSTALL = "pip install -c requirements.txt -e '.[serve]'"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAMPLE = CHECKOUT / "app" / "samples" / "duo.mp4"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which engine answers, and why."""

    engine: str
    why: str
    env: VLLMEnv


def run(args: argparse.Namespace) -> int:
    """Serve until told to end; or with `--check` say what is missing."""
    _check_rest(args.more)
    choice = choose(args.engine, args.vllm_python, args.vllm_url)
    if args.check:
        return _print_check(args, choice)
    _require(args, choice)
    adapters = adapters_of(args.adapter)
    if args.more and (choice.engine == "local" or args.vllm_url):
        raise AVQAError(
            f"{' '.join(args.more)}: options of vLLM need --engine vllm, and one that is started"
        )
    with _until_told(), _bound(args.host, args.port) as listener:
        return _serve(args, choice, adapters, listener)


def choose(wanted: str | None, python: Path | None, url: str | None = None) -> Choice:
    """The engine that is wanted; where none is: vLLM if it runs, or its environment is complete."""
    if wanted == "local":
        return Choice(engine="local", why="as --engine says", env=VLLMEnv(python=None))
    if url:
        return Choice(engine="vllm", why=f"the vLLM at {url}", env=VLLMEnv(python=None))
    env = check(find_python(python))
    if wanted == "vllm":
        return Choice(engine="vllm", why="as --engine says", env=env)
    if env.problems:
        return Choice(engine="local", why=f"without vLLM: {env.problems[0]}", env=env)
    return Choice(engine="vllm", why=f"vLLM {env.version} at {env.python}", env=env)


# -- what has to be there ------------------------------------------------------------------------


def obstacles(args: argparse.Namespace, choice: Choice) -> list[str]:
    """What stands in the way, each with what mends it."""
    found = []
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        found.append(f"the gateway needs {', '.join(missing)}: {INSTALL}")
    if choice.engine == "vllm":
        found += choice.env.problems
    if is_foreign(args.model):
        if choice.engine == "local":
            found.append(
                f"{args.model} is a model of the hub that hears by itself, which only --engine vllm"
                f" serves: `{MEND}`"
            )
        if args.adapter:
            found.append(f"{args.model} takes no --adapter: it is served as it is")
    else:
        try:
            find_model(args.model)
        except AVQAError as error:
            found.append(str(error))
    if args.host not in LOOPBACK and args.keys is None:
        found.append(
            f"--host {args.host} can be reached from other machines, and without --keys FILE"
            " anybody there could ask: make a key with `python -m avqa_llm.serving.new_key FILE`"
            " and give --keys FILE, or stay on 127.0.0.1"
        )
    for option, file in (("--keys", args.keys), ("--admin-keys", args.admin_keys)):
        if file is not None and not file.is_file():
            found.append(
                f"{option} {file} is no file: make it with"
                f" `python -m avqa_llm.serving.new_key {file}`"
            )
    return found


def _require(args: argparse.Namespace, choice: Choice) -> None:
    if found := obstacles(args, choice):
        raise AVQAError("; ".join(found))


def _print_check(args: argparse.Namespace, choice: Choice) -> int:
    """`--check`: the engine, what is missing, and the command that mends it."""
    print(f"engine: {choice.engine} ({choice.why})")
    for note in choice.env.notes:
        print(f"note: {note}")
    found = obstacles(args, choice)
    for one in found:
        print(f"missing: {one}")
    if choice.engine == "local" and args.engine is None:
        for problem in choice.env.problems:
            print(f"for --engine vllm: {problem}")
    print("not ready" if found else f"ready: avqa serve --model {args.model}")
    return 1 if found else 0


def _check_rest(more: list[str]) -> None:
    if more and not more[0].startswith("-"):
        raise AVQAError(
            f"{more[0]!r} is no option of `avqa serve`; options of vLLM stand after `--`, such as"
            " -- --tensor-parallel-size 2"
        )


def adapters_of(given: list[str]) -> dict[str, Path]:
    """`NAME=DIR` words. Raises AVQAError for others, and for a name that comes twice."""
    found: dict[str, Path] = {}
    for word in given:
        name, mark, folder = word.partition("=")
        if not mark or not name or not folder:
            raise AVQAError(f"--adapter {word!r}: write NAME=DIR")
        if name in found:
            raise AVQAError(f"--adapter {name!r} is given twice; choose another name")
        found[name] = Path(folder)
    return found


def is_foreign(model: str) -> bool:
    """Whether a model is none of ours: a checkpoint, or a name on the hub such as `Qwen/…`."""
    folder = Path(model)
    if model in PRESETS:
        return False
    if folder.is_dir():
        return (folder / "config.json").exists() and not (folder / "avqa.json").exists()
    return HUB_NAME.fullmatch(model) is not None


# -- serving -------------------------------------------------------------------------------------


def _serve(
    args: argparse.Namespace, choice: Choice, adapters: dict[str, Path], listener: socket.socket
) -> int:
    from avqa_llm.devices import prepare_cpu
    from avqa_llm.serving.catalogue import default_name
    from avqa_llm.serving.service import ServiceSettings
    from avqa_llm.serving.settings import GatewaySettings

    prepare_cpu()
    store = args.store or user_cache() / "serve"
    gateway = GatewaySettings(
        folder=store / "uploads",
        host=args.host,
        keys_file=args.keys,
        admin_keys_file=args.admin_keys,
        adapters_folder=args.adapters_folder,
        allowed_hosts=tuple(args.allow_host),
        **({} if args.rate is None else {"rate_per_s": args.rate}),
    )
    bounds = ServiceSettings(
        store=store / "features",
        decoders=os.cpu_count() or 1,
        deadline_s=gateway.request_timeout_s,
        limits=gateway.media,
    )
    name = args.name or default_name(args.model)
    print(f"avqa serve: {choice.engine} ({choice.why}); loading {name}", flush=True)
    service = _service(args, choice, name, adapters, bounds)
    asyncio.run(_listen(service, gateway, listener))
    print("avqa serve: ended", flush=True)
    return 0


def _service(
    args: argparse.Namespace, choice: Choice, name: str, adapters: dict[str, Path], bounds: Any
) -> Service:
    """Load everything; what was started is stopped if that fails."""
    from avqa_llm.serving.houses import LocalHouse, VLLMHouse
    from avqa_llm.serving.service import AVQAService

    house: House
    if choice.engine == "local":
        house = LocalHouse(bounds.cache())
    else:
        if not args.vllm_url:
            print("avqa serve: vLLM is starting, which takes a minute or more", flush=True)
        how = {"python": choice.env.python, "port": args.vllm_port, "more": tuple(args.more)}
        if is_foreign(args.model):
            return _omni(args, name, bounds, how)
        cache = bounds.cache()
        if args.vllm_url:
            house = VLLMHouse.attach(args.vllm_url, cache=cache)
        else:
            house = VLLMHouse.start(find_model(args.model), name, adapters, cache=cache, **how)
    try:
        service = AVQAService(house, args.model, name=name, adapters=adapters, settings=bounds)
        service.catalogue.warm()
    except BaseException:
        house.stop()
        raise
    return service


def _omni(args: argparse.Namespace, name: str, bounds: Any, how: dict[str, Any]) -> Service:
    """A model of the hub that hears and sees by itself."""
    from avqa_llm.serving.omni_service import OmniService
    from avqa_llm.serving.vllm_client import VLLMClient
    from avqa_llm.serving.vllm_process import VLLMProcess, VLLMSettings

    if args.vllm_url:
        client = VLLMClient(args.vllm_url, key=os.environ.get("AVQA_VLLM_KEY", ""))
        client.models()
        return OmniService(client, name=name, settings=bounds)
    process = VLLMProcess(VLLMSettings(base=args.model, base_name=name, native=True, **how))
    process.start()
    return OmniService(process.client, name=name, process=process, settings=bounds)


async def _listen(service: Service, settings: GatewaySettings, listener: socket.socket) -> None:
    """Until a signal comes."""
    from avqa_llm.serving.gateway import create_app, server

    try:
        own = server(create_app(service, settings), settings, port=listener.getsockname()[1])

        def end() -> None:
            own.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end)
        serving = asyncio.ensure_future(own.serve(sockets=[listener]))
        while not own.started and not serving.done():
            await asyncio.sleep(0.02)
        if own.started:
            print(_ready(service, listener), flush=True)
        await serving
    finally:
        await service.close()


def _ready(service: Service, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    names = [info.name for info in service.models()]
    part = '{"type":"file","file":{"file_id":"ID"}}'
    text = '{"type":"text","text":"Which instrument comes in first?"}'
    body = f'{{"model":"{names[0]}","messages":[{{"role":"user","content":[{part},{text}]}}]}}'
    return "\n".join(
        (
            f"avqa serve: ready at {address} with {', '.join(names)}",
            f"  curl {address}/v1/files -F file=@{SAMPLE if SAMPLE.exists() else 'clip.mp4'}",
            f"  curl {address}/v1/chat/completions -H 'Content-Type: application/json' -d \\",
            f"    '{body}'",
        )
    )


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket on the address. Raises AVQAError if it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends at once (TCP_NODELAY) only where it sees that the protocol is TCP; without
        # it, every reply of more than one piece waits 40 ms for the other side to acknowledge.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise AVQAError(f"--host {host}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1024)
        except OSError as error:
            raise AVQAError(
                f"{host} port {port} cannot be had ({error}); choose another --port, 0 for a free"
                " one"
            ) from error
        yield listener
    finally:
        with suppress(OSError):
            listener.close()


@contextmanager
def _until_told() -> Iterator[None]:
    """SIGTERM ends what is being started as Ctrl-C does: so that it is cleaned up."""

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.stdout.flush()
