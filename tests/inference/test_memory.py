"""The memory of a labelled stream does not grow with its frames."""

import contextlib
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import psutil
import pytest
from conftest import TINY, build

from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.scenes.dataset import SceneOptions, draw_scene

pytest.importorskip("av", reason="the extra `video` is not installed")

FRAMES, BEGINNING, END = 100, (25, 50), (75, 100)
"""How many are labelled, and between which of them memory is looked at."""
BOUND = 30 * 2**20
"""A picture with its thermal partner is 1.2 MB: 50 of them are 60 MB."""


class Endless(BaseHTTPRequestHandler):
    """Pictures whether they are asked for or not: what waits must not pile up."""

    def log_message(self, *words):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while True:
            for data in self.server.pictures[self.path]:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(1 / 12)


class Cameras(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass  # whoever listened has gone


@pytest.fixture(scope="module")
def address():
    server = Cameras(("127.0.0.1", 0), Endless)
    scenes = [draw_scene(3, SceneOptions(size=(480, 640)), index / 5) for index in range(2)]
    server.pictures = {
        "/rgb": [cv2.imencode(".jpg", scene.rgb[..., ::-1])[1].tobytes() for scene in scenes],
        "/thermal": [cv2.imencode(".jpg", scene.thermal)[1].tobytes() for scene in scenes],
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def watch(process: subprocess.Popen, folder: Path) -> list[tuple[int, int]]:
    """Frames that were labelled, and bytes that the process takes, until it ends."""
    seen, memory = [], psutil.Process(process.pid).memory_info
    with contextlib.suppress(psutil.Error):
        while process.poll() is None:
            seen.append((len(list(folder.glob("*/*.png"))), memory().rss))
            time.sleep(0.05)
    return seen


@pytest.mark.slow
def test_memory_does_not_grow_with_the_frames_of_a_stream(address, tmp_path):
    save(build(replace(TINY, scale=0.5)), tmp_path / "tiny", ModelFacts())
    out = tmp_path / "out"
    out.mkdir()
    command = ["video", "--rgb", f"{address}/rgb", "--thermal", f"{address}/thermal", "--labels",
               "--objects", "--limit", str(FRAMES), "--tolerance", "1", "--width", "96",
               "--model", f"{tmp_path}/tiny", "--device", "cpu"]  # fmt: skip
    command += ["--out", f"{out}/a.webm"]
    process = subprocess.Popen([sys.executable, "-m", "sartm", *command])
    seen = watch(process, out)
    assert process.wait() in (0, 3)  # 3: a frame without a partner
    first, last = (
        statistics.median(taken for frames, taken in seen if low <= frames < high)
        for low, high in (BEGINNING, END)
    )
    assert last - first < BOUND, f"{first / 2**20:.0f} MB, later {last / 2**20:.0f} MB"
