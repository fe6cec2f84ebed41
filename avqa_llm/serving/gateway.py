"""The gateway: OpenAI's protocol over HTTP in front of a `Service`.

/v1/chat/completions   ask; answers whole or as a stream
/v1/files              media that are asked about more than once
/v1/models             what is served; /v1/adapters adds and removes (administrators)
/health  /metrics      for those who run it
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match, Route

from avqa_llm.serving import metrics as figures
from avqa_llm.serving.bodies import body_schema, json_body
from avqa_llm.serving.chat import Chat, chat_routes
from avqa_llm.serving.contract import ModelInfo, Service, UnknownModelError
from avqa_llm.serving.files import Files, file_routes
from avqa_llm.serving.guards import Door
from avqa_llm.serving.intake import Intake
from avqa_llm.serving.links import Links
from avqa_llm.serving.metrics import Metrics
from avqa_llm.serving.middleware import USER, Checkpoint
from avqa_llm.serving.refusals import Refusal, for_strangers, refusal_of
from avqa_llm.serving.schema import (
    AdapterRequest,
    ChatRequest,
    Deleted,
    ErrorReply,
    Health,
    ModelCard,
    ModelList,
)
from avqa_llm.serving.settings import GatewaySettings
from avqa_llm.serving.uploads import Uploads

if TYPE_CHECKING:
    import uvicorn

__all__ = ["GatewaySettings", "create_app", "server"]

log = logging.getLogger("avqa.gateway")
_SWEEP_S = 60.0
_STATUSES = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)


def create_app(service: Service, settings: GatewaySettings) -> FastAPI:
    """The application. It does not close the service: who made it does.

    Raises:
        AVQAError: a file of keys cannot be read.
        OSError: the folder of uploads cannot be made.
    """
    door = Door(settings.keys_file, settings.admin_keys_file)
    uploads = Uploads(settings)
    links = Links(
        allowed_hosts=settings.allowed_hosts,
        max_bytes=settings.media.max_bytes,
        timeout_s=settings.link_timeout_s,
        redirects=settings.link_redirects,
    )
    intake, metrics = Intake(settings, uploads, links), Metrics(service.counters)
    chat, files = Chat(service, settings, intake, metrics), Files(settings, intake, metrics)
    metrics.gauge("avqa_running_now", "Answers under way.", lambda: chat.places.running)
    metrics.gauge("avqa_waiting_now", "Requests that wait.", lambda: chat.places.waiting)
    metrics.gauge("avqa_uploading_now", "Uploads being received.", lambda: files.places.running)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.ensure_future(_sweeping(intake))
        try:
            yield
        finally:
            sweeper.cancel()
            intake.close()

    app = FastAPI(
        title="avqa",
        summary="Ask a video, with its sound, a question.",
        version="1",
        lifespan=lifespan,
        responses={status: {"model": ErrorReply} for status in _STATUSES},
    )
    app.add_exception_handler(HTTPException, _as_error)
    app.add_exception_handler(RequestValidationError, _as_error)
    app.add_middleware(Checkpoint, settings=settings, door=door, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.state.routers = (
        chat_routes(chat),
        file_routes(files),
        _model_routes(service),
        _adapter_routes(service, settings, intake),
        _watch_routes(service, metrics, intake),
    )
    for router in app.state.routers:
        app.include_router(router)
    _describe(app, needs_key=door.keys is not None)
    return app


def server(app: FastAPI, settings: GatewaySettings, *, port: int) -> uvicorn.Server:
    """The app behind uvicorn, set up for strangers; `await` its `serve()`.

    `should_exit = True` ends it. Addresses are those of the connections, never what a header
    says, so that nobody gives itself another's.
    """
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=port,
            proxy_headers=False,
            server_header=False,
            ws="none",
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=10,
            h11_max_incomplete_event_size=1 << 16,
            log_level="warning",
            access_log=False,
        )
    )


async def _sweeping(intake: Intake) -> None:
    while True:
        try:
            await intake.aside(intake.uploads.sweep)
        except OSError as error:
            log.warning("expired uploads could not be removed: %s", error)
        await asyncio.sleep(_SWEEP_S)


async def _as_error(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself, in OpenAI's words."""
    if isinstance(error, RequestValidationError):
        fault = error.errors()[0]
        field = ".".join(str(step) for step in fault["loc"][1:])[:200]
        refusal = Refusal(
            400, f"{field}: {fault['msg']}"[:500], code="invalid_request", param=field or None
        )
    else:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:  # the framework names those of one route only
            headers["Allow"] = ", ".join(_methods(request))
        refusal = Refusal(error.status_code, str(error.detail), code="http", headers=headers)
    return JSONResponse(refusal.body(), refusal.status, headers=refusal.headers)


