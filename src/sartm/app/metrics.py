"""/metrics: what an operator graphs and is woken by, in Prometheus' format."""

import os
import time
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as write_metrics
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sartm.app.worker import Worker

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)


class Metrics:
    """The counts of one service; each process has its own, and Prometheus adds them up."""

    def __init__(self, worker: Worker) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "sartm_requests", "Requests answered.", ["method", "path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "sartm_request_seconds", "From the head of a request to its answer.", ["path"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        phases = Histogram(
            "sartm_phase_seconds", "Waiting for a turn, decoding images, computing.", ["phase"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        present = Gauge(
            "sartm_requests_present", "Requests with a place, computed or waiting.",
            registry=registry,
        )  # fmt: skip
        present.set_function(lambda: worker.present)
        room = Gauge("sartm_requests_room", "Places; beyond them 429.", registry=registry)
        room.set(worker.room)
        memory = Gauge("sartm_memory_bytes", "Resident, of this process.", registry=registry)
        memory.set_function(resident_bytes)
        worker.observe = lambda phase, seconds: phases.labels(phase).observe(seconds)

    def answer(self) -> Response:
        """The page that Prometheus reads."""
        return Response(write_metrics(self.registry), media_type=CONTENT_TYPE_LATEST)


def resident_bytes() -> float:
    """Memory of this process; NaN where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return float("nan")
    return float(pages * os.sysconf("SC_PAGE_SIZE"))  # 64 KiB on some processors


class Metered:
    """ASGI middleware that counts what is answered, by patterns of paths, which are few."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and count."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), 499  # of a client that went away

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            path = getattr(scope.get("route"), "path", "refused")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.requests.labels(method, path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - begun)


_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


def add_metrics(app: FastAPI, worker: Worker) -> None:
    """Serve /metrics, which needs no token as it tells only numbers, and count from now on."""
    metrics = Metrics(worker)

    async def serve_metrics() -> Response:
        return metrics.answer()

    app.add_api_route("/metrics", serve_metrics, include_in_schema=False)
    app.add_middleware(Metered, metrics=metrics)
