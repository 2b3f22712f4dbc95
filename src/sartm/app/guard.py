"""What every request passes before anything reads it: who asks, from where, how much, how many."""

import asyncio
import hmac
import json
import time
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sartm.app.worker import DEADLINE, Worker

SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
OPEN_PATHS = frozenset({"/v1/models"})
"""Below /v1 and yet without a place in the queue: they answer at once and read nothing."""


@dataclass(frozen=True)
class Limits:
    """What one request and all of them together may take."""

    upload: int = 32 * 2**20
    """Bytes of a request's body."""
    pixels: int = 16_000_000
    """Height x width of an image: a 12-megapixel photograph passes."""
    waiting: int = 32
    """Requests that wait while one is computed; further ones get 429."""
    seconds: float = 60.0
    """From a request's first byte to its answer."""


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as application/problem+json (RFC 9457)."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(json.dumps(content), status, headers, "application/problem+json")


class Guard:
    """ASGI middleware: names of this host, origin, token, body size, places, security headers."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        worker: Worker,
        limits: Limits,
        token: str = "",
        hosts: tuple[str, ...] = (),
    ) -> None:
        self.app, self.worker, self.limits = app, worker, limits
        self.token = token.encode()
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is refused; hand the rest on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _secured(send, scope["path"])
        refusal = self._refuse(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if not _takes_place(scope["path"]):
            await self.app(scope, receive, send)
            return
        if not self.worker.enter(scope):
            busy = f"{self.limits.waiting} requests are waiting already; try again in a moment"
            await problem(429, busy, {"retry-after": "1"})(scope, receive, send)
            return
        try:
            limited = _limited(receive, self.limits.upload, scope[DEADLINE])
            await self.app(scope, limited, send)
        finally:
            self.worker.leave()

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        # A foreign name for this address is how a web page elsewhere would read it (rebinding).
        if self.hosts and _host_name(host) not in self.hosts:
            return problem(
                421, "this host name is not served; open the page by the address it was started "
                "with, or name the host with --allow-host",
            )  # fmt: skip
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return problem(403, "requests from other web sites are refused")
        if scope["path"].startswith("/v1/") and not self._is_authorized(headers):
            return problem(
                401,
                "a token is needed: Authorization: Bearer TOKEN",
                {"www-authenticate": "Bearer"},
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > self.limits.upload:
            return _too_large(self.limits.upload)
        return None

    def _is_authorized(self, headers: Headers) -> bool:
        if not self.token:
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode("latin-1"), self.token
        )


def _takes_place(path: str) -> bool:
    return path.startswith("/v1/") and path not in OPEN_PATHS


def _host_name(host: str) -> str:
    """A Host header without its port."""
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def _too_large(limit: int) -> Response:
    return problem(413, f"the request has more than {limit / 2**20:g} MiB; send smaller images")


def _limited(receive: Receive, limit: int, deadline: float) -> Receive:
    """`receive` that counts the body's bytes and waits for them no longer than allowed."""
    taken = 0
    complete = False

    async def next_message() -> Message:
        nonlocal taken, complete
        if complete:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0.01))
        except TimeoutError:
            raise HTTPException(408, "the request did not arrive in time; send it again") from None
        taken += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if taken > limit:
            raise HTTPException(413, f"the request has more than {limit / 2**20:g} MiB")
        return message

    return next_message


def _secured(send: Send, path: str) -> Send:
    """`send` with the headers that keep a browser from doing more than the page needs."""

    async def send_secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY.items():
                headers[name] = value
            headers["cache-control"] = "no-store" if path.startswith("/v1/") else "no-cache"
        await send(message)

    return send_secured