def _methods(request: Request) -> list[str]:
    """What may be done with the path of a request."""
    groups = (request.app.routes, *(router.routes for router in request.app.state.routers))
    there = [route for group in groups for route in group if isinstance(route, Route)]
    at = [route for route in there if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in at for method in route.methods or ()})


# -- routes ------------------------------------------------------------------------------------


def _model_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", summary="What is served")
    async def list_models() -> ModelList:
        return ModelList(data=[_card(info) for info in service.models()])

    @router.get("/v1/models/{model}", summary="One served model")
    async def get_model(model: str) -> ModelCard:
        for info in service.models():
            if info.name == model:
                return _card(info)
        raise refusal_of(UnknownModelError("No model of that name is served here."))

    return router


def _card(info: ModelInfo) -> ModelCard:
    return ModelCard(id=info.name, created=info.created, root=info.base, avqa=info.about)


def _adapter_routes(service: Service, settings: GatewaySettings, intake: Intake) -> APIRouter:
    router = APIRouter(tags=["administration"])

    @router.post(
        "/v1/adapters",
        summary="Serve another adapter from now on",
        openapi_extra=body_schema(AdapterRequest),
    )
    async def add(request: Request) -> ModelCard:
        _check_admin(request)
        body = await json_body(request, AdapterRequest, intake)
        folder = _below(settings.adapters_folder, body.folder)
        if any(info.name == body.name for info in service.models()):
            raise Refusal(
                409, "A model of that name is served already.", code="exists", param="name"
            )
        return _card(await service.add_adapter(body.name, folder))

    @router.delete("/v1/adapters/{name}", summary="Serve an adapter no longer")
    async def remove(request: Request, name: str) -> Deleted:
        _check_admin(request)
        await service.remove_adapter(name)
        return Deleted(id=name, object="adapter")

    return router


def _check_admin(request: Request) -> None:
    user = request.scope[USER]
    if user is None or not user.is_admin:
        raise Refusal(403, "This needs the key of an administrator.", code="no_administrator")


def _below(root: Path | None, name: str) -> Path:
    """A folder of the server's, if it lies where adapters may. Raises Refusal."""
    if root is None:
        raise Refusal(403, "This server takes no adapters while it runs.", code="adapters_off")
    try:
        folder = (root / name).resolve()
        is_there = folder.is_relative_to(root.resolve()) and folder.is_dir()
    except (OSError, ValueError):
        is_there = False
    if not is_there or folder == root.resolve():
        raise Refusal(
            404, "There is no such folder of adapters.", code="folder_not_found", param="folder"
        )
    return folder


def _watch_routes(service: Service, metrics: Metrics, intake: Intake) -> APIRouter:
    router = APIRouter(tags=["watching"])

    @router.get("/health", summary="Whether questions can be answered")
    async def health(request: Request) -> JSONResponse:
        found = service.health()
        status = 503 if found.get("status") == "starting" else 200
        if request.scope[USER] is None:  # somebody without a key: no more than has to be known
            found = {"status": found.get("status", "ok")}
        told = {key: _told(value) for key, value in found.items()}
        return JSONResponse(Health(**told).model_dump(mode="json"), status)

    @router.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def show() -> Response:
        metrics.stored.set((await intake.aside(intake.uploads.total))[1])
        return Response(metrics.text(), media_type=figures.CONTENT_TYPE)

    return router


def _told(value: Any) -> Any:
    return for_strangers(value) if isinstance(value, str) else value


# -- OpenAPI -----------------------------------------------------------------------------------


def _describe(app: FastAPI, *, needs_key: bool) -> None:
    """Let the schema say what is really so: bodies that we read ourselves, errors, keys."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
            parts = schema.setdefault("components", {}).setdefault("schemas", {})
            for model in (ChatRequest, AdapterRequest):
                _add_schema(parts, model)
            for path, methods in schema["paths"].items():
                for operation in methods.values():
                    operation["responses"].pop("422", None)
                    if needs_key and path != "/health":
                        operation["security"] = [{"key": []}]
            if needs_key:
                key = {"type": "http", "scheme": "bearer"}
                schema["components"]["securitySchemes"] = {"key": key}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_schema(parts: dict[str, Any], model: type[BaseModel]) -> None:
    found = model.model_json_schema(ref_template="#/components/schemas/{model}")
    parts.update(found.pop("$defs", {}))
    parts[model.__name__] = found
