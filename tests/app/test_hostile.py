"""What strangers send, and what they do not: a real server, real sockets, a limit to each wait."""

import http.client
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import serving
from conftest import TINY, build
from PIL import Image

pytest.importorskip("fastapi")
from torch.nn.modules.module import register_module_forward_pre_hook

from sartm.app import connections
from sartm.app.annotation import open_annotation
from sartm.app.guard import Limits
from sartm.app.server import create_app
from sartm.inference.predictor import Predictor
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts


class Server:
    """`sartm app` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def connect(self, buffer: int = 0) -> socket.socket:
        """A connection; `buffer` bytes of answers are taken in before anybody reads them."""
        connection = socket.socket()
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Status and body of an answer that comes within 30 seconds."""
        status, content, _ = self.ask_all(method, path, body, **headers)
        return status, content

    def ask_all(self, method: str, path: str, body: bytes = b"", **headers: str):
        """Status, body and headers of an answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers

    def post(self, files: dict[str, bytes], path: str = "/v1/segment", **headers: str):
        """Status and detail (or content) of a form of files."""
        kind = "multipart/form-data; boundary=x"
        status, content = self.ask("POST", path, form(files), content_type=kind, **headers)
        return status, json.loads(content)["detail"] if status >= 400 else content

    def present(self) -> int:
        """Requests that hold a place."""
        return json.loads(self.ask("GET", "/healthz")[1])["present"]

    def peak(self) -> int:
        """Bytes of memory that the server took at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def form(files: dict[str, bytes]) -> bytes:
    parts = (
        f'--x\r\nContent-Disposition: form-data; name="{kind}"; filename="a"\r\n\r\n'.encode()
        + data
        for kind, data in files.items()
    )
    return b"\r\n".join((*parts, b"--x--\r\n"))


@contextmanager
def started(*options: str, **environment: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "sartm", "app", "--port", "0", "--precision", "fp32"]
    process = subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        for line in process.stderr:
            if found := re.search(r"http://\S+:(\d+)/", line):
                break
        else:
            pytest.fail("the server does not start")
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        yield Server(process, int(found[1]))
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        drain.join()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "tiny"
    save(build(TINY), folder, ModelFacts())
    return folder


@pytest.fixture(scope="module")
def server(model, tmp_path_factory, files) -> Iterator[Server]:
    """Open to everybody, with a folder to annotate."""
    folder = tmp_path_factory.mktemp("folder")
    for kind, data in files.items():
        (folder / kind).mkdir()
        for name in ("a", "b"):
            (folder / kind / f"{name}.png").write_bytes(data)
    with started("--model", str(model), "--host", "0.0.0.0", "--annotate", str(folder)) as server:
        assert server.post(files)[0] == 200
        yield server


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    draw = np.random.default_rng(0)
    rgb, heat = (draw.integers(0, 256, size, np.uint8) for size in ((61, 90, 3), (61, 90)))
    return {"rgb": png(rgb), "thermal": png(heat)}


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def until(condition, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


# --- connections that say nothing ----------------------------------------------------------------


HEAD = (
    b"POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x"
)


def test_bodies_that_do_not_come_hold_no_place(server, files):
    with ExitStack() as open_ones:
        for _ in range(50):
            connection = open_ones.enter_context(server.connect())
            connection.sendall(HEAD + b"\r\nContent-Length: 1000\r\n\r\n")
        until(lambda: server.present() == 0, 5)
        begun = time.monotonic()
        assert server.post(files)[0] == 200
        assert time.monotonic() - begun < 8


def test_connections_that_say_nothing_are_closed(server):
    with ExitStack() as open_ones:
        silent, half, stalled = (open_ones.enter_context(server.connect()) for _ in range(3))
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost")
        stalled.sendall(HEAD + b"\r\nContent-Length: 1000\r\n\r\n--x")
        for connection in (silent, half):
            assert connection.recv(100) == b""  # socket.timeout after 30 s
        assert b" 408 " in stalled.recv(10_000).partition(b"\r\n")[0]


def test_answers_that_nobody_reads_hold_no_place(server):
    noise = np.random.default_rng(0).integers(0, 256, (2400, 3200, 3), np.uint8)
    body = form({"image": cv2.imencode(".jpg", noise)[1].tobytes()})
    head = HEAD.replace(b"segment", b"display") + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    with ExitStack() as open_ones:
        for _ in range(2):
            connection = open_ones.enter_context(server.connect(buffer=4096))
            connection.sendall(head + body)
            assert connection.recv(12) == b"HTTP/1.1 200"
        until(lambda: server.present() == 0, 5)


async def answer_at_length(scope, receive, send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(LONG)})


