"""A small hub on loopback: the paths, headers and faults that fetching weights has to do with."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@dataclass
class Hub:
    """What one repository serves, and how it fails."""

    repository: str
    files: dict[str, bytes]
    cut_after: int | None = None
    """The next download of the weights breaks off after this many bytes; once."""
    damage: bool = False
    """Downloads of the weights arrive with one byte changed."""
    broken: bool = False
    """Every answer is a 500."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of every request."""
    url: str = ""

    def sent(self, name: str) -> list[str]:
        """The Range of each download of a file ('' for the whole)."""
        return [r for method, path, r in self.asked if method == "GET" and path.endswith(name)]


def etag(name: str, content: bytes) -> str:
    """SHA-256 of weights, git's SHA-1 of small files, as the hub has it."""
    if name.endswith((".safetensors", ".pt")):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        repository = self.hub.repository
        if self.hub.broken:
            self.send(500, b"", {}, body)
        elif path.startswith(f"/api/models/{repository}"):
            self.send(200, self.info(), {"Content-Type": "application/json"}, body)
        elif path.startswith(f"/{repository}/resolve/"):
            self.send_file(path.rsplit("/", 1)[1], body)
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def info(self) -> bytes:
        siblings = []
        for name, content in self.hub.files.items():
            entry = {"rfilename": name, "size": len(content), "blobId": etag("x", content)}
            if name.endswith((".safetensors", ".pt")):
                sha256 = etag(name, content)
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return json.dumps({"id": self.hub.repository, "sha": COMMIT, "siblings": siblings}).encode()

    def send_file(self, name: str, body: bool) -> None:
        if name not in self.hub.files:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            return
        content = self.hub.files[name]
        headers = {
            "ETag": f'"{etag(name, content)}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        weights = name.endswith((".safetensors", ".pt"))
        if weights and self.hub.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])
        begin = 0
        if body and self.headers.get("Range", "").startswith("bytes="):
            begin = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        cut = None
        if body and weights and self.hub.cut_after is not None:
            cut, self.hub.cut_after = self.hub.cut_after, None
        self.send(206 if begin else 200, content[begin:], headers, body, cut)

    def send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str],
        body: bool,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
