"""An RTSP camera for tests: Debian's rtsp-server-perl, fed with pictures of known moments."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from fractions import Fraction

from draw_moments import SIZE, draw_moment

PROGRAM = shutil.which("rtsp-server-perl")


class RtspCamera:
    """Serves until it is closed; `cut` kills the server, which comes back after so many seconds."""

    def __init__(self, warm: bool, rtp_port: int, rate: int = 20) -> None:
        self.warm, self.rtp_port, self.rate = warm, rtp_port, rate
        self.client_port, self.source_port = _free_port(), _free_port()
        self.address = f"rtsp://127.0.0.1:{self.client_port}/live"
        self.ended, self.fed = threading.Event(), threading.Event()
        self.starts = 0
        self.process = self._start()
        self.thread = threading.Thread(target=self._feed, daemon=True)
        self.thread.start()
        assert self.fed.wait(20), "the server takes no pictures"

    def _start(self) -> subprocess.Popen:
        self.starts += 1
        ports = {"rtp_start_port": self.rtp_port, "clientport": self.client_port,
                 "serverport": self.source_port}  # fmt: skip
        here = ["--client_listen_address=127.0.0.1", "--source_listen_address=127.0.0.1"]
        command = [PROGRAM, *here, *(f"--{name}={port}" for name, port in ports.items())]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def cut(self, seconds: float) -> None:
        self.process.kill()
        self.process.wait()
        time.sleep(seconds)
        self.process = self._start()

    def close(self) -> None:
        self.ended.set()
        self.process.kill()
        self.process.wait()
        self.thread.join(10)

    def _feed(self) -> None:
        import av

        while not self.ended.is_set():
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._publish(av)
            self.ended.wait(0.1)

    def _publish(self, av) -> None:
        """Until the server is gone."""
        where = f"rtsp://127.0.0.1:{self.source_port}/live"
        with av.open(where, "w", format="rtsp") as container:
            stream = container.add_stream("libx264", rate=self.rate, options={
                "preset": "ultrafast", "tune": "zerolatency", "g": "10",
            })  # fmt: skip
            stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
            stream.codec_context.time_base = Fraction(1, 90_000)
            begun, process = time.monotonic(), self.process
            while not self.ended.is_set() and process.poll() is None:
                now = time.monotonic()
                frame = av.VideoFrame.from_ndarray(draw_moment(now, self.warm), format="rgb24")
                frame.pts, frame.time_base = round((now - begun) * 90_000), Fraction(1, 90_000)
                container.mux(stream.encode(frame))
                self.fed.set()
                self.ended.wait(1 / self.rate)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
