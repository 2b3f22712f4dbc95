"""Live cameras, on this computer and on the network: the newest frame, whenever one is asked for.

What came in between is forgotten, so that labels are never of long ago and memory stays the same. A
network stream that is cut or stalls is opened again; every loss is listed.
"""

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.data.pairs import RawImages
from sartm.errors import InputError
from sartm.inference.clocks import Clock
from sartm.inference.frames import Frame, Stream
from sartm.inference.pictures import Role, convert_camera_picture, convert_picture
from sartm.inference.playback import RATE, import_av
from sartm.io.cameras import Camera

Array = npt.NDArray[Any]
Produced = Iterator[tuple[float, Any]]
"""Moments on our clock and pictures, until the source ends for good."""

PATIENCE = 15.0
"""Seconds without a frame after which a source is given up."""
STALL = 5.0
"""Seconds without data after which a network stream is opened again."""
_SETTLING = 2.0
"""Seconds of a connection after which every picture is taken to be new."""
_KEPT = 100  # losses that are listed
_TELEMETRY = {(80, 63): 60, (160, 122): 120, (320, 258): 256, (640, 514): 512}
"""Width and height with the rows that Lepton and Boson add below the picture -> its height."""
_SCHEMES = {"rtsp": "rtsp,rtp,udp,tcp", "rtsps": "rtsps,rtsp,rtp,udp,tcp,tls", "http": "http,tcp",
            "https": "https,http,tls,tcp", "udp": "udp", "tcp": "tcp"}  # fmt: skip
"""Scheme of an address -> protocols that its stream may use: no file, and nobody else's address."""
_FORMATS = (
    "mpjpeg,mjpeg,image2pipe,jpeg_pipe,rtsp,sdp,rtp,mpegts,mov,mp4,matroska,webm,flv,ogg,h264,hevc"
)

_TIMELESS = {"mpjpeg", "mjpeg", "image2pipe", "jpeg_pipe"}
"""Formats of plain pictures, whose times are made up by the reader."""


def camera_index(source: str) -> int | None:
    """N of `camera:N`, or None."""
    found = re.fullmatch(r"camera:(\d{1,3})", source)
    return int(found[1]) if found else None


def network_scheme(source: str) -> str | None:
    """The scheme of an address such as rtsp://host/path; None where it is none."""
    found = re.match(r"([a-z]{3,5})://", source, re.IGNORECASE)
    return found[1].lower() if found and found[1].lower() in _SCHEMES else None


