"""From videos, folders of frames and cameras to pairs of frames, one at a time."""

import contextlib
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.data.layouts import Pair
from sartm.data.pairs import find_pairs, read_pair
from sartm.errors import InputError
from sartm.io.cameras import Camera, prepare_thermal
from sartm.io.decode import MAX_PIXELS

Array = npt.NDArray[Any]
Images = tuple[npt.NDArray[np.uint8] | None, Array | None]
"""RGB (H, W, 3) and raw thermal (H, W) of one moment, or None."""

Arrangement = Literal["left-right", "right-left", "top-bottom", "bottom-top", "four-channel"]
"""Where RGB (first word) and thermal lie in one video; `four-channel`: thermal is alpha."""
Role = Literal["rgb", "thermal"] | Arrangement
Match = Literal["auto", "time", "index"]

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".wmv",
     ".flv", ".ogv", ".3gp", ".y4m", ".nut"}
)  # fmt: skip
# Demuxers that read the file they are given and nothing else: play lists could name other files.
_FORMATS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,yuv4mpegpipe,nut"
_PATIENCE = 15.0  # seconds without a frame after which a camera is given up
_RATE = Fraction(25)  # where nothing says better
_KEPT = 100  # times that are listed; more are only counted


@dataclass(frozen=True)
class Frame:
    """One moment of one source; nothing is converted before `load` is called."""

    index: int
    """Position in the source, from 0; damaged frames have none."""
    time: float
    """Seconds since the source began."""
    load: Callable[[], Images]
    name: str = ""
    """Of a file in a folder, without suffix."""


@dataclass
class Stream:
    """A source being read, once, from its beginning; closing `frames` closes it."""

    name: str
    frames: Iterator[Frame]
    rate: Fraction
    """Frames per second, on average."""
    count: int = 0
    """Frames expected; 0 where unknown."""
    damaged: int = 0
    """Packets that could not be decoded so far."""


@dataclass
class Unpaired:
    """Frames without a partner so far."""

    counts: dict[str, int] = field(default_factory=lambda: {"rgb": 0, "thermal": 0})
    times: dict[str, list[float]] = field(default_factory=lambda: {"rgb": [], "thermal": []})
    """Seconds, the first hundred of each."""
    files: list[str] = field(default_factory=list)
    """Of folders: the first hundred files."""

    def add(self, side: str, moment: float) -> None:
        """Count one frame of `side`."""
        self.counts[side] += 1
        if len(self.times[side]) < _KEPT:
            self.times[side].append(round(moment, 3))

    def __bool__(self) -> bool:
        return any(self.counts.values())


def is_video(source: str | Path | None) -> bool:
    """Whether an input of predict is a video file or a camera, not images."""
    if source is None:
        return False
    return camera_index(source) is not None or (
        Path(source).suffix.lower() in VIDEO_SUFFIXES and not Path(source).is_dir()
    )


def camera_index(source: str | Path) -> int | None:
    """N of `camera:N`, or None."""
    found = re.fullmatch(r"camera:(\d{1,3})", str(source))
    return int(found[1]) if found else None


def open_stream(
    source: str | Path,
    role: Role,
    *,
    rate: float | None = None,
    camera: Camera = Camera(),
    epoch: float = 0.0,
    max_pixels: int = MAX_PIXELS,
) -> Stream:
    """Open a video file, `camera:N`, or a folder or glob of frames.

    Args:
        source: what to read.
        role: what its pictures are.
        rate: frames per second of a folder; 25 where left out.
        camera: how thermal values are read.
        epoch: `time.monotonic()` that is second 0 of a live camera.
        max_pixels: largest height x width of a frame.

    Raises:
        InputError: no such file or camera, nothing readable in it, or PyAV is not installed.
    """
    number = camera_index(source)
    if number is not None:
        return _open_camera(number, role, camera, epoch)
    if is_video(source):
        return _open_video(Path(source), role, camera, max_pixels)
    if role not in ("rgb", "thermal"):
        raise InputError(f"{source}: --one-file is for one video, found a folder or image")
    pairs, _ = find_pairs(*((source, None) if role == "rgb" else (None, source)))
    return folder_stream(pairs, str(source), rate, camera=camera, max_pixels=max_pixels)


