"""What every request passes before anything reads it: who asks, from where, how much, how many."""

import hmac
import time
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sartm.app.bodies import Bodies, too_large
from sartm.app.problems import problem
from sartm.app.reading import Extent
from sartm.app.worker import DEADLINE, Worker
from sartm.errors import InputError

SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
OPEN_PATHS = frozenset({"/v1/models"})
"""Below /v1 and yet without a place in the queue: they answer at once and read nothing."""

CLICK_BYTES = 2**20
"""Of the body that asks for a mask."""


@dataclass(frozen=True)
class Limits:
    """What one request and all of them together may take."""

    upload: int = 32 * 2**20
    """Bytes of a request's body."""
    pixels: int = 16_000_000
    """Height x width of an image, a side counting 32 at least: 12-megapixel photographs pass."""
    waiting: int = 32
    """Requests that wait while one is computed; further ones get 429."""
    seconds: float = 60.0
    """From a request's first byte to its answer."""
    side: int = 16_384
    """Longer side of an image in pixels."""
    scenes: int = 64
    """Encoded pairs that are kept for clicks."""
    scene_bytes: int = 2**29
    """Memory of all of them."""

    @property
    def extent(self) -> Extent:
        """How large an image may be."""
        return Extent(self.pixels, self.side)


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
        self.token = token.encode("ascii")
        self.hosts = hosts
        self.bodies = Bodies(limits.upload)

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
        scope[DEADLINE] = time.monotonic() + self.limits.seconds
        busy = f"{self.limits.waiting} requests are waiting already; try again in a moment"
        if self.worker.is_full():  # before all of its bytes are taken in
            await problem(429, busy, {"retry-after": "1"})(scope, receive, send)
            return
        with self.bodies.taking() as taken:
            body = await taken.receive(receive, scope[DEADLINE])
            if body is None:  # the client went away
                return
            if isinstance(body, bytes) and len(body) > self._limit(scope["path"]):
                body = too_large(self._limit(scope["path"]))
            if isinstance(body, Response):
                await body(scope, receive, send)
                return
            if not self.worker.enter():
                await problem(429, busy, {"retry-after": "1"})(scope, receive, send)
                return
            await self._answer(scope, _replay(body, receive), send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered; its place is free before its client has read the answer."""
        present = True

        async def send_and_leave(message: Message) -> None:
            nonlocal present
            if present:
                present = False
                self.worker.leave()
            await send(message)

        try:
            await self.app(scope, receive, send_and_leave)
        finally:
            if present:
                self.worker.leave()

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts and not _is_served(host_name(host), self.hosts):
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
        length, limit = headers.get("content-length", "0"), self._limit(scope["path"])
        if not length.isdecimal() or len(length) > 15 or int(length) > limit:
            return too_large(limit)
        return None

    def _limit(self, path: str) -> int:
        """Bytes of a body: clicks are no images, and take much more memory than they are long."""
        clicks = path.startswith("/v1/scenes/")
        return min(self.limits.upload, CLICK_BYTES) if clicks else self.limits.upload

    def _is_authorized(self, headers: Headers) -> bool:
        if not self.token:
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode("latin-1"), self.token
        )


def check_token(token: str) -> str:
    """A token without the blanks around it, which no header keeps.

    Raises:
        InputError: nothing is left of it, or no header can carry it.
    """
    token = token.strip()
    if not token:
        raise InputError(
            "the token (--token, SARTM_TOKEN) is empty; set one, or unset SARTM_TOKEN to serve "
            "without"
        )
    if not (token.isascii() and token.isprintable()):
        raise InputError(
            "the token (--token, SARTM_TOKEN) holds a line break, a control character or a letter "
            "beyond ASCII, which headers do not carry; make one of the letters a to z and digits"
        )
    return token


def check_host(name: str) -> str:
    """A name of this host as Host headers are compared with it: lower case, without port.

    Raises:
        InputError: it is an address of a page, or none at all.
    """
    host = host_name(name.strip())
    if not host or "/" in name:
        raise InputError(
            f"--allow-host {name!r} is not the name of a host; write it as service.example.org, "
            f"without http:// and without a path"
        )
    return host


def _takes_place(path: str) -> bool:
    return path.startswith("/v1/") and path not in OPEN_PATHS


def host_name(host: str) -> str:
    """A Host header without its port."""
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def _is_served(name: str, hosts: tuple[str, ...]) -> bool:
    """Whether a Host header is for this service.

    A foreign name for this address is how a web page elsewhere would read it (DNS rebinding); an
    address itself cannot be made to mean another.
    """
    if name in hosts:
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` that gives a body at once, and then what happens to the connection."""
    waiting = [body]

    async def next_message() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

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
