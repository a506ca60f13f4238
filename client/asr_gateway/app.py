"""The HTTP application: which door is where, and what holds for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import yaml
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from asr_client.errors import ClientError, ServerError

from . import openai_files, openai_models, openai_realtime, websocket
from .errors import error_response
from .gateway import Gateway
from .riva import RivaServer
from .settings import GatewaySettings

PAGE = Path(__file__).parent / "page"
_OPENAPI = yaml.safe_load(Path(__file__).with_name("openapi.yaml").read_text(encoding="utf-8"))
_SAFE = Headers(
    {  # the page loads nothing from elsewhere, and nothing may frame it
        "Content-Security-Policy": (
            "default-src 'self'; connect-src 'self' ws: wss:; worker-src 'self' blob:; "
            "media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # or after an update modules of two versions would meet
    }
).raw


def make_app(settings: GatewaySettings, gateway: Gateway | None = None) -> Starlette:
    """The application of one process.  Raises ValueError for a bad file of keys."""
    gateway = gateway or Gateway(settings)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await gateway.open()
            stack.push_async_callback(gateway.close)
            if settings.riva_port is not None:
                riva = RivaServer(gateway)
                draining = asyncio.create_task(riva.drain())
                stack.callback(draining.cancel)
                stack.push_async_callback(riva.stop)
                await riva.start()
            yield

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
            Mount(
                "/v1",
                routes=[
                    Route("/offer", offer),
                    Route("/models", openai_models.models),
                    Route("/models/{model:path}", openai_models.model),
                    Route("/audio/transcriptions", openai_files.transcriptions, methods=["POST"]),
                    WebSocketRoute("/realtime", openai_realtime.realtime),
                    WebSocketRoute("/stream", websocket.stream),
                    Route("/realtime", only_websocket),
                    Route("/stream", only_websocket),
                ],
            ),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[
            Middleware(Answered),
            Middleware(SafeHeaders),
            Middleware(Traced),
            Middleware(  # who may use this at all is checked apart: see Access.check_origin
                CORSMiddleware,
                allow_origins=settings.origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
            ),
        ],
        exception_handlers={
            ClientError: on_error,
            HTTPException: on_http_error,
            Exception: on_bug,
        },
        lifespan=lifespan,
    )
    app.state.gateway = gateway
    return app


async def openapi(_request: Request) -> Response:
    """What the HTTP doors take and answer."""
    return JSONResponse(_OPENAPI)


async def health(_request: Request) -> Response:
    """Whether this process answers."""
    return PlainTextResponse("ok\n")


async def ready(request: Request) -> Response:
    """Whether live streams are served, and this process takes new ones."""
    is_ready = await request.app.state.gateway.is_ready()
    return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)


async def metrics(request: Request) -> Response:
    return Response(request.app.state.gateway.metrics.page(), media_type="text/plain")


async def offer(request: Request) -> Response:
    """What there is to choose, for the page: languages, latencies, rates. 401 without a key."""
    gateway: Gateway = request.app.state.gateway
    gateway.access.caller(request.headers)
    return JSONResponse(await gateway.offered())


async def on_error(_request: Request, error: ClientError) -> Response:
    return error_response(error)


async def on_bug(_request: Request, _error: Exception) -> Response:
    return error_response(ServerError("INTERNAL: this gateway failed; its log tells of what"))


async def only_websocket(request: Request) -> Response:
    """What comes here without an upgrade is a mistake, or a proxy's."""
    reason = f"{request.url.path} is a WebSocket; does a proxy drop the Upgrade header?"
    raise HTTPException(426, reason, {"Upgrade": "websocket"})


async def on_http_error(request: Request, error: HTTPException) -> Response:
    status, detail, path = error.status_code, error.detail, request.url.path
    if status == 404 or (status == 405 and not path.startswith("/v1/")):  # else the page's answer
        status = 404
        detail = f"there is no {path}; OpenAI's base_url ends in /v1; see /openapi.json"
    body = {"message": detail, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": body}, status, error.headers)


class HttpLayer:
    """A layer around the application, for HTTP requests: all else passes it."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        around = self._request if scope["type"] == "http" else self._app
        await around(scope, receive, send)

    async def _request(self, scope, receive, send) -> None:
        raise NotImplementedError


class Answered(HttpLayer):
    """A request keeps the process from its end until its answer is out.

    In a drain that answer is the last of its connection: clients connect again, to a gateway that
    goes on.
    """

    async def _request(self, scope, receive, send) -> None:
        places = scope["app"].state.gateway.places

        async def send_all(message) -> None:
            if message["type"] == "http.response.start" and places.draining:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await send({**message, "more_body": True})
                message = {"type": message["type"], "body": b""}  # taken once that is sent
            await send(message)

        with places.answer():
            await self._app(scope, receive, send_all)


class Traced:
    """A request's spans belong to the trace that its headers tell of."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        with scope["app"].state.gateway.tracing.within(headers):
            await self._app(scope, receive, send)


class SafeHeaders(HttpLayer):
    """Adds headers that keep a browser from doing more with an answer than it should."""

    async def _request(self, scope, receive, send) -> None:
        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SAFE]
            await send(message)

        await self._app(scope, receive, send_with_headers)