def folder_stream(
    pairs: list[Pair],
    name: str,
    rate: float | None = None,
    *,
    resize_thermal: bool = False,
    camera: Camera = Camera(),
    max_pixels: int = MAX_PIXELS,
) -> Stream:
    """Pairs of image files, in the order of their names, as frames `rate` to the second."""
    every = _RATE if rate is None else Fraction(rate).limit_denominator(10000)

    def load(pair: Pair) -> Images:
        sample = read_pair(
            pair, resize_thermal=resize_thermal, camera=camera, max_pixels=max_pixels
        )
        return sample.rgb, sample.thermal

    def frames() -> Iterator[Frame]:
        # Frame 10 comes after frame 9, however many digits were written.
        ordered = sorted(pairs, key=lambda pair: _natural(pair.name))
        for index, pair in enumerate(ordered):
            yield Frame(index, float(index / every), partial(load, pair), pair.name)

    return Stream(name, frames(), every, len(pairs))


def pair_frames(
    rgb: Stream,
    thermal: Stream,
    unpaired: Unpaired,
    *,
    match: Match = "auto",
    tolerance: float | None = None,
    offset: float = 0.0,
) -> Iterator[tuple[Frame, Frame | None]]:
    """Every RGB frame with its thermal partner or None, in time order, in constant memory.

    Args:
        rgb: the frames that lead.
        thermal: the others; one may be the partner of several RGB frames.
        unpaired: counts the frames of either side without a partner.
        match: `time` (also `auto`): nearest in time; `index`: n-th with n-th.
        tolerance: largest difference in seconds; half the longer frame interval if None.
        offset: seconds to add to thermal times, as where its recording began later.
    """
    if match == "index":
        for first, second in zip_longest(rgb.frames, thermal.frames):
            if first is None:
                unpaired.add("thermal", second.time)
                continue
            if second is None:
                unpaired.add("rgb", first.time)
            yield first, second
        return
    if tolerance is None:
        tolerance = 0.51 * float(max(1 / rgb.rate, 1 / thermal.rate))
    window = _Window(thermal.frames, offset, tolerance, unpaired)
    for frame in rgb.frames:
        partner = window.nearest(frame.time)
        if partner is None:
            unpaired.add("rgb", frame.time)
        yield frame, partner
    window.finish()


class _Window:
    """The last thermal frame before a moment and the first after it."""

    def __init__(
        self, frames: Iterator[Frame], offset: float, tolerance: float, unpaired: Unpaired
    ) -> None:
        self.frames, self.offset, self.tolerance = frames, offset, tolerance
        self.unpaired = unpaired
        self.before: Frame | None = None
        self.after = next(frames, None)
        self.last = -math.inf
        self.waiting: list[float] = [] if self.after is None else [self.after.time + offset]

    def nearest(self, moment: float) -> Frame | None:
        """The thermal frame nearest to `moment`, within the tolerance; moments only grow."""
        while self.after is not None and self.after.time + self.offset <= moment:
            self.before, self.after = self.after, next(self.frames, None)
            if self.after is not None:
                self._wait_for_partner(self.after.time + self.offset)
        self.last = moment
        self._settle()
        near = [frame for frame in (self.before, self.after) if frame is not None]
        best = min(near, key=lambda frame: abs(frame.time + self.offset - moment), default=None)
        if best is None or abs(best.time + self.offset - moment) > self.tolerance:
            return None
        return best

    def _wait_for_partner(self, moment: float) -> None:
        if moment - self.last > self.tolerance:
            self.waiting.append(moment)

    def _settle(self) -> None:
        """Thermal frames that RGB has reached have a partner now, or never will."""
        later = []
        for moment in self.waiting:
            if moment > self.last + self.tolerance:
                later.append(moment)
            elif moment < self.last - self.tolerance:
                self.unpaired.add("thermal", moment)
        self.waiting = later

    def finish(self) -> None:
        """RGB has ended: what is still to come has no partner."""
        for moment in self.waiting:
            self.unpaired.add("thermal", moment)
        for frame in self.frames:
            moment = frame.time + self.offset
            if abs(moment - self.last) > self.tolerance:
                self.unpaired.add("thermal", moment)


def import_av() -> Any:
    """PyAV, which is an extra."""
    try:
        import av
    except ModuleNotFoundError:
        raise InputError(
            "video needs PyAV, which is not installed: pip install 'sartm[video]'"
        ) from None
    av.logging.set_level(None)  # damage is counted and described by us
    return av


