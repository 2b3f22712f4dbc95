"""ROS 1 and ROS 2 bags as sources of frames: `recording.mcap:/thermal/image_raw`, by rosbags.

Times are those of the message headers, which the camera's driver wrote, else of the recording.
Headers that count from the start of a computer or a simulation are set by the recording.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.data.pairs import RawImages, read_images
from sartm.errors import InputError
from sartm.inference.clocks import Clock
from sartm.inference.frames import DATED, Frame, Stream
from sartm.inference.pictures import Role, convert_camera_picture
from sartm.io.cameras import Camera
from sartm.io.decode import as_rgb
from sartm.io.header import check_limits
from sartm.io.sources import Upload

Array = npt.NDArray[Any]

SUFFIXES = frozenset({".bag", ".mcap", ".db3"})
_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

# Encoding -> number type, channels, and what makes RGB or grey of it; None: it is so already.
_LAYOUTS: dict[str, tuple[str, int, int | None]] = {
    "mono8": ("u1", 1, None), "8UC1": ("u1", 1, None), "mono16": ("u2", 1, None),
    "16UC1": ("u2", 1, None), "32FC1": ("f4", 1, None),
    "rgb8": ("u1", 3, None), "bgr8": ("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC3": ("u1", 3, cv2.COLOR_BGR2RGB), "rgb16": ("u2", 3, None),
    "bgr16": ("u2", 3, cv2.COLOR_BGR2RGB), "16UC3": ("u2", 3, cv2.COLOR_BGR2RGB),
    "rgba8": ("u1", 4, cv2.COLOR_RGBA2RGB), "bgra8": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "8UC4": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "yuv422": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY), "uyvy": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": ("u1", 2, cv2.COLOR_YUV2RGB_YUY2), "yuyv": ("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    # OpenCV names the pattern by its second row.
    "bayer_rggb8": ("u1", 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": ("u1", 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": ("u1", 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": ("u1", 1, cv2.COLOR_BayerGB2RGB),
}  # fmt: skip


def split_bag(source: str | Path) -> tuple[Path, str] | None:
    """The bag and the topic that a source names; the topic is "" where it is left out.

    None where the source is no bag: a .bag, .mcap or .db3 file, or a folder with metadata.yaml.
    """
    place, topic = re.fullmatch(r"(.*?)(?::(/.*))?", str(source), re.DOTALL).groups()  # type: ignore[union-attr]
    path = Path(place)
    if path.suffix.lower() in SUFFIXES or (topic and (path / "metadata.yaml").is_file()):
        return path, topic or ""
    return None


def open_bag(
    source: str | Path,
    role: Role,
    camera: Camera,
    max_pixels: int,
    begin: float | None,
    shift: float | None = None,
) -> Stream:
    """Open one topic; second 0 is `begin` in Unix time, or else when its first frame was taken.

    `shift` is that of the topic whose partners are wanted: both are taken to have one clock. Raises
    InputError where it cannot be read, or the topic holds no images.
    """
    found = split_bag(source)
    assert found is not None
    path, topic = found
    if role not in ("rgb", "thermal"):
        raise InputError(f"{source}: --one-file is for one video; name a topic for each camera")
    if not path.exists():
        raise InputError(f"{path}: no such bag; check the path")
    reader = _open_reader(path)
    try:
        connections = [one for one in reader.connections if one.topic == topic]
        kinds = {one.msgtype for one in connections}
        if not kinds or not kinds <= {_IMAGE, _COMPRESSED}:
            raise InputError(_explain_topic(path, topic, kinds, reader.connections))
        start, shift = _set_clock(reader, connections, shift)
        count = sum(one.msgcount for one in connections)
        seconds = max(reader.duration / 1e9, 1e-3)
    except BaseException:
        reader.close()
        raise
    rate = Fraction(max(count - 1, 1) / seconds).limit_denominator(1001)
    stream = Stream(str(source), iter(()), min(max(rate, Fraction(1, 10)), Fraction(1000)), count)
    stream.begin, stream.clock = start if begin is None else begin, Clock("header")
    stream.shift = shift
    read = _read_rgb if role == "rgb" else _read_thermal

    def load(message: Any, name: str) -> RawImages:
        return read(message, camera, max_pixels, name)

    stream.frames = _frames(reader, connections, stream, load)
    return stream


def _open_reader(path: Path) -> Any:
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError:
        raise InputError(
            "bags need rosbags, which is not installed: pip install 'sartm[bags]'"
        ) from None
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except Exception as error:  # its formats fail in many ways
        raise InputError(
            f"{path}: not a readable bag ({str(error)[:150]}); is it cut off? `ros2 bag reindex` "
            f"or `rosbag reindex` may mend it"
        ) from None
    return reader


def _explain_topic(path: Path, topic: str, kinds: set[str], connections: list[Any]) -> str:
    there = sorted({one.topic for one in connections if one.msgtype in (_IMAGE, _COMPRESSED)})
    what = f"topic {topic} holds {', '.join(sorted(kinds))}, no images" if kinds else (
        f"no topic {topic}" if topic else "name a topic"
    )  # fmt: skip
    listed = ", ".join(f"{path}:{name}" for name in there[:8]) or "none"
    return f"{path}: {what}; with images there are: {listed}"


def _set_clock(
    reader: Any, connections: list[Any], shift: float | None
) -> tuple[float, float | None]:
    """When a topic's first frame was taken, and what is to be added to its stamps; None: nothing.

    To stamps that are no dates `shift` is; if it is None, what makes the first one the time at
    which it was recorded.
    """
    begin = reader.start_time / 1e9
    with contextlib.suppress(Exception):  # reading the frames will count what is damaged
        for index, (connection, recorded, data) in enumerate(
            islice(reader.messages(connections), 10)
        ):
            begin = begin if index else recorded / 1e9
            stamp = _read_stamp(reader.deserialize(data, connection.msgtype))
            if stamp >= DATED:
                return stamp, None
            if stamp > 0:  # a simulation's first is 0
                return begin, recorded / 1e9 - stamp if shift is None else shift
    return begin, None


def _read_stamp(message: Any) -> float:
    """Seconds in the header of a message; 0 where nobody wrote them."""
    stamp = message.header.stamp
    return float(stamp.sec + stamp.nanosec / 1e9)


def _frames(
    reader: Any, connections: list[Any], stream: Stream, load: Callable[[Any, str], RawImages]
) -> Iterator[Frame]:
    """Messages of one topic, in the order of their times."""
    assert stream.begin is not None
    assert stream.clock is not None
    last, index = -math.inf, 0
    with contextlib.closing(reader):
        messages = reader.messages(connections)
        while True:
            try:
                connection, recorded, data = next(messages)
                message = reader.deserialize(data, connection.msgtype)
            except StopIteration:
                return
            except Exception:  # cut off or damaged: what was read stays
                stream.damaged += 1
                return
            stamp = _read_stamp(message)
            seconds = stamp if stamp > 0 else recorded / 1e9
            if 0 < stamp < DATED and stream.shift is not None:
                seconds += stream.shift
            stream.clock.see(seconds, recorded / 1e9)
            moment = max(seconds - stream.begin, last + 1e-6)
            last, name = moment, f"{stream.name}, message {index}"

            def read(message: Any = message, name: str = name) -> RawImages:
                return load(message, name)

            yield Frame(index, moment, read)
            index += 1


def _read_rgb(message: Any, camera: Camera, max_pixels: int, name: str) -> RawImages:
    if hasattr(message, "format"):
        return read_images(Upload(name, bytes(message.data)), None, max_pixels=max_pixels)
    return RawImages(as_rgb(_pixels(message, max_pixels, name), name), None)


def _read_thermal(message: Any, camera: Camera, max_pixels: int, name: str) -> RawImages:
    if hasattr(message, "format"):
        image = Upload(name, bytes(message.data))
        return read_images(None, image, camera=camera, max_pixels=max_pixels)
    return convert_camera_picture(_pixels(message, max_pixels, name), "thermal", camera, name)


def _pixels(message: Any, max_pixels: int, name: str) -> Array:
    """(H, W) or (H, W, 3) in RGB order of an uncompressed image."""
    height, width, encoding = int(message.height), int(message.width), str(message.encoding)
    if encoding not in _LAYOUTS:
        raise InputError(
            f"{name}: the encoding {encoding[:40]!r} is not read; republish it as rgb8, mono8 or "
            f"mono16"
        )
    kind, channels, conversion = _LAYOUTS[encoding]
    check_limits(name, height, width, max_pixels)
    number = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    row, step = width * channels * number.itemsize, int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    if step < row or len(data) < step * height:
        raise InputError(f"{name}: {len(data)} bytes are less than its {height}x{width} pixels")
    lines = np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :row])
    pixels = lines.view(number).astype(number.newbyteorder("="))
    pixels = pixels.reshape(height, width, channels) if channels > 1 else pixels
    return pixels if conversion is None else np.asarray(cv2.cvtColor(pixels, conversion))