LONG = 64 * 2**20
"""Many times what the system keeps between a server and a client on one machine."""


@pytest.mark.slow
def test_who_reads_slowly_gets_all_and_who_reads_nothing_is_cut(monkeypatch):
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 4.0)
    config = {"http": connections.Connection, "lifespan": "off"}
    with serving(answer_at_length, **config) as url, ExitStack() as open_ones:
        server = Server(None, int(url.rpartition(":")[2]))
        slow, deaf = (open_ones.enter_context(server.connect(buffer=2**20)) for _ in range(2))
        for connection in (slow, deaf):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        taken, begun = 0, time.monotonic()
        while data := slow.recv(2**21, socket.MSG_WAITALL):
            taken += len(data)
            time.sleep(0.4)
        assert taken > LONG
        assert time.monotonic() - begun > 8
        taken = 0
        with suppress(ConnectionResetError):
            while data := deaf.recv(2**20):
                taken += len(data)
        assert taken < LONG


def test_half_bodies_fill_no_memory_and_shut_nobody_out(files):
    predictor = Predictor(build(TINY), device="cpu", precision="fp32")
    app = create_app({"tiny": predictor}, limits=Limits(upload=100_000))
    with serving(app) as url, ExitStack() as open_ones:
        server = Server(None, int(url.rpartition(":")[2]))
        halves = [open_ones.enter_context(server.connect()) for _ in range(12)]
        for connection in halves:
            connection.sendall(HEAD + b"\r\nContent-Length: 99000\r\n\r\n" + bytes(90_000))
            time.sleep(0.05)
        assert b" 429 " in halves[0].recv(10_000).partition(b"\r\n")[0]  # the one that came first
        assert server.post(files)[0] == 200


# --- images that cost much -----------------------------------------------------------------------


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    stream = io.BytesIO()
    grey = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8), np.ones((128, 128), np.uint8))
    Image.fromarray(grey).save(stream, "jpeg", progressive=True)
    data = stream.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def test_a_jpeg_of_thousands_of_scans_holds_up_nobody(server, files):
    scans = many_scans(10_000)
    assert len(scans) < 2**20
    found = []
    hostile = threading.Thread(target=lambda: found.append(server.post({"rgb": scans})))
    hostile.start()
    time.sleep(0.2)
    begun = time.monotonic()
    assert server.post(files)[0] == 200
    assert time.monotonic() - begun < 8
    hostile.join(30)
    assert found[0][0] == 422
    assert "scans" in found[0][1]


def doubled_tiff() -> bytes:
    """30,000 rows that share the bytes of one, and tags of size twice."""
    side, strip = 30_000, zlib.compress(bytes(30_000))
    offset = 8 + 2 + 12 * 12 + 4
    tags = [
        (256, 4, 1, side), (256, 4, 1, 64), (257, 4, 1, side), (257, 4, 1, 64), (258, 3, 1, 8),
        (259, 3, 1, 8), (262, 3, 1, 1), (273, 4, side, offset), (277, 3, 1, 1), (278, 4, 1, 1),
        (279, 4, side, offset + 4 * side), (284, 3, 1, 1),
    ]  # fmt: skip
    data = b"II*\0" + struct.pack("<IH", 8, len(tags))
    data += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    data += struct.pack("<I", offset + 8 * side) * side + struct.pack("<I", len(strip)) * side
    return data + strip


def test_a_tiff_with_tags_twice_takes_no_memory_of_the_server(server):
    before = server.peak()
    status, _ = server.post({"thermal": doubled_tiff()})
    assert status == 422
    assert server.peak() - before < 300e6