def _open_video(path: Path, role: Role, camera: Camera, max_pixels: int) -> Stream:
    av = import_av()
    if not path.is_file():
        raise InputError(f"{path}: no such video file; check the path")
    # Probing goes by content, so a play list under the name of a video must not open others.
    only = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        container = av.open(str(path.resolve()), options=only, metadata_errors="replace")
    except (av.error.FFmpegError, OSError):
        raise InputError(
            f"{path}: not a readable video, or cut off before its index; copy it again, or convert "
            f"it to MP4, MKV or WebM"
        ) from None
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: holds no pictures; give a video file")
    source = container.streams.video[0]
    height, width = source.codec_context.height, source.codec_context.width
    if height * width > max_pixels:
        container.close()
        raise InputError(
            f"{path}: frames of {height}x{width} exceed the limit of {max_pixels / 1e6:g} million "
            f"pixels; scale the video down"
        )
    source.thread_type = "AUTO"
    rate = source.average_rate or source.guessed_rate or _RATE
    seconds = (container.duration or 0) / av.time_base
    count = source.frames or round(seconds * float(rate))
    stream = Stream(str(path), iter(()), Fraction(rate), count)
    stream.frames = _video_frames(container, source, stream, role, camera, max_pixels)
    return stream


def _video_frames(
    container: Any, source: Any, stream: Stream, role: Role, camera: Camera, max_pixels: int
) -> Iterator[Frame]:
    begin = Fraction(container.start_time or 0, 1_000_000)
    last, interval = -math.inf, float(1 / stream.rate)
    try:
        for index, picture in enumerate(_decoded(container, source, stream)):
            if picture.height * picture.width > max_pixels:
                raise InputError(f"{stream.name}: frames grow beyond the limit of pixels")
            moment = last + interval if last > -math.inf else 0.0
            if picture.pts is not None:
                stated = float(picture.pts * picture.time_base - begin)
                moment = stated if stated > last else moment
            last = moment

            def load(picture: Any = picture, index: int = index) -> Images:
                return _images(picture, role, camera, f"{stream.name}, frame {index}")

            yield Frame(index, moment, load)
    finally:
        container.close()


def _decoded(container: Any, source: Any, stream: Stream) -> Iterator[Any]:
    """Pictures in the order they are shown; what is damaged is counted and left out."""
    failure = import_av().error.FFmpegError
    packets = container.demux(source)
    while True:
        try:
            packet = next(packets, None)
        except failure:  # the rest of the file cannot be read
            stream.damaged += 1
            return
        if packet is None:
            return
        try:
            pictures = packet.decode()
        except failure:
            stream.damaged += 1
            continue
        yield from pictures


def _images(picture: Any, role: Role, camera: Camera, name: str) -> Images:
    """RGB and thermal of a decoded frame, upright."""
    turns = round(picture.rotation / 90) % 4
    if role == "rgb":
        rgb, thermal = picture.to_ndarray(format="rgb24"), None
    elif role == "thermal":
        rgb, thermal = None, _thermal(picture, name)
    elif role == "four-channel":
        rgb, thermal = _four_channels(picture, name)
    else:
        return _halves(_turned(picture.to_ndarray(format="rgb24"), turns), role, camera, name)
    if thermal is not None:
        thermal = prepare_thermal(_turned(thermal, turns), camera)
    return None if rgb is None else _turned(rgb, turns), thermal


def _turned(image: Array, turns: int) -> Array:
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _thermal(picture: Any, name: str) -> Array:
    """Raw (H, W): grey of any depth keeps its values, of YUV the luma is taken at full range."""
    kind = picture.format.name
    if kind.startswith("gray") and kind not in ("gray", "gray8"):
        raw = picture.to_ndarray(format="gray16le") if kind == "gray16be" else picture.to_ndarray()
        return np.asarray(raw)
    if kind in ("gray", "gray8"):
        return np.asarray(picture.to_ndarray())
    if kind.startswith(("yuv", "nv")) and picture.format.components[0].bits == 8:
        if kind.startswith("yuv") and not kind.startswith("yuyv"):
            _refuse_colour(_chroma(picture), 12.0, 2.0, name)
        else:
            _grey_of(picture.to_ndarray(format="rgb24"), name)
        return np.asarray(picture.to_ndarray(format="gray"))
    return _grey_of(picture.to_ndarray(format="rgb24"), name)


def _chroma(picture: Any) -> Array:
    """How far the two colour planes of planar YUV are from grey."""
    planes = []
    for plane in picture.planes[1:3]:
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        planes.append(lines[: plane.height, : plane.width].ravel())
    return np.abs(np.concatenate(planes).astype(np.int16) - 128)


