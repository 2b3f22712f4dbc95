"""`sartm app`: the REST API and the page that uses it, in one process."""

import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from math import ceil
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from torch.nn.modules.module import register_module_forward_pre_hook

from sartm import __version__
from sartm.app.annotation import Annotation
from sartm.app.clicks import router as clicks_router
from sartm.app.decoding import Decoder
from sartm.app.examples import router as examples_router
from sartm.app.guard import Guard, Limits, check_token
from sartm.app.metrics import add_metrics
from sartm.app.problems import problem
from sartm.app.routes import router
from sartm.app.scenes import Scenes
from sartm.app.schema import Problem
from sartm.app.service import Service
from sartm.app.values import router as values_router
from sartm.app.worker import Worker
from sartm.classes import Classes
from sartm.errors import InputError
from sartm.inference.devices import Precision
from sartm.inference.predictor import Predictor
from sartm.inference.stopping import check_stop
from sartm.io.thermal import ThermalRange
from sartm.model.hub import bundled_models
from sartm.model.loading import load

log = logging.getLogger("sartm")

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
DECODE_BYTES, DECODE_BYTES_PER_PIXEL = 2**28, 64
"""Memory for decoding: 16-bit colour with transparency takes 8 bytes a pixel, a few times over."""
PAGES = {"/": "index.html", "/docs": "docs.html"}
PARTS = {
    ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".webp": "image/webp",
}  # fmt: skip
"""Content types of what the pages load, which is served under its file's name."""


def load_predictors(
    sources: Sequence[str],
    *,
    device: str = "auto",
    precision: Precision = "auto",
    thermal_range: ThermalRange | str = "auto",
    classes: Classes | None = None,
    text_encoder: str = "",
) -> dict[str, Predictor]:
    """Models by the names that requests use: the bundled name, else the last part of the source.

    Args:
        sources: whatever `sartm.load` takes; empty: every bundled model.
        device: where they run.
        precision: number format.
        thermal_range: of requests that do not say another, as `Predictor` takes it.
        classes: of requests that name none; None: each model's own.
        text_encoder: as `load` takes it.

    Raises:
        InputError: there is no bundled model, one cannot be loaded, or no such range.
    """
    names = list(sources) or list(bundled_models())
    if not names:
        raise InputError("no model comes with this installation; name one with --model")
    predictors: dict[str, Predictor] = {}
    for source in names:
        model = load(source, classes=classes, text_encoder=text_encoder)
        predictor = Predictor(
            model, device=device, precision=precision, thermal_range=thermal_range
        )
        name = plain = source if source in bundled_models() else _short_name(source)
        number = 2
        while name in predictors:
            name, number = f"{plain}-{number}", number + 1
        predictors[name] = predictor
    return predictors


def _short_name(source: str) -> str:
    """runs/street/best -> street-best: nobody's whole path goes into an answer."""
    path = Path(source).resolve()
    return f"{path.parent.name}-{path.name}" if path.name == "best" else path.stem


def create_app(
    predictors: dict[str, Predictor],
    *,
    limits: Limits = Limits(),
    token: str = "",
    hosts: tuple[str, ...] = (),
    annotation: Annotation | None = None,
) -> FastAPI:
    """The ASGI application.

    Args:
        predictors: by the names that requests use; the first is the default.
        limits: of uploads, pixels, waiting requests and time.
        token: needed for everything below /v1; empty: nobody needs one.
        hosts: names that the Host header may have, without port, beside bare addresses; empty: any.
        annotation: the folder to annotate, if any.

    Raises:
        InputError: there are no predictors, or no header can carry the token.
    """
    if not predictors:
        raise InputError("no model to serve; name one with --model")
    token = check_token(token) if token else ""
    decoder = Decoder(DECODE_BYTES + DECODE_BYTES_PER_PIXEL * limits.pixels)
    worker = Worker(limits.waiting, limits.seconds, decoder)
    scenes = Scenes(limits.scenes, limits.scene_bytes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stops = register_module_forward_pre_hook(lambda *_: check_stop())
        yield
        worker.close()
        stops.remove()

    app = FastAPI(
        title="SARTM",
        version=__version__,
        description="RGB-thermal semantic segmentation. Errors are application/problem+json.",
        docs_url=None,  # the usual pages load their scripts from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = Service(predictors, limits, worker, annotation, scenes)
    for part in (router, values_router, clicks_router, examples_router):
        app.include_router(part)
    _add_pages(app)
    app.add_exception_handler(InputError, _input_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)
    app.add_middleware(Guard, worker=worker, limits=limits, token=token, hosts=hosts)
    add_metrics(app, worker)
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]
    return app


def _add_pages(app: FastAPI) -> None:
    static = resources.files("sartm.app") / "static"
    served = [(path, static / name, "text/html") for path, name in PAGES.items()]
    for file in static.iterdir():
        if kind := PARTS.get(Path(file.name).suffix):
            served.append((f"/{file.name}", file, kind))
    for path, file, kind in served:
        app.add_api_route(path, _serve_file(file.read_bytes(), kind), include_in_schema=False)


def _serve_file(content: bytes, kind: str) -> Callable[[], Any]:
    async def serve_file() -> Response:
        return Response(content, media_type=kind)

    return serve_file


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        parts = schema["components"]["schemas"]
        parts["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            parts.pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema


async def _input_error(_: Request, error: Exception) -> Response:
    return problem(422, str(error))


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()]
    return problem(422, "; ".join(found[:5])[:1000])


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return problem(error.status_code, str(error.detail), headers)


async def _unexpected_error(_: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return problem(500, "this is a fault of the service; its log says more")


def serve(app: FastAPI, host: str, port: int) -> None:
    """Answer until told to stop (SIGTERM, Ctrl+C): then whoever is in is answered, nobody let in.

    A second Ctrl+C ends it at once.

    Raises:
        InputError: the address cannot be used.
    """
    import uvicorn

    from sartm.app.connections import Connection

    seconds = app.state.service.limits.seconds  # no request takes longer
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=ceil(seconds), http=Connection, ws="none",
    )  # fmt: skip
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # from here on nobody is refused
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another --port or "
            f"--host"
        ) from None
    name = f"[{host}]" if ":" in host else host
    log.info("http://%s:%d/  (stop with Ctrl+C)", name, listener.getsockname()[1])
    with listener:
        uvicorn.Server(config).run(sockets=[listener])