@pytest.mark.parametrize("size", [(1_000_000, 1), (1, 1_000_000), (17_000, 40)])
def test_a_long_strip_is_refused(server, size):
    strip = png(np.zeros(size, np.uint8))
    before = server.peak()
    for kind in ("rgb", "thermal"):
        status, detail = server.post({kind: strip})
        assert status == 422
        assert f"{size[0]}x{size[1]}" in detail
    assert server.post({"image": strip}, "/v1/display")[0] == 422
    assert server.peak() - before < 300e6


@pytest.mark.slow
def test_pixels_count_as_the_network_pads_them(model, files):
    with started("--model", str(model), "--max-pixels", "0.02") as server:
        assert server.post(files)[0] == 200  # 61 x 90
        status, detail = server.post({"rgb": png(np.zeros((1, 1000), np.uint8))})
        assert status == 422
        assert "32" in detail


def test_a_request_that_is_given_up_computes_no_further(files):
    """The layers of a network slowed down are counted: a thread that nobody waits for stops."""
    layers = 0

    def slow_down(*_: object) -> None:
        nonlocal layers
        layers += 1
        time.sleep(0.05)

    predictor = Predictor(build(TINY), device="cpu", precision="fp32")
    with serving(create_app({"tiny": predictor}, limits=Limits(seconds=1.5))) as url:
        server = Server(None, int(url.rpartition(":")[2]))
        until(lambda: server.post(files)[0] == 200, 30)
        slow = register_module_forward_pre_hook(slow_down)
        try:
            status, detail = server.post(files)
            assert status == 503
            assert "1.5 seconds" in detail
            time.sleep(0.5)
            reached = layers
            assert reached > 0
            time.sleep(0.5)
            assert layers == reached
        finally:
            slow.remove()
        assert server.post(files)[0] == 200


# --- open by accident ----------------------------------------------------------------------------


def test_without_a_token_only_addresses_and_named_hosts_are_served(server):
    for name in ("127.0.0.1:1", "localhost", "192.0.2.7:7860", "[2001:db8::1]:80"):
        assert server.ask("GET", "/v1/models", host=name)[0] == 200
    for name in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", "1.2.3"):
        rebound = server.ask("GET", "/v1/models", host=name, origin=f"http://{name}")
        assert rebound[0] == 421
        assert b"--allow-host" in rebound[1]


@pytest.mark.slow
def test_a_token_with_a_blank_at_its_end_is_that_without(model):
    options = ("--model", str(model), "--host", "0.0.0.0", "--allow-host", "Service.LAN:443")
    with started(*options, SARTM_TOKEN="secret \n") as server:
        for host in ("service.lan", "127.0.0.1"):
            path = "/v1/models"
            assert server.ask("GET", path, host=host, authorization="Bearer secret")[0] == 200
            assert server.ask("GET", path, host=host)[0] == 401
        assert server.ask("GET", path, host="evil.example", authorization="Bearer secret")[0] == 421


START = """
import os, sys
from sartm.cli.main import main
for options, token in (((), ""), ((), "  "), (("--token", ""), None), ((), "two\\nlines")):
    os.environ.pop("SARTM_TOKEN", None)
    if token is not None:
        os.environ["SARTM_TOKEN"] = token
    assert main(["app", "--port", "0", "--model", sys.argv[1], *options]) == 2
"""