def _grey_of(rgb: Array, name: str, largest: float = 24.0, mean: float = 4.0) -> Array:
    """One channel of three nearly equal ones (H, W, 3)."""
    spread = rgb.max(axis=2).astype(np.int16) - rgb.min(axis=2)
    _refuse_colour(spread, largest, mean, name)
    return np.ascontiguousarray(rgb[..., 1])


def _refuse_colour(spread: Array, largest: float, mean: float, name: str) -> None:
    if spread.size and (spread.max() > largest or spread.mean() > mean):
        raise InputError(
            f"{name}: the thermal video is in false colour or is a visible one (channels differ by "
            f"up to {spread.max()}, {spread.mean():.1f} on average); record it in "
            f"grey, or exchange --rgb and --thermal"
        )


def _four_channels(picture: Any, name: str) -> Images:
    if not any(component.is_alpha for component in picture.format.components):
        raise InputError(
            f"{name}: {picture.format.name} has no 4th channel; choose another --one-file"
        )
    if picture.format.components[0].bits > 8:
        pixels = picture.to_ndarray(format="rgba64le")
        rgb = np.asarray(cv2.convertScaleAbs(pixels[..., :3], alpha=1 / 257), np.uint8)
        return rgb, pixels[..., 3].copy()
    pixels = picture.to_ndarray(format="rgba")
    return np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])


def _halves(image: Array, role: Arrangement, camera: Camera, name: str) -> Images:
    """Both halves of (H, W, 3); colours bleed over the seam a little, so only the mean counts."""
    axis = 1 if role in ("left-right", "right-left") else 0
    middle = image.shape[axis] // 2
    first, second = np.split(image, (middle, 2 * middle), axis=axis)[:2]
    if role in ("right-left", "bottom-top"):
        first, second = second, first
    thermal = prepare_thermal(_grey_of(second, name, largest=255.0), camera)
    return np.ascontiguousarray(first), thermal


def _open_camera(number: int, role: Role, camera: Camera, epoch: float) -> Stream:
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise InputError(
            f"camera:{number} cannot be opened; is it connected, free, and may this user read it?"
        )
    if role == "thermal":
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)  # 16-bit counts stay counts where there are any
    rate = capture.get(cv2.CAP_PROP_FPS)
    known = Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else _RATE
    stream = Stream(f"camera:{number}", iter(()), known)
    stream.frames = _camera_frames(capture, stream.name, role, camera, epoch)
    return stream


def _camera_frames(
    capture: Any, name: str, role: Role, camera: Camera, epoch: float
) -> Iterator[Frame]:
    """The newest frame each time one is asked for; those that came in between are forgotten."""
    newest: queue.Queue[tuple[float, Array] | None] = queue.Queue(maxsize=1)
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            found, image = capture.read()
            moment = time.monotonic() - epoch
            with contextlib.suppress(queue.Empty):
                newest.get_nowait()
            newest.put((moment, image) if found else None)
            if not found:
                return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    index = 0
    try:
        while True:
            try:
                item = newest.get(timeout=_PATIENCE)
            except queue.Empty:
                raise InputError(
                    f"{name} gave no frame for {_PATIENCE:g} s; reconnect it"
                ) from None
            if item is None:
                return
            image = item[1]

            def load(image: Array = image, index: int = index) -> Images:
                return _camera_images(image, role, camera, f"{name}, frame {index}")

            yield Frame(index, item[0], load)
            index += 1
    finally:
        ended.set()
        thread.join(_PATIENCE)
        capture.release()


def _camera_images(image: Array, role: Role, camera: Camera, name: str) -> Images:
    if role == "thermal":
        if image.ndim == 3 and image.shape[2] == 2:  # YUYV: luma, then colour
            raw = np.ascontiguousarray(image[..., 0])
        else:
            raw = image if image.ndim == 2 else _grey_of(image, name)
        return None, prepare_thermal(raw, camera)
    to_rgb = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
    rgb = np.asarray(cv2.cvtColor(image, to_rgb), np.uint8)
    if role == "rgb":
        return rgb, None
    if role == "four-channel":
        raise InputError(f"{name}: a camera has no 4th channel; choose another --one-file")
    return _halves(rgb, role, camera, name)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key: numbers in a name by their value."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if odd % 2 else (-1, part) for odd, part in enumerate(parts)]


__all__ = [
    "VIDEO_SUFFIXES",
    "Arrangement",
    "Frame",
    "Images",
    "Match",
    "Stream",
    "Unpaired",
    "camera_index",
    "folder_stream",
    "import_av",
    "is_video",
    "open_stream",
    "pair_frames",
]