def hide_password(source: str) -> str:
    """An address as it is shown and written: without the password in it."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", source)


def open_live(source: str, role: Role, camera: Camera, epoch: float) -> Stream:
    """Open `camera:N` or an address; second 0 is `epoch` on `time.monotonic()`.

    Raises InputError where it cannot be opened.
    """
    number = camera_index(source)
    if number is not None:
        return _open_camera(number, role, camera, epoch)
    return _open_network(source, role, camera, epoch)


def _open_camera(number: int, role: Role, camera: Camera, epoch: float) -> Stream:
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise InputError(
            f"camera:{number} cannot be opened; is it connected, free, and may this user read it?"
        )
    if role == "thermal":  # in this order: the other way round, drivers keep their 8-bit format
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"Y16 "))
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    rate = capture.get(cv2.CAP_PROP_FPS)
    known = Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else RATE
    stream = Stream(f"camera:{number}", iter(()), known, live=True)
    stream.clock = Clock("driver")

    def produce(ended: threading.Event) -> Produced:
        assert stream.clock is not None
        while not ended.is_set():
            success, image = capture.read()
            now = time.monotonic()
            if not success:
                return
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if 0 < stamp <= now and now - stamp < PATIENCE:  # of the same clock
                yield stream.clock.see(stamp, now) - epoch, image
            else:
                stream.clock.kind = "arrival"
                yield stream.clock.arrive(now) - epoch, image

    def convert(image: Array, index: int) -> RawImages:
        if role == "thermal":
            image = cut_telemetry(as_counts(image, capture))
        return convert_camera_picture(image, role, camera, f"{stream.name}, frame {index}")

    stream.frames = _newest(stream, produce, convert, capture.release)
    return stream


def as_counts(image: Array, capture: Any) -> Array:
    """A picture of 16 bits that OpenCV gives as a row of bytes, as (H, W) counts; others as is."""
    height, width = (int(capture.get(side)) for side in
                     (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))  # fmt: skip
    plain = image.dtype == np.uint8 and image.size == 2 * height * width and height > 0
    if plain and capture.get(cv2.CAP_PROP_FOURCC) == cv2.VideoWriter.fourcc(*"Y16 "):
        return np.ascontiguousarray(image).reshape(-1).view("<u2").reshape(height, width)
    return image


def cut_telemetry(image: Array) -> Array:
    """A thermal picture without the rows of numbers that cameras add below it."""
    height = _TELEMETRY.get((image.shape[1], image.shape[0])) if image.ndim == 2 else None
    return image if height is None or image.dtype != np.uint16 else image[:height]


def _open_network(source: str, role: Role, camera: Camera, epoch: float) -> Stream:
    scheme = network_scheme(source)
    assert scheme is not None
    stream = Stream(hide_password(source), iter(()), RATE, live=True)
    container = _connect(source, scheme)  # the first time it must succeed
    if container.duration is not None:
        container.close()
        raise InputError(
            f"{stream.name} is a film with an end, not a live stream; download it and give the file"
        )
    video = container.streams.video[0]
    stream.rate = Fraction(video.average_rate or video.guessed_rate or RATE)
    if not 1 <= stream.rate <= 240:
        stream.rate = RATE
    timeless = bool(set(container.format.name.split(",")) & _TIMELESS)
    stream.clock = Clock("arrival" if timeless else "stream")

    def produce(ended: threading.Event) -> Produced:
        yield from _reconnect(stream, partial(_connect, source, scheme), container, epoch, ended)

    def convert(picture: Any, index: int) -> RawImages:
        return convert_picture(picture, role, camera, f"{stream.name}, frame {index}")

    stream.frames = _newest(stream, produce, convert, lambda: None)
    return stream


def _connect(source: str, scheme: str) -> Any:
    av = import_av()
    options = {"protocol_whitelist": _SCHEMES[scheme], "format_whitelist": _FORMATS,
               "rtsp_flags": "prefer_tcp", "fflags": "nobuffer"}  # fmt: skip
    only_udp = options | {"rtsp_flags": "0", "rtsp_transport": "udp"}
    connect = partial(av.open, source, timeout=(STALL, STALL))
    try:
        try:
            container = connect(options=options)
        except av.error.HTTPBadRequestError:
            if scheme != "rtsp":
                raise
            # What servers that send by UDP alone say to TCP, unless they know the word for it.
            container = connect(options=only_udp)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{hide_password(source)}: cannot be opened ({error.strerror or error}); does it play "
            f"in a browser or in ffplay on this computer?"
        ) from None
    if not container.streams.video:
        container.close()
        raise InputError(
            f"{hide_password(source)}: holds no pictures; give the address of its video"
        )
    return container


def _reconnect(
    stream: Stream,
    connect: Callable[[], Any],
    container: Any,
    epoch: float,
    ended: threading.Event,
) -> Produced:
    """Frames over all connections; ends after `PATIENCE` without any."""
    seen, wait = time.monotonic(), 0.1
    while not ended.is_set():
        if container is not None:
            for moment, picture in _pictures(stream, container, ended):
                lost = moment - seen
                if lost > STALL or wait > 0.1:
                    stream.lose(seen - epoch, lost)
                seen, wait = moment, 0.1
                yield moment - epoch, picture
        if time.monotonic() - seen > PATIENCE:
            stream.lose(seen - epoch, time.monotonic() - seen)
            return
        ended.wait(wait)
        wait = min(2 * wait, 2.0)
        container = None
        with contextlib.suppress(InputError):  # it is tried again
            container = connect()


def _pictures(stream: Stream, container: Any, ended: threading.Event) -> Produced:
    """Of one connection, until it is cut or stalls."""
    assert stream.clock is not None
    failure = import_av().error.FFmpegError
    with contextlib.closing(container), contextlib.suppress(failure, OSError):
        for came, picture in _skip_buffered(stream, container.decode(video=0)):
            if ended.is_set():
                return
            if picture.pts is None or stream.clock.kind == "arrival":
                yield stream.clock.arrive(came), picture
            else:
                yield stream.clock.see(float(picture.pts * picture.time_base), came), picture


def _skip_buffered(stream: Stream, pictures: Iterator[Any]) -> Produced:
    """When pictures came, without those that lay waiting while the connection was opened.

    They come faster than they were taken, and nobody can say how old they are.
    """
    begun = before = time.monotonic()
    held = None
    for picture in pictures:
        now = time.monotonic()
        interval = float(1 / stream.rate)
        if held is not None and None not in (picture.pts, held.pts):
            interval = float((picture.pts - held.pts) * picture.time_base)
        fresh = held is not None and now - before > interval / 2
        if fresh or now - begun > _SETTLING:
            yield now, picture
            held = None
            break
        stream.passed += held is not None
        held, before = picture, now
    if held is not None:  # all that there was
        yield before, held
    for picture in pictures:
        yield time.monotonic(), picture


def _newest(
    stream: Stream,
    produce: Callable[[threading.Event], Produced],
    convert: Callable[[Any, int], RawImages],
    release: Callable[[], None],
) -> Iterator[Frame]:
    """The newest frame each time one is asked for; a source that fails later on ends there."""
    newest: queue.Queue[tuple[float, Any] | None] = queue.Queue(maxsize=1)
    ended = threading.Event()

    def read() -> None:
        try:
            for item in produce(ended):
                with contextlib.suppress(queue.Empty):
                    newest.get_nowait()
                    stream.passed += 1
                newest.put(item)
        finally:
            while not ended.is_set():  # the last frame is still to be asked for
                with contextlib.suppress(queue.Full):
                    newest.put(None, timeout=0.1)
                    break

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    index, last = 0, -1e9
    try:
        while True:
            try:
                item = newest.get(timeout=PATIENCE + 1)
            except queue.Empty:
                item = None
                stream.failed = f"no frame for {PATIENCE:g} s"
            if item is None:
                stream.failed = stream.failed or "it ended"
                if not index:
                    raise InputError(f"{stream.name} gave no frame; reconnect it")
                return
            picture, moment = item[1], max(item[0], last + 1e-6)

            def load(picture: Any = picture, index: int = index) -> RawImages:
                return convert(picture, index)

            yield Frame(index, moment, load)
            index, last = index + 1, moment
    finally:
        ended.set()
        thread.join(PATIENCE)
        release()