@pytest.mark.slow
def test_a_token_that_protects_nothing_is_no_way_to_start(model):
    done = subprocess.run(  # TimeoutExpired: it serves
        [sys.executable, "-c", START, str(model)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("SARTM_TOKEN") == 4 + done.stderr.count("unset SARTM_TOKEN")
    assert "Traceback" not in done.stderr


# --- options and labels --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "meant"),
    [("ir", "thermal?"), ("opactiy", "opacity?"), ("Thermal", "thermal?"), ("x", "there are rgb")],
)
def test_a_field_that_nobody_reads_is_named(server, files, field, meant):
    status, detail = server.post({**files, field: b"0.2"})
    assert status == 422
    assert f"'{field}'" in detail
    assert meant in detail


@pytest.mark.slow
def test_what_nobody_reads_in_a_query_or_another_form_is_named(server, files):
    status, detail = server.post({"imag": files["rgb"]}, "/v1/display")
    assert status == 422
    assert "image" in detail
    for method, path in (("POST", "/v1/segment"), ("GET", "/v1/models"), ("GET", "/v1/annotation")):
        status, content = server.ask(method, f"{path}?output=json")
        assert status == 422
        assert "'output'" in json.loads(content)["detail"]
    assert server.ask("GET", "/healthz?now=1")[0] == 200


@pytest.mark.slow
def test_of_two_editors_the_second_is_told(server):
    label = png(np.full((61, 90), 1, np.uint8))
    path = "/v1/annotation/0/label"
    assert server.ask("GET", path)[0] == 404
    status, _, headers = server.ask_all("PUT", path, label)
    assert status == 200
    first = headers["etag"]
    assert first

    status, content = server.ask("PUT", path, label)  # from nothing too, but later
    assert status == 428
    assert "If-Match" in json.loads(content)["detail"]

    _, _, headers = server.ask_all("GET", path)
    assert headers["etag"] == first
    other = png(np.full((61, 90), 2, np.uint8))
    status, _, headers = server.ask_all("PUT", path, other, if_match=first)
    assert status == 200
    second = headers["etag"]
    assert second != first

    status, content = server.ask("PUT", path, label, if_match=first)
    assert status == 412
    assert "load it again" in json.loads(content)["detail"]
    segments = json.loads(server.ask("GET", path)[1])["segments"]
    assert [segment["id"] for segment in segments] == [2]
    assert server.ask("PUT", path, label, if_match=f"W/{second}")[0] == 200  # through a proxy
    assert server.ask("PUT", "/v1/annotation/1/label", label, if_match=second)[0] == 412


def test_a_label_read_while_another_is_saved_cannot_replace_it(files, tmp_path):
    """With labels in a folder of their own, the first save changes which file is the label."""
    folder, path = tmp_path / "set", "/v1/annotation/0/label"
    for kind, data in files.items():
        (folder / kind).mkdir(parents=True)
        (folder / kind / "a.png").write_bytes(data)
    (folder / "label").mkdir()
    (folder / "label" / "a.png").write_bytes(png(np.full((61, 90), 1, np.uint8)))
    (folder / "dataset.toml").write_text(
        'name = "set"\nclasses = ["rest", "dog", "cat"]\n[files]\nrgb = "rgb/{name}.png"\n'
        'thermal = "thermal/{name}.png"\nlabel = "label/{name}.png"\n[splits]\ntrain = "*"\n'
    )
    predictor = Predictor(build(TINY), device="cpu", precision="fp32")
    annotation = open_annotation(folder, tmp_path / "out", predictor.classes)
    found, go_on = {}, threading.Event()

    def hold(*_: object) -> None:
        go_on.wait(30)

    def ask(name: str, *what, **headers) -> threading.Thread:
        thread = threading.Thread(
            target=lambda: found.update({name: server.ask_all(*what, **headers)})
        )
        thread.start()
        return thread

    with serving(create_app({"tiny": predictor}, annotation=annotation)) as url:
        server = Server(None, int(url.rpartition(":")[2]))
        first = server.ask_all("GET", path)[2]["etag"]
        busy = register_module_forward_pre_hook(hold)
        try:
            kind = "multipart/form-data; boundary=x"
            label = png(np.full((61, 90), 2, np.uint8))
            threads = [ask("segment", "POST", "/v1/segment", form(files), content_type=kind)]
            until(lambda: server.present() == 1, 20)
            threads.append(ask("saved", "PUT", path, label, if_match=first))
            until(lambda: server.present() == 2, 20)
            time.sleep(1)  # its label is decoded: it waits for the thread that is busy
            threads.append(ask("read", "GET", path))
            until(lambda: server.present() == 3, 20)
        finally:
            go_on.set()
            busy.remove()
        for thread in threads:
            thread.join(60)
        assert found["segment"][0] == found["saved"][0] == 200
        _, content, headers = found["read"]
        ids = [segment["id"] for segment in json.loads(content)["segments"]]
        other = png(np.full((61, 90), 0, np.uint8))
        again = server.ask("PUT", path, other, if_match=headers["etag"])[0]
        assert (ids, again) in (([2], 200), ([1], 412))
